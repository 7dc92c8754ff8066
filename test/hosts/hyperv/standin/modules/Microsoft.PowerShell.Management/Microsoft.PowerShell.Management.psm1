# Writing to the event log, as Windows PowerShell can.

function Write-EventLog { [CmdletBinding()] param([string] $LogName, [string] $Source, [int] $EventId, [string] $EntryType, [string] $Message) Send-Standin 'Write-EventLog' $PSBoundParameters }
