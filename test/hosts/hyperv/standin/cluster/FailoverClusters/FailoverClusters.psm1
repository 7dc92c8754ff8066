# The failover cluster's cmdlets, for the tests that need one.

function Get-ClusterGroup { [CmdletBinding()] param([string] $VMId) Send-Standin 'Get-ClusterGroup' $PSBoundParameters }
function Get-ClusterSharedVolume { [CmdletBinding()] param() Send-Standin 'Get-ClusterSharedVolume' $PSBoundParameters }
