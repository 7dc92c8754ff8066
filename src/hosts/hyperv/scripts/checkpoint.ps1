# Windows Server 2016 and later: a recovery checkpoint for each machine, which freezes the guest as it is made.
#
# After a backup the checkpoint is destroyed, unless it is kept as a reference point (tracking.ps1): then it was converted before.

function Get-FirnService([string] $class) {
    return @(Get-CimInstance -Namespace $FirnVirtualization -ClassName $class)[0]
}

# What CreateSnapshot is told. `level` 1 asks the guest to come to rest, 2 does not.
function Get-FirnCheckpointSettings([int] $level) {
    $properties = [ordered] @{
        ConsistencyLevel            = @('uint8', $level)
        IgnoreNonSnapshottableDisks = @('boolean', 'TRUE')
    }
    $class = Get-CimClass -Namespace $FirnVirtualization -ClassName 'Msvm_VirtualSystemSnapshotSettingData'
    $known = @(foreach ($property in $class.CimClassProperties) { $property.Name })
    # Since Windows Server 2019. A copy backup (2): a full one would let programs in the guest cut their logs before the point is sealed.
    if ($known -contains 'GuestBackupType') { $properties['GuestBackupType'] = @('uint8', 2) }
    return ConvertTo-FirnInstance 'Msvm_VirtualSystemSnapshotSettingData' $properties
}

# Two backups of one machine at once end in layers that cannot be merged, so the second one waits.
function Assert-FirnFree($vm, [string] $mark) {
    foreach ($settings in (Get-FirnRecoverySettings $vm)) {
        if ((Get-FirnMark "$($settings.ElementName)") -cne $mark) {
            throw (New-FirnError 'vm-busy' ("Another backup holds the machine: its recovery checkpoint is " +
                    "'$($settings.ElementName)', made $(([datetime] $settings.CreationTime).ToUniversalTime().ToString('u'))"))
        }
    }
    $busy = Get-FirnBusy $vm
    if ($busy) { throw (New-FirnError 'vm-busy' "The machine cannot be captured now: $busy") }
}

function Start-FirnCheckpoint($vm, $claim, [int] $level) {
    $arguments = @{
        AffectedSystem   = Get-FirnSystem $vm
        SnapshotSettings = Get-FirnCheckpointSettings $level
        # A recovery checkpoint: it has no memory and is no part of the tree that users see.
        SnapshotType     = [uint16] 32768
    }
    $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_VirtualSystemSnapshotService') -MethodName 'CreateSnapshot' `
        -Arguments $arguments
    $claim.answered = $true
    if ($answer.Job) { $claim.job = "$($answer.Job.InstanceID)" }
    Save-FirnClaim $claim
    return $answer
}

# The checkpoint that a job has made.
function Get-FirnJobResult($job) {
    foreach ($settings in @(Get-CimAssociatedInstance -InputObject $job -ResultClassName 'Msvm_VirtualSystemSettingData')) {
        if ("$($settings.VirtualSystemType)" -eq $FirnRecoveryType) { return $settings }
    }
    return $null
}

# Makes the checkpoint bear the mark.
function Set-FirnMark($settings, [string] $mark, $p) {
    $text = ConvertTo-FirnInstance 'Msvm_VirtualSystemSettingData' ([ordered] @{
            InstanceID  = @('string', "$($settings.InstanceID)")
            ElementName = @('string', $mark)
        })
    $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_VirtualSystemManagementService') `
        -MethodName 'ModifySystemSettings' -Arguments @{ SystemSettings = $text }
    [void] (Wait-FirnJob $answer 'Naming the checkpoint' $p.jobMs $p.pollMs)
}

function Get-FirnFrozen($vm, $settings) {
    $snapshot = @(foreach ($candidate in @(Get-VMSnapshot -VM $vm -SnapshotType Recovery)) {
            if ("Microsoft:$($candidate.Id)" -eq "$($settings.InstanceID)") { $candidate }
        })
    if ($snapshot.Count -ne 1) { throw (New-FirnError 'job-failed' 'The checkpoint is not there any more') }
    return , @(foreach ($drive in @(Get-VMHardDiskDrive -VMSnapshot $snapshot[0])) {
            if (-not (Get-FirnUnsupported $drive)) {
                @{ name = (Get-FirnDiskName $drive); layers = (Get-FirnChainPaths "$($drive.Path)") }
            }
        })
}

# Makes a checkpoint, marks it, and says which layers it froze. One call, so that it goes on to the mark when Firn dies meanwhile.
function New-FirnCheckpoint($p) {
    Assert-FirnMark $p.mark
    $vm = Get-FirnVm $p.vm
    $state = Get-FirnState $vm
    Assert-FirnFree $vm $p.mark
    $before = @(foreach ($settings in (Get-FirnRecoverySettings $vm)) { "$($settings.InstanceID)" })
    $claim = @{ mark = $p.mark; vm = "$($vm.Id)"; begun = [datetime]::UtcNow.ToString('o'); windowMs = $p.windowMs
        before = $before; layers = (Get-FirnLayers $vm); active = @(); answered = $false; instanceId = $null; job = $null; endJob = $null
    }
    Save-FirnClaim $claim
    $answer = Start-FirnCheckpoint $vm $claim $p.level
    $ended = Wait-FirnJob $answer 'The checkpoint' $p.jobMs $p.pollMs
    $settings = $(if ($ended.job) { Get-FirnJobResult $ended.job } else { $answer.ResultingSnapshot })
    if (-not $settings) { $settings = @(Find-FirnOwnSettings $vm $p.mark $claim)[0] }
    if (-not $settings) { throw (New-FirnError 'job-failed' 'The job ended well and there is no checkpoint') }
    $claim.instanceId = "$($settings.InstanceID)"
    Save-FirnClaim $claim
    Set-FirnMark $settings $p.mark $p
    $claim.active = @(foreach ($path in (Get-FirnLayers $vm)) { if (@($claim.layers) -notcontains $path) { $path } })
    Save-FirnClaim $claim
    $settings = Get-CimInstance -InputObject $settings
    return @{ disks = (Get-FirnFrozen $vm $settings); configuration = (Get-FirnConfiguration $settings)
        frozenAt = [datetime] $settings.CreationTime; warning = $ended.warning; state = (Get-FirnSteadyState $state $p.vm)
    }
}

# The machine's state, if it was the same before and after: one that was switched on meanwhile counts as running.
function Get-FirnSteadyState([string] $before, [string] $id) {
    $after = Get-FirnState (Get-FirnVm $id)
    if ($before -eq $after) { return $after }
    return 'running'
}

# The last error of a job that has ended, or nothing.
function Get-FirnEndedError($instanceId) {
    if (-not $instanceId) { return '' }
    foreach ($job in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_ConcreteJob')) {
        if ("$($job.InstanceID)" -ne $instanceId -or -not (Test-FirnJobEnded $job)) { continue }
        if (@($FirnJobCompleted, $FirnJobWarnings) -notcontains [int] $job.JobState) { return Get-FirnJobMessage $job }
    }
    return ''
}

# Asks for the end of one checkpoint; its layers are merged by the host afterwards. Never DestroySnapshotTree: that takes the user's too.
function Stop-FirnCheckpoint($vm, $settings, $claim) {
    if ($claim -and @($claim.active).Count -eq 0) {
        # Who made it died before it could note what is to be merged; the checkpoint goes before its layers do.
        $claim.active = Find-FirnLayersAbove $vm $settings
        Save-FirnClaim $claim
    }
    $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_VirtualSystemSnapshotService') -MethodName 'DestroySnapshot' `
        -Arguments @{ AffectedSnapshot = $settings }
    $code = [uint32] $answer.ReturnValue
    if ($claim -and $answer.Job) {
        $claim.answered = $true
        $claim.endJob = "$($answer.Job.InstanceID)"
        Save-FirnClaim $claim
    }
    if ($code -eq 0 -or $code -eq $FirnJobStarted) { return '' }
    return "Ending the checkpoint '$($settings.ElementName)' was refused with the code $code"
}

# The layers right above those that a checkpoint froze: they go when it ends. None if that cannot be told, as when it ends just now.
function Find-FirnLayersAbove($vm, $settings) {
    try {
        $frozen = @(foreach ($disk in (Get-FirnFrozen $vm $settings)) { $disk.layers[0] })
        return , @(foreach ($drive in (Get-FirnDrives $vm)) {
                foreach ($layer in (Get-FirnChain "$($drive.Path)")) {
                    if ($frozen -contains "$($layer.ParentPath)") { "$($layer.Path)" }
                }
            })
    } catch {
        return , @()
    }
}

# What the event log says of merges of this machine that failed, newest first.
function Get-FirnMergeEvents($vm) {
    if (-not (Test-FirnCommand 'Get-WinEvent')) { return , @() }
    try {
        $events = @(Get-WinEvent -MaxEvents 50 -ErrorAction Stop -FilterHashtable @{
                LogName = 'Microsoft-Windows-Hyper-V-VMMS-Admin'; Id = 19100
            })
    } catch {
        # No such event is an error there too.
        return , @()
    }
    $id = "$($vm.Id)"
    return , @(foreach ($entry in $events) {
            if ("$($entry.Message)".IndexOf($id, [System.StringComparison]::OrdinalIgnoreCase) -ge 0) { "$($entry.Message)" }
        })
}

function Find-FirnVmToEnd($p) {
    try {
        return Get-FirnVm $p.vm
    } catch {
        $own = Find-FirnException $_.Exception
        if ($own -and $own.Data['FirnKind'] -eq 'vm-moved') {
            # The claim goes after it: without it an unmarked checkpoint would not be known there.
            $data = ConvertFrom-FirnJson ([System.Text.Encoding]::UTF8.GetBytes($own.Data['FirnData']))
            throw (New-FirnError 'vm-moved' $own.Message @{ owner = $data.owner; claim = (Get-FirnClaim $p.mark $p.vm) })
        }
        if (-not $own -or $own.Data['FirnKind'] -ne 'vm-not-found') { throw }
        # With the machine went everything that was made of it.
        Remove-FirnClaim $p.mark $p.vm
        return $null
    }
}

# One look at what of the run is at the machine; with `destroy` it also asks for its end. To be called until its state is `done`. It needs
# nothing but the mark, and nothing happens when it is called too often.
function Remove-FirnCheckpoint($p) {
    Assert-FirnMark $p.mark
    $vm = Find-FirnVmToEnd $p
    if (-not $vm) { return @{ state = 'done' } }
    $claim = Get-FirnClaim $p.mark $vm.Id
    if (-not $claim -and $p.claim) {
        $claim = $p.claim
        Save-FirnClaim $claim
    }
    $events = $(if ($p.explain) { Get-FirnMergeEvents $vm } else { @() })
    if ($claim -and (Find-FirnRunningJob $claim.job)) {
        return @{ state = 'pending'; reason = 'the checkpoint is still being made'; error = ''; events = $events }
    }
    if ($claim -and (Find-FirnRunningJob $claim.keepJob)) {
        return @{ state = 'pending'; reason = 'the checkpoint is being made a reference point'; error = ''; events = $events }
    }
    [void] (Save-FirnConversion $vm $claim)
    # Looked at first: a checkpoint that is made between the two looks is seen by the one or by the other.
    $busy = Get-FirnBusy $vm
    $own = Find-FirnOwnSettings $vm $p.mark $claim
    # And again: one that somebody ended between them is being merged now.
    if ($own.Count -eq 0 -and -not $busy) { $busy = Get-FirnBusy $vm }
    if ($own.Count -gt 0) {
        $failure = $(if ($claim) { Get-FirnEndedError $claim.endJob } else { '' })
        # Never a second deletion beside a first one.
        if ($p.destroy -and -not $busy) {
            foreach ($settings in $own) {
                $refusal = Stop-FirnCheckpoint $vm $settings $claim
                if ($refusal) { $failure = $refusal }
            }
        }
        $reason = $(if ($busy) { $busy } else { 'the checkpoint still stands' })
        return @{ state = 'pending'; reason = $reason; error = $failure; events = $events }
    }
    if (-not $busy -and $claim) { $busy = Get-FirnUnmerged $vm $claim $p.answerMs }
    if (-not $busy -and $claim) { $busy = Get-FirnUnanswered $claim $p.answerMs }
    if ($busy) {
        return @{ state = 'pending'; reason = $busy; error = $(if ($claim) { Get-FirnEndedError $claim.endJob } else { '' })
            events = $events
        }
    }
    Remove-FirnClaim $p.mark $vm.Id
    return @{ state = 'done' }
}

# Why the layers of a claim are not all merged yet, or nothing. A layer may go away between the look at the drive and the look at its file, which
# only says that something is merged just now. Who made a VSS set may have died before it could note what is to be merged: then every new layer is
# waited for, as long as the writer may take to begin, and one that is still there after that is another's.
function Get-FirnUnmerged($vm, $claim, [int] $answerMs) {
    $active = @($claim.active)
    $isUnknown = $active.Count -eq 0 -and $claim.ended -and (Test-FirnSince $claim.ended $answerMs)
    if ($active.Count -eq 0 -and -not $isUnknown) { return $null }
    try {
        $now = Get-FirnLayers $vm
    } catch {
        return "its layers cannot be read: $($_.Exception.Message)"
    }
    foreach ($path in $now) {
        if ($active -contains $path) { return "$path is not merged" }
        if ($isUnknown -and @($claim.layers) -notcontains $path) { return "$path may be merged now" }
    }
    return $null
}

# Why a checkpoint may still come of a claim that nothing is seen of, or nothing: PowerShell has died before it saw the host's answer, and a job that was
# begun shows at the machine only once it runs.
function Get-FirnUnanswered($claim, [int] $answerMs) {
    if ($claim.answered -ne $false -or -not (Test-FirnSince $claim.begun $answerMs)) { return $null }
    return 'a checkpoint may have been asked for just now'
}

# True if the time, by this host's clock, is no longer ago.
function Test-FirnSince([string] $time, [int] $milliseconds) {
    $age = ([datetime]::UtcNow - (ConvertTo-FirnUtc $time)).TotalMilliseconds
    return $age -ge 0 -and $age -lt $milliseconds
}

# Forgets a claim whose machine has moved and was released where it is now.
function Remove-FirnMovedClaim($p) {
    Remove-FirnClaim $p.mark $p.vm
    return @{ state = 'done' }
}
