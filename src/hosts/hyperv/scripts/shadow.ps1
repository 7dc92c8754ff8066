# Windows Server 2012 R2: one VSS set over the volumes of a batch of machines, made by DiskShadow with the Hyper-V writer. Freezing the
# guests, their checkpoints and the shadow copy are one operation there.
#
# The set is volatile and DiskShadow is held, as a child of the PowerShell that this runs in, with its standard input open:
#  - A volatile shadow copy goes with its requester. If Firn dies, that PowerShell reads the end of its input and ends, DiskShadow reads the
#    end of its own, and the shadow copy is gone; the same when the remote session breaks, and at a reboot. A persistent one would fill the
#    volume's shadow storage until somebody came to look, and VSS has no place to put a mark on it.
#  - The price: a set lives no longer than the PowerShell that made it, so each set has one of its own, in which nothing else is done.
# DiskShadow's process is noted in the claims of its machines before it is told anything, so another process can end it by the mark alone.
#
# VSS knows no part of a set: if one machine fails, all do. So the machines that are not wanted are excluded by name, and who calls this
# splits a set that failed.

$FirnWriterId = '{66841cd4-6ded-4f4b-8f17-fd23f8ddc3de}'
$FirnWriterName = 'Microsoft Hyper-V VSS Writer'
$FirnCodePattern = '(?i)\b0x8[0-9a-f]{7}\b'

function Get-FirnSetFolder([string] $mark, [string] $set) {
    if ($set -notmatch '^[0-9]{1,6}\z') { throw 'The request names no proper set' }
    return [System.IO.Path]::Combine((Get-FirnMarkFolder $mark), "set-$set")
}

# A volume as DiskShadow takes it. Its text becomes part of a script, so a name that could end it is refused.
function Format-FirnVolume([string] $name) {
    $separators = [char[]] @([System.IO.Path]::DirectorySeparatorChar)
    if ($name -match '["\x00-\x1f%]') { throw (New-FirnError 'unsupported' "The volume $name cannot be named to DiskShadow") }
    $text = $name.TrimEnd($separators)
    if ($text -match '\s') { return '"' + $text + '"' }
    return $text
}

# The commands for one set. Machines stand in it by their ids alone, never by their names.
function Get-FirnSetCommands($p, $volumes, [string] $folder) {
    $commands = @('set verbose on')
    $commands += $(if ($p.writers) { 'set context volatile' } else { 'set context volatile nowriters' })
    $commands += 'set metadata "' + [System.IO.Path]::Combine($folder, 'set.cab') + '"'
    if ($p.writers) {
        $commands += "writer verify $FirnWriterId"
        foreach ($vm in @(Get-VM)) {
            if (@($p.vms) -contains "$($vm.Id)") { continue }
            $commands += 'writer exclude "' + $FirnWriterName + ':\' + "$($vm.Id)".ToUpperInvariant() + '"'
        }
        $commands += 'begin backup'
    }
    $number = 0
    foreach ($volume in $volumes) {
        $commands += "add volume $(Format-FirnVolume $volume.name) alias FIRN$number"
        $number += 1
    }
    $commands += 'create'
    # DiskShadow answers in the system's language and goes on after an error: that it is through shows by this file.
    $commands += 'exec "' + [System.IO.Path]::Combine($folder, 'ready.cmd') + '"'
    return , $commands
}

function Start-FirnDiskShadow([string] $folder) {
    $program = [System.IO.Path]::Combine([System.Environment]::SystemDirectory, 'diskshadow.exe')
    if (-not [System.IO.File]::Exists($program)) { $program = 'diskshadow.exe' }
    $start = [System.Diagnostics.ProcessStartInfo] @{ FileName = $program; UseShellExecute = $false; CreateNoWindow = $true
        RedirectStandardInput = $true; RedirectStandardOutput = $true; WorkingDirectory = $folder
    }
    try {
        $process = [System.Diagnostics.Process]::Start($start)
    } catch {
        throw (New-FirnError 'unsupported' "DiskShadow cannot be started: $($_.Exception.Message)")
    }
    return @{ process = $process; line = $process.StandardOutput.ReadLineAsync(); text = [System.Collections.ArrayList] @()
        shadows = @(); ended = $false
    }
}

# Gives it commands. If it has ended by itself it takes none, and what it printed tells why.
function Send-FirnCommands($holder, [string[]] $commands) {
    try {
        foreach ($command in $commands) { $holder.process.StandardInput.WriteLine($command) }
        $holder.process.StandardInput.Flush()
    } catch {
        if (-not $holder.process.WaitForExit(1000)) { throw }
    }
}

# Takes what DiskShadow has printed so far, without waiting for more.
function Read-FirnDiskShadow($holder) {
    while ($null -ne $holder.line -and $holder.line.IsCompleted) {
        $line = $holder.line.Result
        if ($null -eq $line) { $holder.line = $null; break }
        [void] $holder.text.Add($line)
        $holder.line = $holder.process.StandardOutput.ReadLineAsync()
    }
}

# Waits until `test` holds or DiskShadow has ended. False at the deadline.
function Wait-FirnDiskShadow($holder, [scriptblock] $test, [int] $deadlineMs, [int] $pollMs) {
    $end = [datetime]::UtcNow.AddMilliseconds($deadlineMs)
    while ($true) {
        $exited = $holder.process.HasExited
        Read-FirnDiskShadow $holder
        if ((& $test) -or $exited) { return $true }
        if ([datetime]::UtcNow -ge $end) { return $false }
        Wait-Firn $pollMs
    }
}

# Tells DiskShadow its last commands, if it has not ended, and waits for its end and for all that it prints.
function Stop-FirnDiskShadow($holder, [string[]] $commands, [int] $deadlineMs) {
    if ($holder.ended) { return }
    $holder.ended = $true
    Send-FirnCommands $holder $commands
    # Closing flushes, which fails when nobody reads any more.
    try { $holder.process.StandardInput.Close() } catch { [void] $_ }
    if (-not (Wait-FirnDiskShadow $holder { $false } $deadlineMs 20)) { $holder.process.Kill() }
    [void] $holder.process.WaitForExit(5000)
    while ($null -ne $holder.line -and $holder.line.Wait(1000)) { Read-FirnDiskShadow $holder }
}

# A disk of the set: its chain, and where the shadow copy will have the layer with the guest's last writes. A file that lies there already
# is a stale one, which the shadow copy would have too.
function Get-FirnSetDisk($drive) {
    $layers = Get-FirnChainPaths "$($drive.Path)"
    $top = $layers[0]
    $extension = $(if ([System.IO.Path]::GetExtension($top) -match '^\.a?vhdx') { '.avhdx' } else { '.avhd' })
    $name = [System.IO.Path]::GetFileNameWithoutExtension($top) + '-AutoRecovery' + $extension
    $recovery = [System.IO.Path]::Combine([System.IO.Path]::GetDirectoryName($top), $name)
    return @{ name = (Get-FirnDiskName $drive); layers = $layers; recovery = $recovery; stale = [System.IO.File]::Exists($recovery) }
}

# What belongs into the set: of each machine the chains of its disks, its configuration file, and all its volumes.
function Get-FirnSetPlan($p, $volumes) {
    $roots = @{}
    foreach ($settings in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_VirtualSystemSettingData')) {
        if ("$($settings.VirtualSystemType)" -eq 'Microsoft:Hyper-V:System:Realized') {
            $roots["$($settings.VirtualSystemIdentifier)"] = $settings
        }
    }
    return , @(foreach ($id in @($p.vms)) {
            $vm = Get-FirnVm $id
            $disks = @(foreach ($drive in (Get-FirnDrives $vm)) {
                    Get-FirnSetDisk $drive
                })
            $settings = $roots["$($vm.Id)"]
            @{ vm = $vm; state = (Get-FirnState $vm); disks = $disks; volumes = (Get-FirnVmVolumes $vm $disks $volumes)
                configuration = $(if ($settings) { Get-FirnConfiguration $settings } else { @() })
            }
        })
}

function Select-FirnSetVolumes($plan, $volumes) {
    $names = @(foreach ($entry in $plan) { $entry.volumes })
    $chosen = @(foreach ($volume in $volumes) { if ($names -contains $volume.name) { $volume } })
    foreach ($name in $names) {
        if (@(foreach ($volume in $chosen) { $volume.name }) -notcontains $name) {
            throw (New-FirnError 'unsupported' "$name is no volume of this host: machines on shares cannot be in its VSS sets")
        }
    }
    return , $chosen
}

function Save-FirnSetClaims($plan, $p, $holder) {
    foreach ($entry in $plan) {
        $claim = Get-FirnClaim $p.mark $entry.vm.Id
        # A second try: what the machine had before the first one counts.
        $layers = $(if ($claim) { $claim.layers } else { @(foreach ($disk in $entry.disks) { $disk.layers }) })
        $active = @(foreach ($path in (Get-FirnLayers $entry.vm)) { if (@($layers) -notcontains $path) { $path } })
        Save-FirnClaim @{ mark = $p.mark; vm = "$($entry.vm.Id)"; begun = [datetime]::UtcNow.ToString('o'); set = "$($p.set)"
            layers = $layers; active = $active; shadows = @(foreach ($shadow in $holder.shadows) { $shadow.id })
            holder = @{ process = $holder.process.Id; started = $holder.process.StartTime.ToUniversalTime().ToString('o') }
        }
    }
}

function Get-FirnShadowCopies {
    return , @(Get-CimInstance -Namespace 'root\cimv2' -ClassName 'Win32_ShadowCopy')
}

# The shadow copies that DiskShadow has made: new ones, whose ids it printed.
function Find-FirnShadows($holder, $before, $volumes) {
    $printed = @(foreach ($match in [regex]::Matches(($holder.text -join "`n"), '\{[0-9a-fA-F-]{36}\}')) { $match.Value })
    return , @(foreach ($copy in (Get-FirnShadowCopies)) {
            $id = "$($copy.ID)"
            if ($before -contains $id -or $printed -notcontains $id) { continue }
            foreach ($volume in $volumes) {
                if (Test-FirnSamePath $volume.device "$($copy.VolumeName)") {
                    @{ id = $id; volume = $volume.name; device = "$($copy.DeviceObject)"; made = $copy.InstallDate }
                }
            }
        })
}

# Looks for the shadow copies until all are found: what DiskShadow prints comes a little later than what it does, and much later where the
# computer has a lot to do. The guests write again by then.
function Wait-FirnShadows($holder, $before, $volumes, [int] $pollMs) {
    $found = {
        $holder.shadows = Find-FirnShadows $holder $before $volumes
        $holder.shadows.Count -eq $volumes.Count -or ($holder.text -join "`n") -match $FirnCodePattern
    }
    [void] (Wait-FirnDiskShadow $holder $found 60000 $pollMs)
}

# `path` inside of a shadow copy, below its device or below a link to that.
function ConvertTo-FirnShadowPath([string] $path, $shadows, $volumes, $links) {
    $volume = Find-FirnVolume $path $volumes
    foreach ($shadow in $shadows) {
        if ($shadow.volume -ne $volume.name) { continue }
        $root = $(if ($links) { $links[$shadow.volume] } else { $shadow.device })
        # A device's name has no separator at its end.
        return $root + [System.IO.Path]::DirectorySeparatorChar + $path.Substring($volume.name.Length)
    }
    throw (New-FirnError 'shadow-failed' "$path lies on no volume of the set" @{ codes = @('0x800423F0') })
}

# Links to the shadow copies, as .NET below 4.6.2 does not take device paths. They stand while the layers are looked for.
function New-FirnLinks($shadows, [string] $folder) {
    $links = @{}
    foreach ($shadow in $shadows) {
        $link = [System.IO.Path]::Combine($folder, "volume-$($links.Count)")
        [void] (cmd.exe /c mklink /d $link ($shadow.device + [System.IO.Path]::DirectorySeparatorChar))
        $links[$shadow.volume] = $link
    }
    return $links
}

# The layers of a disk in the shadow copy. After the freeze the guest's last writes lie in X-AutoRecovery.avhdx above the layer X that was
# on top; without it, X is as after a power cut.
function Get-FirnShadowLayers($disk, $shadows, $volumes, $links) {
    $layers = @(foreach ($path in @($disk.layers)) { ConvertTo-FirnShadowPath $path $shadows $volumes $null })
    $recovery = ConvertTo-FirnShadowPath $disk.recovery $shadows $volumes $links
    $recovered = -not $disk.stale -and [System.IO.File]::Exists($recovery)
    if ($recovered) { $layers = @(ConvertTo-FirnShadowPath $disk.recovery $shadows $volumes $null) + $layers }
    return @{ name = $disk.name; layers = $layers; recovered = $recovered; stale = $disk.stale }
}

function Get-FirnSetResult($plan, $shadows, $volumes, [string] $folder) {
    $links = New-FirnLinks $shadows $folder
    try {
        $vms = @(foreach ($entry in $plan) {
                $disks = @(foreach ($disk in $entry.disks) { Get-FirnShadowLayers $disk $shadows $volumes $links })
                $configuration = @(foreach ($path in $entry.configuration) {
                        if (Test-FirnOnShadow $path $shadows $volumes) { ConvertTo-FirnShadowPath $path $shadows $volumes $null }
                    })
                @{ vm = "$($entry.vm.Id)"; disks = $disks; configuration = $configuration
                    state = (Get-FirnSteadyState $entry.state "$($entry.vm.Id)")
                }
            })
    } finally {
        # Without recursion: this removes the links, not what they lead to.
        foreach ($link in @($links.Values)) { if ([System.IO.Directory]::Exists($link)) { [System.IO.Directory]::Delete($link) } }
    }
    $made = @(foreach ($shadow in $shadows) { ([datetime] $shadow.made).ToUniversalTime() })
    return @{ vms = $vms; frozenAt = @($made)[0]; shadows = @(foreach ($shadow in $shadows) { $shadow.id }) }
}

function Test-FirnOnShadow([string] $path, $shadows, $volumes) {
    $name = (Find-FirnVolume $path $volumes).name
    return @(foreach ($shadow in $shadows) { $shadow.volume }) -contains $name
}

# Makes the set and leaves DiskShadow holding it. Throws `shadow-failed` with the codes that DiskShadow printed.
function New-FirnSet($p) {
    $volumes = Get-FirnVolumes
    $plan = Get-FirnSetPlan $p $volumes
    $chosen = Select-FirnSetVolumes $plan $volumes
    $folder = Get-FirnSetFolder $p.mark $p.set
    [void] [System.IO.Directory]::CreateDirectory($folder)
    $ready = [System.IO.Path]::Combine($folder, 'ready')
    [System.IO.File]::WriteAllText("$ready.cmd", '@echo ready>"%~dp0ready"' + "`r`n", [System.Text.Encoding]::ASCII)
    $before = @(foreach ($copy in (Get-FirnShadowCopies)) { "$($copy.ID)" })
    $holder = $null
    $whole = $false
    try {
        $holder = Start-FirnDiskShadow $folder
        Save-FirnSetClaims $plan $p $holder
        Send-FirnCommands $holder (Get-FirnSetCommands $p $chosen $folder)
        $intime = Wait-FirnDiskShadow $holder { [System.IO.File]::Exists($ready) } $p.deadlineMs $p.pollMs
        if ($intime) { Wait-FirnShadows $holder $before $chosen $p.pollMs }
        if ($holder.shadows.Count -ne $chosen.Count) {
            # What it printed may still be on its way; at its end all of it is there.
            Stop-FirnDiskShadow $holder @('end backup', 'exit') 5000
            throw (Get-FirnSetError $holder $intime $p.deadlineMs)
        }
        Save-FirnSetClaims $plan $p $holder
        $result = Get-FirnSetResult $plan $holder.shadows $volumes $folder
        if ($null -eq $global:FirnSets) { $global:FirnSets = @{} }
        $global:FirnSets["$($p.mark)/$($p.set)"] = $holder
        $whole = $true
        return $result
    } finally {
        if (-not $whole) {
            if ($holder) { Stop-FirnDiskShadow $holder @('end backup', 'exit') 5000 }
            Remove-FirnSetFolder $folder
        }
    }
}

function Get-FirnSetError($holder, [bool] $intime, [int] $deadlineMs) {
    $text = $holder.text -join "`n"
    $codes = @(foreach ($match in [regex]::Matches($text, $FirnCodePattern)) { '0x' + $match.Value.Substring(2).ToUpperInvariant() })
    $lines = @(foreach ($line in $holder.text) { if ("$line".Trim()) { "$line".Trim() } })
    $last = @($lines | Where-Object { $_ -match $FirnCodePattern }) + @($lines)[-1]
    $message = $(if ($intime) { "DiskShadow made no shadow copies: $(@($last)[0])" } else { "DiskShadow took longer than $deadlineMs ms" })
    return New-FirnError 'shadow-failed' $message @{ codes = $codes; deadline = (-not $intime) }
}

# Ends the process that holds a set, by the claim's note of it. The time of its start guards against another one with the same number.
function Stop-FirnHolder($claim) {
    try {
        $process = [System.Diagnostics.Process]::GetProcessById([int] $claim.holder.process)
        $started = $process.StartTime.ToUniversalTime()
    } catch {
        # It has ended.
        return
    }
    if ([math]::Abs(($started - (ConvertTo-FirnUtc $claim.holder.started)).TotalSeconds) -gt 1) { return }
    try { $process.Kill() } catch { return }
    [void] $process.WaitForExit(5000)
}

# Ends the set of a claim, wherever it is held, and with it the shadow copies for all its machines.
function Stop-FirnSet($claim) {
    $key = "$($claim.mark)/$($claim.set)"
    if ($global:FirnSets -and $global:FirnSets.ContainsKey($key)) {
        Stop-FirnDiskShadow $global:FirnSets[$key] @('end backup', 'exit') 60000
        $global:FirnSets.Remove($key)
    } else {
        Stop-FirnHolder $claim
    }
    foreach ($copy in (Get-FirnShadowCopies)) {
        if (@($claim.shadows) -contains "$($copy.ID)") { Remove-CimInstance -InputObject $copy -ErrorAction SilentlyContinue }
    }
    Remove-FirnSetFolder (Get-FirnSetFolder $claim.mark $claim.set)
}

function Remove-FirnSetFolder([string] $folder) {
    try {
        if ([System.IO.Directory]::Exists($folder)) { [System.IO.Directory]::Delete($folder, $true) }
    } catch [System.IO.IOException] {
        # Another process is at the same, or a scanner has a file of it open: then it goes with the claim, or stays, and does no harm.
        return
    }
}

# One look at what of the run is at the machine; ends its set first. To be called until its state is `done`.
function Remove-FirnSet($p) {
    Assert-FirnMark $p.mark
    $claim = Get-FirnClaim $p.mark $p.vm
    if (-not $claim) { return @{ state = 'done' } }
    if ($claim.holder) {
        Stop-FirnSet $claim
        $claim.holder = $null
        $claim.ended = [datetime]::UtcNow.ToString('o')
        Save-FirnClaim $claim
    }
    $vm = Find-FirnVmToEnd $p
    if (-not $vm) { return @{ state = 'done' } }
    # The writer merges by itself once the session has ended.
    $busy = Get-FirnBusy $vm
    if (-not $busy) { $busy = Get-FirnUnmerged $vm $claim $p.answerMs }
    if ($busy) {
        return @{ state = 'pending'; reason = $busy; error = ''; events = $(if ($p.explain) { Get-FirnMergeEvents $vm } else { @() }) }
    }
    Remove-FirnClaim $p.mark $vm.Id
    return @{ state = 'done' }
}
