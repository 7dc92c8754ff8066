# What the host is and has. Nothing here changes anything.

function Get-FirnInfo {
    if (-not (Test-FirnCommand 'Get-CimInstance')) {
        throw (New-FirnError 'unsupported' "$([System.Environment]::MachineName) is no Windows host: it has no WMI")
    }
    $system = Get-CimInstance -Namespace 'root\cimv2' -ClassName 'Win32_OperatingSystem'
    $version = "$($system.Version)"
    return @{
        computer = [System.Environment]::MachineName
        caption  = "$($system.Caption)"
        version  = $version
        build    = [int] ($version -split '\.')[2]
    }
}

# A volume's name ends with a separator, so that it is the beginning of the paths on it and of no others.
function Get-FirnVolumes {
    $volumes = [System.Collections.ArrayList] @()
    foreach ($volume in @(Get-CimInstance -Namespace 'root\cimv2' -ClassName 'Win32_Volume')) {
        # A volume without a path, such as the boot loader's, holds no machine.
        if ("$($volume.Name)" -match '^\\\\\?\\' -or -not $volume.Capacity) { continue }
        [void] $volumes.Add(@{ name = "$($volume.Name)"; sizeBytes = $volume.Capacity; freeBytes = $volume.FreeSpace
                device = "$($volume.DeviceID)"
            })
    }
    if (Test-FirnCommand 'Get-ClusterSharedVolume') {
        foreach ($shared in @(Get-ClusterSharedVolume -ErrorAction SilentlyContinue)) {
            foreach ($information in @($shared.SharedVolumeInfo)) {
                $name = "$($information.FriendlyVolumeName)".TrimEnd('\') + '\'
                [void] $volumes.Add(@{ name = $name; sizeBytes = $information.Partition.Size
                        freeBytes = $information.Partition.FreeSpace; device = "$($information.Partition.Name)"
                        coordinator = "$($shared.OwnerNode)"
                    })
            }
        }
    }
    return , $volumes.ToArray()
}

# The volume that a path lies on: the longest name that the path begins with, or the share.
function Find-FirnVolume([string] $path, $volumes) {
    $found = $null
    foreach ($volume in $volumes) {
        if ($path.StartsWith($volume.name, [System.StringComparison]::OrdinalIgnoreCase)) {
            if (-not $found -or $volume.name.Length -gt $found.name.Length) { $found = $volume }
        }
    }
    if ($found) { return $found }
    $share = [regex]::Match($path, '^\\\\[^\\]+\\[^\\]+\\')
    return @{ name = $(if ($share.Success) { $share.Value } else { [System.IO.Path]::GetPathRoot($path) }); device = '' }
}

function Get-FirnState($vm) {
    $state = "$($vm.State)"
    if ($state -match 'Critical') { return 'critical' }
    switch -Regex ($state) {
        '^Off' { return 'off' }
        'Saved' { return 'saved' }
        '^Paus' { return 'paused' }
        default { return 'running' }
    }
}

# What guests say of themselves and of their VSS, by machine. By class and not by service name: the names are translated.
function Get-FirnGuests {
    $guests = @{}
    foreach ($system in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_ComputerSystem')) {
        $guests["$($system.Name)"] = @{ vss = $null; os = '' }
    }
    foreach ($component in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_VssComponent')) {
        $guest = $guests["$($component.SystemName)"]
        if ($guest) { $guest.vss = $component }
    }
    foreach ($component in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_KvpExchangeComponent')) {
        $guest = $guests["$($component.SystemName)"]
        if (-not $guest) { continue }
        foreach ($item in @($component.GuestIntrinsicExchangeItems)) {
            if (-not $item) { continue }
            $values = ConvertFrom-FirnInstance "$item"
            if ($values['Name'] -eq 'OSName') { $guest.os = "$($values['Data'])" }
        }
    }
    return $guests
}

# What a freeze can promise, and why not more. A Linux guest's daemon freezes file systems and knows of no programs; a guest that does not
# say what it is may be one.
function Get-FirnReachable([string] $state, $guest) {
    switch ($state) {
        'off' { return @{ level = 'application'; reason = '' } }
        'saved' { return @{ level = 'crash'; reason = 'its state is saved: what it had in memory is not on its disks' } }
        'paused' { return @{ level = 'crash'; reason = 'it is paused and answers nobody' } }
        'critical' { return @{ level = 'crash'; reason = 'it is in a critical state: look at the storage of its disks' } }
    }
    if (-not $guest -or -not $guest.vss) { return @{ level = 'crash'; reason = 'it has no backup integration service' } }
    if ([int] $guest.vss.EnabledState -ne 2) { return @{ level = 'crash'; reason = 'its backup integration service is switched off' } }
    # 2 is well and 3 is degraded: another version, which works.
    if (@(2, 3) -notcontains [int] @($guest.vss.OperationalStatus)[0]) {
        return @{ level = 'crash'; reason = 'the backup service in the guest does not answer' }
    }
    if ($guest.os -match 'Windows') { return @{ level = 'application'; reason = '' } }
    $whose = $(if ($guest.os) { "a guest with $($guest.os)" } else { 'a guest that does not say what system it runs' })
    return @{ level = 'filesystem'; reason = "$whose brings its file systems to rest, not its programs" }
}

function Get-FirnDisk($drive, $volumes) {
    $path = "$($drive.Path)"
    $disk = @{ name = (Get-FirnDiskName $drive); path = $path; layers = @(); sizeBytes = 0; fileBytes = 0
        volume = $(if ($path) { (Find-FirnVolume $path $volumes).name } else { '' }); unsupported = (Get-FirnUnsupported $drive)
    }
    if ($disk.unsupported) { return $disk }
    try {
        $chain = Get-FirnChain $path
        $disk.sizeBytes = $chain[0].Size
        foreach ($layer in $chain) {
            $disk.fileBytes += $layer.FileSize
            $disk.layers += "$($layer.Path)"
        }
    } catch {
        $disk.unsupported = "its layers cannot be read: $($_.Exception.Message)"
    }
    return $disk
}

# The volumes of everything that belongs to a machine: a VSS set must have all of them, or the writer refuses it.
function Get-FirnVmVolumes($vm, $disks, $volumes) {
    $paths = @("$($vm.Path)", "$($vm.ConfigurationLocation)", "$($vm.SnapshotFileLocation)", "$($vm.SmartPagingFilePath)")
    foreach ($disk in $disks) { $paths += $disk.layers }
    $names = @{}
    foreach ($path in $paths) { if ($path) { $names[(Find-FirnVolume $path $volumes).name] = $true } }
    return , @($names.Keys)
}

function Get-FirnVms {
    $volumes = Get-FirnVolumes
    $guests = Get-FirnGuests
    $vms = foreach ($vm in @(Get-VM)) {
        $state = Get-FirnState $vm
        $reachable = Get-FirnReachable $state $guests["$($vm.Id)"]
        $disks = @(foreach ($drive in @(Get-VMHardDiskDrive -VM $vm)) { Get-FirnDisk $drive $volumes })
        @{ id = "$($vm.Id)"; name = "$($vm.Name)"; state = $state; reachable = $reachable.level
            reachableReason = $reachable.reason; disks = $disks; volumes = (Get-FirnVmVolumes $vm $disks $volumes)
        }
    }
    return @{ vms = @($vms) }
}
