# The cmdlets of Hyper-V that Firn uses.

function Get-VM { [CmdletBinding()] param() Send-Standin 'Get-VM' $PSBoundParameters }
function Get-VMHardDiskDrive { [CmdletBinding()] param($VM, $VMSnapshot) Send-Standin 'Get-VMHardDiskDrive' $PSBoundParameters }
function Get-VHD { [CmdletBinding()] param([string] $Path) Send-Standin 'Get-VHD' $PSBoundParameters }
function Get-VMSnapshot { [CmdletBinding()] param($VM, [string] $SnapshotType) Send-Standin 'Get-VMSnapshot' $PSBoundParameters }
function Get-VMScsiController { [CmdletBinding()] param($VM) Send-Standin 'Get-VMScsiController' $PSBoundParameters }
function Get-VMReplication { [CmdletBinding()] param($VM) Send-Standin 'Get-VMReplication' $PSBoundParameters }
