# What the stand-in modules share: a question to the test's process, which plays the hypervisor, and its answer as objects.

. ([scriptblock]::Create([System.IO.File]::ReadAllText([System.IO.Path]::Combine($env:FIRN_HYPERV_SCRIPTS, 'json.ps1'))))

# Objects go over by their reference alone.
function ConvertTo-StandinArgument($value) {
    if ($value -is [System.Collections.IDictionary]) {
        $table = @{}
        foreach ($key in @($value.Keys)) { $table[$key] = ConvertTo-StandinArgument $value[$key] }
        return $table
    }
    if ($value -is [psobject] -and $value.PSObject.Properties['StandinReference']) {
        return @{ reference = "$($value.StandinReference)" }
    }
    return $value
}

function ConvertFrom-StandinAnswer($value) {
    if ($value -is [System.Collections.IDictionary]) {
        if ($value.ContainsKey('date')) {
            return [datetime]::Parse($value['date'], [System.Globalization.CultureInfo]::InvariantCulture,
                [System.Globalization.DateTimeStyles]::RoundtripKind)
        }
        $table = @{}
        foreach ($key in @($value.Keys)) { $table[$key] = ConvertFrom-StandinAnswer $value[$key] }
        return [pscustomobject] $table
    }
    if ($value -is [array]) {
        $items = [object[]] @(foreach ($item in $value) { , (ConvertFrom-StandinAnswer $item) })
        return , $items
    }
    return $value
}

function Invoke-Standin {
    [CmdletBinding()] param([string] $command, $arguments)
    if ($env:FIRN_STANDIN_NOISE) {
        [System.Console]::Out.WriteLine('Ein Modul meldet sich: <<FIRN nonsense FIRN>>')
        [System.Console]::Error.WriteLine('WARNUNG: veraltet')
    }
    $client = [System.Net.Sockets.TcpClient] @{ NoDelay = $true }
    try {
        $client.Connect('127.0.0.1', [int] $env:FIRN_STANDIN_PORT)
        $stream = $client.GetStream()
        $plain = @{}
        foreach ($key in @($arguments.Keys)) { $plain[$key] = ConvertTo-StandinArgument $arguments[$key] }
        $line = (ConvertTo-FirnBase64 @{ command = $command; arguments = $plain; node = "$env:FIRN_STANDIN_NODE" }) + "`n"
        $bytes = [System.Text.Encoding]::ASCII.GetBytes($line)
        $stream.Write($bytes, 0, $bytes.Length)
        $reader = [System.IO.StreamReader] $stream
        $answer = ConvertFrom-FirnBase64 $reader.ReadLine()
    } finally {
        $client.Close()
    }
    foreach ($text in @($answer.warnings)) { if ($text) { $PSCmdlet.WriteWarning($text) } }
    if ($answer.error) { throw $answer.error }
    return , (ConvertFrom-StandinAnswer $answer.result)
}

# A cmdlet's output: the items of a list one by one.
function Send-Standin([string] $command, $arguments) {
    foreach ($item in (Invoke-Standin $command $arguments)) { $item }
}

Export-ModuleMember -Function Invoke-Standin, Send-Standin
