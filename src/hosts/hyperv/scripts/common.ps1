# What the scripts on the host share. All of it must run on PowerShell 4.0, with the modules of Windows Server 2012 R2.

$FirnVirtualization = 'root\virtualization\v2'
$FirnRecoveryType = 'Microsoft:Hyper-V:Snapshot:Recovery'

# The mark of a run inside a name, or nothing.
function Get-FirnMark([string] $text) {
    $match = [regex]::Match($text, '(?<![0-9a-z])firn-[0-9a-f]{32}(?![0-9a-f])')
    if ($match.Success) { return $match.Value }
    return $null
}

function Assert-FirnMark([string] $mark) {
    # A mark becomes a folder's name below.
    if ($mark -cnotmatch '^firn-[0-9a-f]{32}\z') { throw 'The request carries no proper mark' }
}

# True if this machine has the command.
function Test-FirnCommand([string] $name) {
    return $null -ne (Get-Command -Name $name -ErrorAction SilentlyContinue)
}

# The node that has a machine, if this host is in a cluster and the cluster knows the machine. Throws while the cluster does not answer:
# that is no reason to take a machine for gone, and what was made of it for gone with it.
function Get-FirnOwner([guid] $id) {
    if (-not (Test-FirnCommand 'Get-ClusterGroup')) { return $null }
    try {
        $group = Get-ClusterGroup -VMId $id -ErrorAction Stop
    } catch {
        # How it says that a machine is not clustered differs between versions. If it answers at all, that is what it means.
        Assert-FirnCluster
        return $null
    }
    if ($group) { return "$($group.OwnerNode)" }
    return $null
}

# Throws if this host is in a cluster that does not answer now. The cluster's service is disabled on hosts that are in none.
function Assert-FirnCluster {
    try {
        [void] @(Get-ClusterGroup -ErrorAction Stop)
    } catch {
        $service = @(Get-CimInstance -ClassName 'Win32_Service' -Filter "Name = 'ClusSvc'")[0]
        if (-not $service -or "$($service.StartMode)" -eq 'Disabled') { return }
        throw (New-FirnError 'vm-busy' "Where the machine is cannot be told while the cluster does not answer: $($_.Exception.Message)")
    }
}

# The machine, or the error that says where it went. The id is compared, never put into a query.
function Get-FirnVm([string] $id) {
    $wanted = [guid] $id
    foreach ($vm in @(Get-VM)) { if ("$($vm.Id)" -eq "$wanted") { return $vm } }
    $owner = Get-FirnOwner $wanted
    if (-not $owner) { throw (New-FirnError 'vm-not-found' "The host has no machine with the id $wanted") }
    if ($owner -eq [System.Environment]::MachineName) {
        # The cluster gives a machine to its new node before that lists it.
        throw (New-FirnError 'vm-busy' "The machine is on its way to the node $owner")
    }
    throw (New-FirnError 'vm-moved' "The machine is on the node $owner now" @{ owner = $owner })
}

# The machine as WMI has it.
function Get-FirnSystem($vm) {
    foreach ($system in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_ComputerSystem')) {
        if ("$($system.Name)" -eq "$($vm.Id)") { return $system }
    }
    throw (New-FirnError 'vm-not-found' "WMI has no machine with the id $($vm.Id)")
}

# True while Hyper-V is at work on the machine's layers: making, deleting or merging a checkpoint.
function Get-FirnBusy($vm) {
    $texts = @{ 32768 = 'a checkpoint is being made'; 32769 = 'a checkpoint is being applied'
        32770 = 'a checkpoint is being deleted'; 32772 = 'layers are being merged'
    }
    foreach ($status in @((Get-FirnSystem $vm).OperationalStatus)) {
        if ($texts.ContainsKey([int] $status)) { return $texts[[int] $status] }
    }
    return $null
}

# An instance as the text that Hyper-V's methods take for an embedded one: the XML of CIM's DTD 2.0. By hand, as the serializers differ
# between the versions of PowerShell. `properties` has name -> @(type, value).
function ConvertTo-FirnInstance([string] $class, $properties) {
    $text = '<INSTANCE CLASSNAME="' + $class + '">'
    foreach ($name in @($properties.Keys)) {
        $type, $value = $properties[$name]
        $text += '<PROPERTY NAME="' + $name + '" TYPE="' + $type + '"><VALUE>' +
            [System.Security.SecurityElement]::Escape("$value") + '</VALUE></PROPERTY>'
    }
    return $text + '</INSTANCE>'
}

# The values of the properties of an instance as text, by name. What a guest put into it cannot reach outside of its value.
function ConvertFrom-FirnInstance([string] $text) {
    $document = New-FirnXml
    $document.LoadXml($text)
    $values = @{}
    foreach ($property in $document.DocumentElement.ChildNodes) {
        if ($property.LocalName -eq 'PROPERTY') { $values[$property.GetAttribute('NAME')] = $property.InnerText }
    }
    return $values
}

function Test-FirnSamePath([string] $first, [string] $second) {
    return [string]::Equals($first, $second, [System.StringComparison]::OrdinalIgnoreCase)
}

# The files of a disk's chain, the top one first. `Get-VHD` reads them also while the machine runs.
function Get-FirnChain([string] $path) {
    $chain = [System.Collections.ArrayList] @()
    while ($path) {
        foreach ($layer in $chain) { if (Test-FirnSamePath $layer.Path $path) { throw "The layers of $path name each other" } }
        if ($chain.Count -ge 512) { throw "$path has too many layers" }
        $layer = Get-VHD -Path $path
        [void] $chain.Add($layer)
        $path = "$($layer.ParentPath)"
    }
    return , $chain.ToArray()
}

function Get-FirnChainPaths([string] $path) {
    return , @(foreach ($layer in (Get-FirnChain $path)) { "$($layer.Path)" })
}

# The place of a drive on its machine: "scsi-0-1".
function Get-FirnDiskName($drive) {
    return "$($drive.ControllerType)-$($drive.ControllerNumber)-$($drive.ControllerLocation)".ToLowerInvariant()
}

# Why a drive cannot be backed up from the host, or nothing.
function Get-FirnUnsupported($drive) {
    $path = "$($drive.Path)"
    if ($null -ne $drive.DiskNumber -or -not $path) { return 'it is a pass-through disk' }
    if ([System.IO.Path]::GetExtension($path) -eq '.vhds') { return 'it is a VHD Set, shared between machines' }
    if ($drive.SupportPersistentReservations) { return 'it is shared between machines' }
    return $null
}

# The drives of a machine that are files of its own.
function Get-FirnDrives($vm) {
    return , @(foreach ($drive in @(Get-VMHardDiskDrive -VM $vm)) { if (-not (Get-FirnUnsupported $drive)) { $drive } })
}

# The paths of all layers that the machine uses now.
function Get-FirnLayers($vm) {
    return , @(foreach ($drive in (Get-FirnDrives $vm)) {
            foreach ($path in (Get-FirnChainPaths "$($drive.Path)")) { $path }
        })
}

function Wait-Firn([int] $milliseconds) {
    [System.Threading.Thread]::Sleep($milliseconds)
}

# The machine's configuration files, of its checkpoint `settings` or of itself: those that are there, as the host names them.
function Get-FirnConfiguration($settings) {
    $file = [System.IO.Path]::Combine("$($settings.ConfigurationDataRoot)", "$($settings.ConfigurationFile)")
    $paths = @($file)
    foreach ($extension in '.vmrs', '.vmgs') { $paths += [System.IO.Path]::ChangeExtension($file, $extension) }
    return , @(foreach ($path in $paths) { if ([System.IO.File]::Exists($path)) { $path } })
}
