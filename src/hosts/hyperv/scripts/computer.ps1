# The computer that Firn itself runs on: what its account may do there, what slows its files down, and its event log. As facts: what they
# mean is said by who asks.

# The third, or another, column of what whoami.exe tells as a table. Its words are in the system's language; ids and names of rights are not.
function Get-FirnColumn($lines, [int] $column) {
    return , @(foreach ($line in @($lines)) {
            $cells = "$line".Trim().Trim('"') -split '","'
            if ($cells.Count -gt $column) { $cells[$column] }
        })
}

# A value of the registry as reg.exe tells it: a number, or nothing if it is not there.
function Get-FirnNumber($lines) {
    $match = [regex]::Match((@($lines) -join "`n"), 'REG_DWORD\s+0x([0-9a-fA-F]+)')
    if ($match.Success) { return [System.Convert]::ToInt64($match.Groups[1].Value, 16) }
    return $null
}

# Whether programs that ask for it may use long paths. False too where Windows knows no such switch.
function Test-FirnLongPaths {
    try {
        return 1 -eq (Get-FirnNumber (reg.exe query 'HKLM\SYSTEM\CurrentControlSet\Control\FileSystem' /v 'LongPathsEnabled'))
    } catch {
        return $false
    }
}

function Test-FirnEventSource {
    try {
        [void] @(reg.exe query 'HKLM\SYSTEM\CurrentControlSet\Services\EventLog\Application\Firn')
        return $LASTEXITCODE -eq 0
    } catch {
        return $false
    }
}

# What Microsoft Defender does here; nothing where it is not installed or does not answer.
function Get-FirnDefender {
    if (-not (Test-FirnCommand 'Get-MpPreference')) { return $null }
    try {
        $preference = Get-MpPreference -ErrorAction Stop
        $status = Get-MpComputerStatus -ErrorAction Stop
    } catch {
        return $null
    }
    return @{ realTime = [bool] $status.RealTimeProtectionEnabled
        paths = @(foreach ($path in @($preference.ExclusionPath)) { if ($path) { "$path" } })
        processes = @(foreach ($path in @($preference.ExclusionProcess)) { if ($path) { "$path" } })
    }
}

function Get-FirnComputer {
    $user = @(whoami.exe /user /fo csv /nh)
    return @{ account = "$((Get-FirnColumn $user 0)[0])"; sid = "$((Get-FirnColumn $user 1)[0])"
        groups = (Get-FirnColumn @(whoami.exe /groups /fo csv /nh) 2)
        privileges = (Get-FirnColumn @(whoami.exe /priv /fo csv /nh) 0)
        longPaths = (Test-FirnLongPaths); eventSource = (Test-FirnEventSource); defender = (Get-FirnDefender)
    }
}

# One entry in the log "Application". Its source must be registered; that takes an administrator, once.
function Write-FirnEvent($parameters) {
    Write-EventLog -LogName 'Application' -Source 'Firn' -EventId ([int] $parameters.id) -EntryType "$($parameters.level)" -Message "$($parameters.message)" -ErrorAction Stop
    return @{ written = $true }
}
