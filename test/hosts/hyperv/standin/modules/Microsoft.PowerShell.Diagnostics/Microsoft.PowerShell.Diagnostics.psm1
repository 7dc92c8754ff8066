# The event log.

function Get-WinEvent { [CmdletBinding()] param($FilterHashtable, [int] $MaxEvents) Send-Standin 'Get-WinEvent' $PSBoundParameters }
