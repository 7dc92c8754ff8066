# The host's side of a call: looks the operation up in a fixed table and answers with one line.

function Invoke-FirnOperation([string] $operation, $parameters) {
    switch -CaseSensitive ($operation) {
        'info' { return Get-FirnInfo }
        'vms' { return Get-FirnVms }
        'volumes' { return @{ volumes = (Get-FirnVolumes) } }
        'make-checkpoint' { return New-FirnCheckpoint $parameters }
        'end-checkpoint' { return Remove-FirnCheckpoint $parameters }
        'find-reference' { return Find-FirnReference $parameters }
        'get-changes' { return Get-FirnChanges $parameters }
        'keep-reference' { return Convert-FirnCheckpoint $parameters }
        'drop-reference' { return Remove-FirnReference $parameters }
        'references' { return Get-FirnReferences $parameters }
        'drop-claim' { return Remove-FirnMovedClaim $parameters }
        'make-set' { return New-FirnSet $parameters }
        'end-set' { return Remove-FirnSet $parameters }
        'facts' { return Get-FirnFacts }
        'leftovers' { return Get-FirnLeftovers }
        'computer' { return Get-FirnComputer }
        'write-event' { return Write-FirnEvent $parameters }
        default { throw "The operation $operation is not known" }
    }
}

function Invoke-FirnRequest([string] $request) {
    $ErrorActionPreference = 'Stop'
    $WarningPreference = 'Continue'
    $ProgressPreference = 'SilentlyContinue'
    $reply = New-FirnReply {
        $document = ConvertFrom-FirnBase64 $request
        Invoke-FirnOperation $document.operation $document.parameters
    }
    return 'firn-reply:' + (ConvertTo-FirnBase64 $reply)
}
