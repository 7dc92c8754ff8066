# Microsoft Defender's cmdlets that Firn uses.

function Get-MpPreference { [CmdletBinding()] param() Send-Standin 'Get-MpPreference' $PSBoundParameters }
function Get-MpComputerStatus { [CmdletBinding()] param() Send-Standin 'Get-MpComputerStatus' $PSBoundParameters }
