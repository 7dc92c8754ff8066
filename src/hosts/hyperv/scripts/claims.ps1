# Claims: what a run is about to make on this host, written down on this host before it is made.
#
# A recovery checkpoint cannot be given its name when it is made, only afterwards. If everything dies in between, a checkpoint stands there
# that bears no mark. The claim closes that gap: it says which run asked, when by this host's clock, and which recovery checkpoints the
# machine had before. A claim is a file
#     %ProgramData%\Firn\captures\<mark>\<machine>.json
# so the mark is where the host keeps it, and any process can end what a dead run has begun. It is removed when nothing is left.
#
# An unmarked checkpoint is taken for the claim's own only if it is a recovery checkpoint of that machine, was not there before, was made
# inside the claim's window by the same clock, bears nobody's mark, and is the only such one. If two fit, none is touched.

# How often a file that another process is at is tried again, and how long after.
$FirnFileTries = 50
$FirnFilePauseMs = 10

function Get-FirnCapturesFolder {
    return [System.IO.Path]::Combine($env:ProgramData, 'Firn', 'captures')
}

function Get-FirnMarkFolder([string] $mark) {
    Assert-FirnMark $mark
    return [System.IO.Path]::Combine((Get-FirnCapturesFolder), $mark)
}

function Get-FirnClaimPath([string] $mark, $vmId) {
    return [System.IO.Path]::Combine((Get-FirnMarkFolder $mark), "$([guid] "$vmId").json")
}

# Writes a document so that it is there whole or not at all, also after a power cut. Another process may read it, write it, or take it and its
# folder away meanwhile, which is why it is tried again.
function Save-FirnDocument([string] $path, $document) {
    $bytes = [System.Text.Encoding]::UTF8.GetBytes((ConvertTo-FirnJson $document))
    for ($try = 1; ; $try++) {
        try {
            Write-FirnBytes $path $bytes
            return
        } catch [System.IO.IOException], [System.UnauthorizedAccessException] {
            if ($try -ge $FirnFileTries) { throw }
            Wait-Firn $FirnFilePauseMs
        }
    }
}

function Write-FirnBytes([string] $path, [byte[]] $bytes) {
    [void] [System.IO.Directory]::CreateDirectory([System.IO.Path]::GetDirectoryName($path))
    $temporary = "$path.$PID.tmp"
    $stream = [System.IO.File]::Create($temporary)
    try {
        $stream.Write($bytes, 0, $bytes.Length)
        $stream.Flush($true)
    } finally {
        $stream.Close()
    }
    if ([System.IO.File]::Exists($path)) { [System.IO.File]::Replace($temporary, $path, [NullString]::Value) }
    else { [System.IO.File]::Move($temporary, $path) }
}

# The document, or nothing. While one is replaced it may have no name for a moment: then what replaces it lies beside it.
function Read-FirnDocument([string] $path) {
    for ($try = 1; $try -le $FirnFileTries; $try++) {
        try {
            return ConvertFrom-FirnJson (Read-FirnBytes $path)
        } catch [System.IO.FileNotFoundException], [System.IO.DirectoryNotFoundException] {
            if (-not (Test-FirnWriting $path)) { return $null }
        }
        Wait-Firn $FirnFilePauseMs
    }
    return $null
}

function Read-FirnBytes([string] $path) {
    # Who reads it stands in nobody's way.
    $share = [System.IO.FileShare]::ReadWrite -bor [System.IO.FileShare]::Delete
    $stream = [System.IO.File]::Open($path, [System.IO.FileMode]::Open, [System.IO.FileAccess]::Read, $share)
    try {
        return , ([System.IO.BinaryReader] $stream).ReadBytes([int] $stream.Length)
    } finally {
        $stream.Close()
    }
}

# True if a process is writing the document, or died as it did.
function Test-FirnWriting([string] $path) {
    $name = [System.IO.Path]::GetFileName($path)
    try {
        return [System.IO.Directory]::GetFiles([System.IO.Path]::GetDirectoryName($path), "$name.*.tmp").Count -gt 0
    } catch [System.IO.DirectoryNotFoundException] {
        return $false
    }
}

function Get-FirnClaim([string] $mark, $vmId) {
    return Read-FirnDocument (Get-FirnClaimPath $mark $vmId)
}

function Save-FirnClaim($claim) {
    Save-FirnDocument (Get-FirnClaimPath $claim.mark $claim.vm) $claim
}

function Remove-FirnClaim([string] $mark, $vmId) {
    $path = Get-FirnClaimPath $mark $vmId
    $folder = [System.IO.Path]::GetDirectoryName($path)
    try {
        if (-not [System.IO.Directory]::Exists($folder)) { return }
        [System.IO.File]::Delete($path)
        # What a process that died while it wrote has left; one that writes just now tries again.
        foreach ($file in [System.IO.Directory]::GetFiles($folder, "$([guid] "$vmId").json.*.tmp")) { [System.IO.File]::Delete($file) }
        # Fails while the run has claims on other machines, and then the folder stays.
        [System.IO.Directory]::Delete($folder)
    } catch [System.IO.IOException] {
        return
    }
}

function Get-FirnClaimFiles([string] $run) {
    try {
        return , [System.IO.Directory]::GetFiles($run, '*.json')
    } catch [System.IO.DirectoryNotFoundException] {
        # Its last claim was ended just now.
        return , @()
    }
}

# All claims of this host, of any run.
function Get-FirnClaims {
    $folder = Get-FirnCapturesFolder
    if (-not [System.IO.Directory]::Exists($folder)) { return , @() }
    $claims = foreach ($run in [System.IO.Directory]::GetDirectories($folder)) {
        $mark = [System.IO.Path]::GetFileName($run)
        if ($mark -cnotmatch '^firn-[0-9a-f]{32}\z') { continue }
        foreach ($file in (Get-FirnClaimFiles $run)) {
            $name = [System.IO.Path]::GetFileNameWithoutExtension($file)
            if ($name -match '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z') { @{ mark = $mark; vm = $name } }
        }
    }
    return , @($claims)
}

# The recovery checkpoints of a machine as WMI has them.
function Get-FirnRecoverySettings($vm) {
    return , @(foreach ($settings in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_VirtualSystemSettingData')) {
            if ("$($settings.VirtualSystemType)" -eq $FirnRecoveryType -and
                "$($settings.VirtualSystemIdentifier)" -eq "$($vm.Id)") { $settings }
        })
}

# A time as claims have it.
function ConvertTo-FirnUtc([string] $text) {
    return [datetime]::Parse($text, [System.Globalization.CultureInfo]::InvariantCulture,
        [System.Globalization.DateTimeStyles]::RoundtripKind).ToUniversalTime()
}

function Find-FirnOwnSettings($vm, [string] $mark, $claim) {
    return , (Select-FirnOwnSettings (Get-FirnRecoverySettings $vm) $mark $claim)
}

# Those of a machine's recovery checkpoints that are the run's, by the rule above. Throws if that cannot be told.
function Select-FirnOwnSettings($all, [string] $mark, $claim) {
    $own = @(foreach ($settings in $all) {
            if ((Get-FirnMark "$($settings.ElementName)") -ceq $mark) { $settings }
            elseif ($claim -and $claim.instanceId -and $claim.instanceId -eq "$($settings.InstanceID)") { $settings }
        })
    if ($own.Count -gt 0 -or -not $claim -or $claim.instanceId) { return , $own }
    # The times of WMI are cut to the second.
    $from = (ConvertTo-FirnUtc $claim.begun).AddSeconds(-1)
    $to = $from.AddMilliseconds($claim.windowMs + 1000)
    $candidates = @(foreach ($settings in $all) {
            $created = ([datetime] $settings.CreationTime).ToUniversalTime()
            if (-not (Get-FirnMark "$($settings.ElementName)") -and @($claim.before) -notcontains "$($settings.InstanceID)" -and
                $created -ge $from -and $created -le $to) { $settings }
        })
    if ($candidates.Count -gt 1) {
        $names = @(foreach ($settings in $candidates) { "$($settings.ElementName)" })
        throw (New-FirnError 'mark-failed' ("Which recovery checkpoint is this run's cannot be told, so all stay: " +
                ($names -join ', ')) @{ names = $names })
    }
    return , $candidates
}
