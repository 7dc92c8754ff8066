# The CIM cmdlets that Firn uses.

function Get-CimInstance {
    [CmdletBinding()] param([string] $Namespace, [string] $ClassName, [string] $Filter, $InputObject)
    Send-Standin 'Get-CimInstance' $PSBoundParameters
}
function Get-CimClass {
    [CmdletBinding()] param([string] $Namespace, [string] $ClassName)
    Send-Standin 'Get-CimClass' $PSBoundParameters
}
function Get-CimAssociatedInstance {
    [CmdletBinding()] param($InputObject, [string] $ResultClassName)
    Send-Standin 'Get-CimAssociatedInstance' $PSBoundParameters
}
function Invoke-CimMethod {
    [CmdletBinding()] param($InputObject, [string] $MethodName, $Arguments)
    Send-Standin 'Invoke-CimMethod' $PSBoundParameters
}
function Remove-CimInstance { [CmdletBinding()] param($InputObject) Send-Standin 'Remove-CimInstance' $PSBoundParameters }
