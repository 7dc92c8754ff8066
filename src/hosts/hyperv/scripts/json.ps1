# JSON in both directions, alike on every PowerShell from 4.0 on.
#
# Not ConvertFrom-Json and ConvertTo-Json: PowerShell 7 turns text that looks like a date into a date, so that a machine named
# 2024-01-01T00:00:00 would change its name; 5.1 writes dates, single-element arrays and text that carries notes each in a way of its own.
# Objects are read as hashtables, arrays as arrays, numbers as long or double.

function ConvertFrom-FirnElement($element) {
    switch ($element.GetAttribute('type')) {
        'object' {
            $table = @{}
            foreach ($child in $element.ChildNodes) { $table[$child.LocalName] = ConvertFrom-FirnElement $child }
            return $table
        }
        'array' {
            $items = [System.Collections.ArrayList] @()
            foreach ($child in $element.ChildNodes) { [void] $items.Add((ConvertFrom-FirnElement $child)) }
            # The comma keeps an array of one, or of none, an array.
            return , $items.ToArray()
        }
        'number' {
            $number = [double]::Parse($element.InnerText, [System.Globalization.CultureInfo]::InvariantCulture)
            if ($number -eq [math]::Floor($number)) { return [long] $number }
            return $number
        }
        'boolean' { return $element.InnerText -eq 'true' }
        'null' { return $null }
        default { return $element.InnerText }
    }
}

# An empty XML document that fetches nothing from anywhere, whatever is read into it.
function New-FirnXml {
    $document = [System.Activator]::CreateInstance([System.Xml.XmlDocument])
    $document.XmlResolver = $null
    # The comma keeps it from being taken for the list of its nodes.
    return , $document
}

# Reads a document from its UTF-8 bytes.
function ConvertFrom-FirnJson([byte[]] $bytes) {
    [void] [System.Reflection.Assembly]::Load(
        'System.Runtime.Serialization, Version=4.0.0.0, Culture=neutral, PublicKeyToken=b77a5c561934e089')
    $reader = [System.Runtime.Serialization.Json.JsonReaderWriterFactory]::CreateJsonReader(
        $bytes, [System.Xml.XmlDictionaryReaderQuotas]::Max)
    try {
        $document = New-FirnXml
        # A name may be blanks alone.
        $document.PreserveWhitespace = $true
        $document.Load($reader)
        return ConvertFrom-FirnElement $document.DocumentElement
    } finally {
        $reader.Close()
    }
}

function Add-FirnText([System.Text.StringBuilder] $out, [string] $text) {
    $plain = $text.Replace('\', '\\').Replace('"', '\"')
    if ($plain -notmatch '[^ -~]') {
        [void] $out.Append('"').Append($plain).Append('"')
        return
    }
    [void] $out.Append('"')
    foreach ($character in $plain.ToCharArray()) {
        $code = [int] $character
        if ($code -lt 32 -or $code -gt 126) { [void] $out.Append('\u').Append($code.ToString('x4')) }
        else { [void] $out.Append($character) }
    }
    [void] $out.Append('"')
}

function Add-FirnValue([System.Text.StringBuilder] $out, $value) {
    if ($value -is [psobject]) { $value = $value.PSObject.BaseObject }
    if ($null -eq $value) { [void] $out.Append('null') }
    elseif ($value -is [bool]) { [void] $out.Append($value.ToString().ToLowerInvariant()) }
    elseif ($value -is [string]) { Add-FirnText $out $value }
    elseif ($value -is [System.Enum]) { Add-FirnText $out $value.ToString() }
    elseif ($value -is [datetime]) { Add-FirnText $out $value.ToUniversalTime().ToString('o') }
    elseif ($value -is [System.IConvertible] -and $value -isnot [char]) {
        [void] $out.Append($value.ToString([System.Globalization.CultureInfo]::InvariantCulture))
    }
    elseif ($value -is [System.Collections.IDictionary]) {
        $separator = '{'
        foreach ($key in @($value.Keys)) {
            [void] $out.Append($separator)
            Add-FirnText $out "$key"
            [void] $out.Append(':')
            Add-FirnValue $out $value[$key]
            $separator = ','
        }
        [void] $out.Append($(if ($separator -eq '{') { '{}' } else { '}' }))
    }
    elseif ($value -is [System.Collections.IEnumerable]) {
        $separator = '['
        foreach ($item in $value) {
            [void] $out.Append($separator)
            Add-FirnValue $out $item
            $separator = ','
        }
        [void] $out.Append($(if ($separator -eq '[') { '[]' } else { ']' }))
    }
    else { Add-FirnText $out "$value" }
}

# Writes hashtables, arrays, text, numbers, booleans and dates as one line of ASCII.
function ConvertTo-FirnJson($value) {
    $out = [System.Text.StringBuilder] ''
    Add-FirnValue $out $value
    return $out.ToString()
}

function ConvertFrom-FirnBase64([string] $text) {
    return ConvertFrom-FirnJson ([System.Convert]::FromBase64String($text))
}

function ConvertTo-FirnBase64($value) {
    return [System.Convert]::ToBase64String([System.Text.Encoding]::UTF8.GetBytes((ConvertTo-FirnJson $value)))
}
