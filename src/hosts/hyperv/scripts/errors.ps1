# Errors as data: what fails on the host comes back in the reply, with all that the host said about it.

# An error that Firn's side acts on: `kind` is one of vm-not-found, vm-moved, vm-busy, unreachable, unsupported, job-failed, job-deadline,
# shadow-failed, mark-failed. `data` goes with it.
function New-FirnError([string] $kind, [string] $message, $data = @{}) {
    $exception = [System.Exception] $message
    $exception.Data['FirnKind'] = $kind
    # As text: an exception's data must be serializable on Windows PowerShell.
    $exception.Data['FirnData'] = ConvertTo-FirnJson $data
    return $exception
}

# The error that was thrown on purpose below the wrappers that PowerShell puts around it, or nothing.
function Find-FirnException($exception) {
    while ($null -ne $exception) {
        if ($exception.Data -and $exception.Data.Contains('FirnKind')) { return $exception }
        $exception = $exception.InnerException
    }
    return $null
}

function Format-FirnHresult([int] $code) {
    return '0x' + $code.ToString('X8')
}

# An error record as data for the reply.
function ConvertFrom-FirnErrorRecord($record) {
    $data = @{
        message               = "$($record.Exception.Message)"
        category              = "$($record.CategoryInfo.Category)"
        fullyQualifiedErrorId = "$($record.FullyQualifiedErrorId)"
        hresult               = Format-FirnHresult $record.Exception.HResult
        # Where it happened, for those who look into a script of ours; the position names no more than its text.
        position              = "$($record.InvocationInfo.PositionMessage)"
    }
    # CimException and Hyper-V's own exceptions carry the provider's code.
    foreach ($name in 'NativeErrorCode', 'ErrorCode', 'StatusCode') {
        $property = $record.Exception.PSObject.Properties[$name]
        if ($property -and $null -ne $property.Value) { $data['wmiErrorCode'] = "$($property.Value)" }
    }
    $own = Find-FirnException $record.Exception
    if ($own) {
        $data['kind'] = $own.Data['FirnKind']
        $data['message'] = $own.Message
        $data['data'] = ConvertFrom-FirnJson ([System.Text.Encoding]::UTF8.GetBytes($own.Data['FirnData']))
    }
    return $data
}

# Answers a request: runs `work`, and puts its result or its error, and its warnings, into one document.
function New-FirnReply([scriptblock] $work) {
    $warnings = [System.Collections.ArrayList] @()
    $result = $null
    try {
        foreach ($item in @(& $work 3>&1)) {
            if ($item -is [System.Management.Automation.WarningRecord]) { [void] $warnings.Add("$($item.Message)") }
            # Only hashtables are results: a cmdlet that prints something by the way does no harm.
            elseif ($item -is [System.Collections.IDictionary]) { $result = $item }
        }
        return @{ ok = $true; result = $result; warnings = $warnings }
    } catch {
        return @{ ok = $false; error = (ConvertFrom-FirnErrorRecord $_); warnings = $warnings }
    }
}
