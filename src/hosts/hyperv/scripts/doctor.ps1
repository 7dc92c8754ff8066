# What would make a backup fail here, as facts: what they mean is said by who asks. And what lies about from backups.

# True, false, or nothing where it cannot be told.
function Test-FirnElevated {
    try {
        $principal = [System.Security.Principal.WindowsPrincipal] [System.Security.Principal.WindowsIdentity]::GetCurrent()
        return $principal.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
    } catch {
        return $null
    }
}

# The Hyper-V writer as vssadmin tells it. It answers in the system's language, so only ids and numbers are read.
function Get-FirnWriter {
    try {
        $text = @(vssadmin.exe list writers) -join "`n"
    } catch {
        return @{ found = $false; state = 0 }
    }
    $at = $text.IndexOf($FirnWriterId, [System.StringComparison]::OrdinalIgnoreCase)
    if ($at -lt 0) { return @{ found = $false; state = 0 } }
    $state = [regex]::Match($text.Substring($at), '\[(\d+)\]')
    return @{ found = $true; state = $(if ($state.Success) { [int] $state.Groups[1].Value } else { 0 }) }
}

function Get-FirnReplication($vm) {
    if (-not (Test-FirnCommand 'Get-VMReplication')) { return $null }
    try {
        $replication = @(Get-VMReplication -VM $vm -ErrorAction Stop)[0]
    } catch {
        # A machine that is not replicated is an error there.
        return $null
    }
    if (-not $replication) { return $null }
    return @{ state = "$($replication.State)"; health = "$($replication.Health)"; mode = "$($replication.Mode)" }
}

function Get-FirnVmFacts($vm) {
    return @{ id = "$($vm.Id)"; name = "$($vm.Name)"; checkpointType = "$($vm.CheckpointType)"
        replication = (Get-FirnReplication $vm); scsiControllers = @(Get-VMScsiController -VM $vm).Count
        snapshotLocation = "$($vm.SnapshotFileLocation)"; busy = (Get-FirnBusy $vm); tracking = (Get-FirnTrackingFacts $vm)
    }
}

function Get-FirnFacts {
    if (-not (Test-FirnCommand 'Get-VM')) { return @{ elevated = (Test-FirnElevated); module = $false; vms = @() } }
    return @{ elevated = (Test-FirnElevated); module = $true; writer = (Get-FirnWriter)
        vms = @(foreach ($vm in @(Get-VM)) { Get-FirnVmFacts $vm })
    }
}

# Layers that a VSS backup of 2012 R2 has left behind: they stop the next one.
function Get-FirnStaleLayers($vm) {
    $folders = @{}
    foreach ($path in (Get-FirnLayers $vm)) { $folders[[System.IO.Path]::GetDirectoryName($path)] = $true }
    return , @(foreach ($folder in @($folders.Keys)) {
            if (-not [System.IO.Directory]::Exists($folder)) { continue }
            foreach ($file in [System.IO.Directory]::GetFiles($folder, '*-AutoRecovery.avhd*')) {
                @{ kind = 'layer'; name = $file; vm = @{ id = "$($vm.Id)"; name = "$($vm.Name)" }; created = [System.IO.File]::GetCreationTimeUtc($file) }
            }
        })
}

function Get-FirnClaimLeftover($entry, $vms) {
    $claim = Get-FirnClaim $entry.mark $entry.vm
    if (-not $claim) { return $null }
    $kind = $(if ($claim.set) { 'shadow-copy' } else { 'checkpoint' })
    $name = $(if (@($claim.shadows).Count -gt 0 -and $claim.set) { @($claim.shadows) -join ', ' } else { "claim of $($entry.mark)" })
    $vm = $vms[$entry.vm]
    return @{ kind = $kind; name = $name; mark = $entry.mark; created = $claim.begun
        vm = @{ id = $entry.vm; name = $(if ($vm) { "$($vm.Name)" } else { $entry.vm }) }
    }
}

# The runs that recovery checkpoints of a machine belong to, by instance: by the marks in their names, or by a claim that fits an unmarked one.
function Get-FirnOwners($vm, $all, $claims) {
    $owners = @{}
    foreach ($entry in $claims) {
        if ($entry.vm -ne "$($vm.Id)") { continue }
        $claim = Get-FirnClaim $entry.mark $entry.vm
        if (-not $claim -or $claim.set) { continue }
        try {
            foreach ($settings in (Select-FirnOwnSettings $all $entry.mark $claim)) { $owners["$($settings.InstanceID)"] = $entry.mark }
        } catch {
            # It cannot be told: then they are listed as they are, beside the claim.
            continue
        }
    }
    return $owners
}

# Recovery checkpoints, stale layers, and claims of which no checkpoint bears the mark (yet, or any more). What bears no mark is another's.
function Get-FirnLeftovers {
    $items = [System.Collections.ArrayList] @()
    $named = @{}
    $vms = @{}
    $claims = Get-FirnClaims
    foreach ($vm in @(Get-VM)) {
        $vms["$($vm.Id)"] = $vm
        $all = Get-FirnRecoverySettings $vm
        $owners = Get-FirnOwners $vm $all $claims
        foreach ($settings in $all) {
            $mark = Get-FirnMark "$($settings.ElementName)"
            if (-not $mark) { $mark = $owners["$($settings.InstanceID)"] }
            if ($mark) { $named["$mark/$($vm.Id)"] = $true }
            [void] $items.Add(@{ kind = 'checkpoint'; name = "$($settings.ElementName)"; mark = $mark
                    vm = @{ id = "$($vm.Id)"; name = "$($vm.Name)" }; created = [datetime] $settings.CreationTime
                })
        }
        try {
            foreach ($layer in (Get-FirnStaleLayers $vm)) { [void] $items.Add($layer) }
        } catch {
            # A machine whose layers cannot be read is the doctor's business.
            continue
        }
    }
    foreach ($entry in $claims) {
        if ($named.ContainsKey("$($entry.mark)/$($entry.vm)")) { continue }
        $item = Get-FirnClaimLeftover $entry $vms
        if ($item) { [void] $items.Add($item) }
    }
    return @{ items = $items }
}
