# Resilient change tracking (RCT), from Windows Server 2016 on: a reference point takes the place of a recovery checkpoint, and the tracking
# of each disk says what was written since.
#
# A reference point has no name to put anything on, so what Firn calls it stands in a file on this host:
#     %ProgramData%\Firn\references\<machine>\<name>.json
# Only what a job of Firn's own has given as its result is written there. What cannot be told apart from another program's is left alone.

$FirnReferenceType = 'Msvm_VirtualSystemReferencePoint'

function Get-FirnReferencesFolder {
    return [System.IO.Path]::Combine($env:ProgramData, 'Firn', 'references')
}

function Test-FirnReferenceName([string] $name) {
    # It becomes a file's name.
    return $name -cmatch '^firn-ref-[0-9a-f]{16}-[0-9a-f]{32}\z'
}

function Get-FirnReferencePath($vmId, [string] $name) {
    if (-not (Test-FirnReferenceName $name)) { throw 'The request names no proper reference' }
    return [System.IO.Path]::Combine((Get-FirnReferencesFolder), "$([guid] "$vmId")", "$name.json")
}

# The reference points of a machine, whoever made them.
function Get-FirnPoints($vm) {
    return , @(foreach ($point in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName $FirnReferenceType)) {
            if ("$($point.VirtualSystemIdentifier)" -eq "$($vm.Id)") { $point }
        })
}

# The reference point behind a name, if both are still there.
function Find-FirnPoint($vm, [string] $name, $points) {
    $document = Read-FirnDocument (Get-FirnReferencePath $vm.Id $name)
    if (-not $document) { return $null }
    foreach ($point in $points) { if ("$($point.InstanceID)" -eq "$($document.instanceId)") { return $point } }
    return $null
}

# The names under which Firn keeps something at a machine. What a name stands for may be gone.
function Get-FirnReferenceNames($vmId) {
    $folder = [System.IO.Path]::Combine((Get-FirnReferencesFolder), "$([guid] "$vmId")")
    if (-not [System.IO.Directory]::Exists($folder)) { return , @() }
    return , @(foreach ($file in [System.IO.Directory]::GetFiles($folder, '*.json')) {
            $name = [System.IO.Path]::GetFileNameWithoutExtension($file)
            if (Test-FirnReferenceName $name) { $name }
        })
}

# What of each disk is tracked since a reference point: the place of the disk, its tracking id and its size. The two lists of a point go
# together one by one; if they do not, nothing can be told.
function Get-FirnTrackedDisks($vm, $point) {
    $identifiers = @($point.VirtualDiskIdentifiers)
    $trackings = @($point.ResilientChangeTrackingIdentifiers)
    if ($identifiers.Count -ne $trackings.Count) { return , @() }
    $paths = @{}
    foreach ($storage in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_StorageAllocationSettingData')) {
        $paths["$($storage.InstanceID)"] = "$(@($storage.HostResource)[0])"
    }
    return , @(foreach ($drive in (Get-FirnDrives $vm)) {
            $chain = Get-FirnChain "$($drive.Path)"
            for ($i = 0; $i -lt $identifiers.Count; $i++) {
                $path = $paths["$($identifiers[$i])"]
                if (-not $path -or -not $trackings[$i]) { continue }
                $matching = @(foreach ($layer in $chain) { if (Test-FirnSamePath "$($layer.Path)" $path) { $layer } })
                if ($matching.Count -eq 0) { continue }
                @{ name = (Get-FirnDiskName $drive); tracking = "$($trackings[$i])"; sizeBytes = $chain[0].Size }
            }
        })
}

# The first of the names that the machine still has something for.
function Find-FirnReference($p) {
    $vm = Get-FirnVm $p.vm
    $points = Get-FirnPoints $vm
    foreach ($name in @($p.names)) {
        if (-not (Test-FirnReferenceName "$name")) { continue }
        $point = Find-FirnPoint $vm $name $points
        if ($point) { return @{ version = "$($vm.Version)"; name = $name; disks = (Get-FirnTrackedDisks $vm $point) } }
    }
    return @{ version = "$($vm.Version)"; name = ''; disks = @() }
}

# What was written to a part of a disk since a tracking id was given out. Bytes of the virtual disk; as much of the part as the host got to.
# The lists go over as one text each: they may be long.
function Get-FirnChanges($p) {
    [void] (Get-FirnVm $p.vm)
    $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_ImageManagementService') -MethodName 'GetVirtualDiskChanges' `
        -Arguments @{ Path = "$($p.path)"; LimitId = "$($p.tracking)"; ByteOffset = [uint64] $p.offset; ByteLength = [uint64] $p.length }
    [void] (Wait-FirnJob $answer 'Asking what changed' $p.jobMs $p.pollMs)
    return @{ processed = [long] $answer.ProcessedByteLength; offsets = (@($answer.ChangedByteOffsets) -join ',')
        lengths = (@($answer.ChangedByteLengths) -join ',')
    }
}

# Writes down what a conversion that has ended well has made, by its job. True if there was one.
function Save-FirnConversion($vm, $claim) {
    if (-not $claim -or -not $claim.keepJob -or -not $claim.keepName) { return $false }
    foreach ($job in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_ConcreteJob')) {
        if ("$($job.InstanceID)" -ne $claim.keepJob -or -not (Test-FirnJobEnded $job)) { continue }
        foreach ($point in @(Get-CimAssociatedInstance -InputObject $job -ResultClassName $FirnReferenceType)) {
            Save-FirnReference $vm $claim.keepName $point
            return $true
        }
    }
    return $false
}

function Save-FirnReference($vm, [string] $name, $point) {
    Save-FirnDocument (Get-FirnReferencePath $vm.Id $name) @{ name = $name; vm = "$($vm.Id)"
        instanceId = "$($point.InstanceID)"; made = [datetime]::UtcNow.ToString('o')
    }
}

# Converts the run's recovery checkpoint, which ends it and merges its layers. One call, so that it goes on to the file when Firn dies
# meanwhile; the job stands in the claim for the case that this PowerShell dies too.
function Convert-FirnCheckpoint($p) {
    Assert-FirnMark $p.mark
    $vm = Find-FirnVmToEnd $p
    if (-not $vm) { return @{ state = 'gone' } }
    if (Find-FirnPoint $vm $p.name (Get-FirnPoints $vm)) { return @{ state = 'kept' } }
    $claim = Get-FirnClaim $p.mark $vm.Id
    if (-not $claim) { $claim = $p.claim }
    if (Save-FirnConversion $vm $claim) { return @{ state = 'kept' } }
    $own = Find-FirnOwnSettings $vm $p.mark $claim
    if ($own.Count -ne 1 -or -not $claim) { return @{ state = 'gone' } }
    if ((Find-FirnRunningJob $claim.keepJob) -or (Get-FirnBusy $vm)) { return @{ state = 'pending' } }
    $claim.keepName = $p.name
    Save-FirnClaim $claim
    $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_VirtualSystemSnapshotService') `
        -MethodName 'ConvertToReferencePoint' -Arguments @{ AffectedSnapshot = $own[0] }
    if ($answer.Job) {
        $claim.keepJob = "$($answer.Job.InstanceID)"
        Save-FirnClaim $claim
    }
    $ended = Wait-FirnJob $answer 'Keeping the reference point' $p.jobMs $p.pollMs
    if ($ended.job) { $point = @(Get-CimAssociatedInstance -InputObject $ended.job -ResultClassName $FirnReferenceType)[0] }
    else { $point = $answer.ResultingReferencePoint }
    if (-not $point -or -not $point.InstanceID) { return @{ state = 'gone' } }
    Save-FirnReference $vm $p.name $point
    return @{ state = 'kept' }
}

# Forgets a reference: the reference point first, then its name.
function Remove-FirnReference($p) {
    $vm = Get-FirnVm $p.vm
    $path = Get-FirnReferencePath $vm.Id $p.name
    if (-not [System.IO.File]::Exists($path)) { return @{ found = $false } }
    $point = Find-FirnPoint $vm $p.name (Get-FirnPoints $vm)
    if ($point) {
        $busy = Get-FirnBusy $vm
        if ($busy) { throw (New-FirnError 'vm-busy' "The reference point cannot be ended now: $busy") }
        $answer = Invoke-CimMethod -InputObject (Get-FirnService 'Msvm_VirtualSystemReferencePointService') `
            -MethodName 'DestroyReferencePoint' -Arguments @{ AffectedReferencePoint = $point }
        [void] (Wait-FirnJob $answer 'Ending the reference point' $p.jobMs $p.pollMs)
    }
    [System.IO.File]::Delete($path)
    return @{ found = $true }
}

# All that Firn keeps at this host's machines, or at one of them. `stands` is false for a name whose reference point is gone.
function Get-FirnReferences($p) {
    $items = [System.Collections.ArrayList] @()
    $vms = $(if ($p.vm) { Get-FirnVm $p.vm } else { Get-VM })
    foreach ($vm in @($vms)) {
        $names = Get-FirnReferenceNames $vm.Id
        if ($names.Count -eq 0) { continue }
        $points = Get-FirnPoints $vm
        foreach ($name in $names) {
            $document = Read-FirnDocument (Get-FirnReferencePath $vm.Id $name)
            if (-not $document) { continue }
            [void] $items.Add(@{ name = $name; vm = @{ id = "$($vm.Id)"; name = "$($vm.Name)" }; made = "$($document.made)"
                    stands = ($null -ne (Find-FirnPoint $vm $name $points))
                })
        }
    }
    return @{ items = $items }
}

# What the doctor looks at: the version that says whether the machine can be tracked, and how many reference points are not Firn's.
function Get-FirnTrackingFacts($vm) {
    if (-not "$($vm.Version)") { return @{ version = ''; foreign = 0 } }
    try {
        $points = Get-FirnPoints $vm
    } catch {
        # A host before 2016 does not have the class.
        return @{ version = "$($vm.Version)"; foreign = 0 }
    }
    $own = @(foreach ($name in (Get-FirnReferenceNames $vm.Id)) { Find-FirnPoint $vm $name $points })
    return @{ version = "$($vm.Version)"; foreign = $points.Count - $own.Count }
}
