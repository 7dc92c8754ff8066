# The driving side: takes one request, has it done on the host, prints one framed reply.
#
# It runs in the PowerShell that Firn started, on Windows or Linux, and is the only script that Firn calls. `request` is base64 of a JSON
# document {id, target, operation, parameters}; the frame is base64 too, so that nothing that a cmdlet prints on its way can break it.
# The work itself is done by the other scripts, as one block of text that is the same for this machine and for a remote one: nothing in it
# depends on the request, which goes along as an argument.

param([string] $request)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$folder = $env:FIRN_HYPERV_SCRIPTS

function Get-FirnText([string] $name) {
    return [System.IO.File]::ReadAllText([System.IO.Path]::Combine($folder, $name))
}

. ([scriptblock]::Create((Get-FirnText 'json.ps1')))
. ([scriptblock]::Create((Get-FirnText 'errors.ps1')))

# What is sent to the host; it must run on PowerShell 4.0. Read once in the life of this shell.
function Get-FirnHostBlock {
    if ($global:FirnHostBlock) { return $global:FirnHostBlock }
    $names = 'json.ps1', 'errors.ps1', 'common.ps1', 'inventory.ps1', 'claims.ps1', 'jobs.ps1', 'checkpoint.ps1',
        'tracking.ps1', 'shadow.ps1', 'doctor.ps1', 'computer.ps1', 'host.ps1'
    $texts = foreach ($name in $names) { Get-FirnText $name }
    $text = 'param([string] $request)' + "`n" + ($texts -join "`n") + "`n" + 'Invoke-FirnRequest $request'
    $global:FirnHostBlock = [scriptblock]::Create($text)
    return $global:FirnHostBlock
}

function Open-FirnSession($target) {
    $parameters = @{}
    if ($target.kind -eq 'ssh') {
        $known = (Get-Command -Name 'New-PSSession').Parameters
        if (-not $known.ContainsKey('HostName')) {
            throw (New-FirnError 'unsupported' 'This PowerShell cannot open sessions over SSH; that takes PowerShell 7')
        }
        $parameters['HostName'] = $target.computer
        if ($target.user) { $parameters['UserName'] = $target.user }
        # Without a terminal nobody can answer a question for a password.
        if ($known.ContainsKey('Options')) { $parameters['Options'] = @{ BatchMode = 'yes' } }
    } else {
        $parameters['ComputerName'] = $target.computer
        # The port of WinRM over TLS.
        if ($target.port -eq 5986) { $parameters['UseSSL'] = $true }
    }
    if ($target.port) { $parameters['Port'] = [int] $target.port }
    try {
        if ($target.kind -eq 'wsman') {
            $parameters['SessionOption'] = New-PSSessionOption -OpenTimeout 30000 -CancelTimeout 5000
        }
        return New-PSSession @parameters
    } catch {
        if (Find-FirnException $_.Exception) { throw }
        throw (New-FirnError 'unreachable' "$($_.Exception.Message)")
    }
}

# The session is kept in this shell: opening one takes seconds, and a set of shadow copies lives in it.
function Get-FirnSession($target) {
    $session = $global:FirnSession
    if ($session -and "$($session.State)" -eq 'Opened') { return $session }
    if ($session) { Remove-PSSession -Session $session -ErrorAction SilentlyContinue }
    $global:FirnSession = Open-FirnSession $target
    return $global:FirnSession
}

function Invoke-FirnTarget($target, [string] $text) {
    $block = Get-FirnHostBlock
    if ($target.kind -eq 'local') { return & $block $text }
    $session = Get-FirnSession $target
    try {
        return Invoke-Command -Session $session -ScriptBlock $block -ArgumentList $text
    } catch {
        # The session's state changes a little later than its calls fail.
        $isBroken = $_.Exception -is [System.Management.Automation.Remoting.PSRemotingTransportException]
        if ($isBroken -or "$($session.State)" -ne 'Opened') { throw (New-FirnError 'unreachable' "$($_.Exception.Message)") }
        throw
    }
}

$id = ''
try {
    $document = ConvertFrom-FirnBase64 $request
    $id = "$($document.id)"
    $output = Invoke-FirnTarget $document.target $request
    $prefix = 'firn-reply:'
    $replies = @(foreach ($item in @($output)) { if ("$item".StartsWith($prefix)) { "$item".Substring($prefix.Length) } })
    if ($replies.Count -ne 1) { throw "The host answered with $($replies.Count) documents" }
    $reply = $replies[0]
} catch {
    $reply = ConvertTo-FirnBase64 @{ ok = $false; error = (ConvertFrom-FirnErrorRecord $_); warnings = @() }
}
[System.Console]::Out.WriteLine('<<FIRN ' + $id + ' ' + $reply + ' FIRN>>')
