/** The scripts as texts: they parse, they are valid for the PowerShell of Windows Server 2012 R2, and they build no code from data. */

import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { SCRIPTS } from '../../../src/hosts/hyperv/bridge.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { describeWithPowerShell, POWERSHELL } from './lane.js';

const NAMES = readdirSync(SCRIPTS).sort();

/** Cmdlets that PowerShell 4.0 and the modules of 2012 R2 have, or that a script asks for before it uses them; and programs. */
const KNOWN_COMMANDS = [
  'ForEach-Object',
  'Get-Command',
  'Where-Object',
  'Get-CimAssociatedInstance',
  'Get-CimClass',
  'Get-CimInstance',
  'Invoke-CimMethod',
  'Remove-CimInstance',
  'Get-VHD',
  'Get-VM',
  'Get-VMHardDiskDrive',
  'Get-VMReplication',
  'Get-VMScsiController',
  'Get-VMSnapshot',
  'Get-WinEvent',
  'Get-ClusterGroup',
  'Get-ClusterSharedVolume',
  'Get-MpComputerStatus',
  'Get-MpPreference',
  'Write-EventLog',
  'cmd.exe',
  'reg.exe',
  'vssadmin.exe',
  'whoami.exe',
];
/** Those of the driving side alone. */
const DRIVER_COMMANDS = [
  'Invoke-Command',
  'New-PSSession',
  'New-PSSessionOption',
  'Remove-PSSession',
];

// Walks the syntax trees of all scripts and prints what it finds: a line with the file, the kind and the text of each.
const WALK = `
$new = 'TypeDefinitionAst', 'UsingStatementAst', 'TernaryExpressionAst', 'PipelineChainAst'
foreach ($file in [System.IO.Directory]::GetFiles($env:FIRN_FOLDER)) {
  $errors = $null
  $tree = [System.Management.Automation.Language.Parser]::ParseFile($file, [ref] $null, [ref] $errors)
  $name = [System.IO.Path]::GetFileName($file)
  foreach ($problem in $errors) { "$name error $problem" }
  foreach ($node in $tree.FindAll({ $true }, $true)) {
    $kind = $node.GetType().Name
    $line = $node.Extent.StartLineNumber
    if ($new -contains $kind) { "$name syntax $kind at $line" }
    if ($kind -eq 'InvokeMemberExpressionAst') {
      if ($node.Static -and "$($node.Member)" -eq 'new') { "$name syntax ::new at $line" }
      if ($node.NullConditional -or $node.GenericTypeArguments) { "$name syntax $($node.Member) at $line" }
      if ("$($node.Expression)" -eq '[scriptblock]') { "$name block $($node.Arguments)" }
    }
    if ($kind -eq 'BinaryExpressionAst' -and "$($node.Operator)" -eq 'QuestionQuestion') { "$name syntax ?? at $line" }
    if ($kind -eq 'FunctionDefinitionAst') { "$name function $($node.Name)" }
    if ($kind -eq 'CommandAst' -and $node.InvocationOperator -eq 'Unknown') { "$name command $($node.GetCommandName())" }
  }
}
`;

interface Found {
  file: string;
  kind: string;
  text: string;
}

function walk(folder: string): Found[] {
  const output = execFileSync(POWERSHELL ?? '', ['-NoLogo', '-NoProfile', '-Command', WALK], {
    encoding: 'utf8',
    env: { ...process.env, FIRN_FOLDER: folder },
  });
  return output
    .split(/\r?\n/)
    .filter((line) => line !== '')
    .map((line) => {
      const [, file = '', kind = '', text = ''] = /^(\S+) (\S+) (.*)$/.exec(line) ?? [];
      return { file, kind, text };
    });
}

describeWithPowerShell('the scripts', () => {
  let found: Found[] = [];
  beforeAll(() => {
    found = walk(SCRIPTS);
  });
  const of = (name: string, kind: string) =>
    found.filter((item) => item.file === name && item.kind === kind).map(({ text }) => text);

  test('parse without an error', () => {
    expect(NAMES).toContain('host.ps1');
    for (const name of NAMES) {
      expect(of(name, 'error'), name).toEqual([]);
      expect(of(name, 'function').length, name).toBeGreaterThan(0);
    }
  });

  test('have no syntax that PowerShell 4.0 does not know', () => {
    for (const name of NAMES) expect(of(name, 'syntax'), name).toEqual([]);
  });

  test('use no command that a host may not have', () => {
    const own = NAMES.flatMap((name) => of(name, 'function'));
    for (const name of NAMES) {
      const known = [...own, ...KNOWN_COMMANDS, ...(name === 'call.ps1' ? DRIVER_COMMANDS : [])];
      const unknown = of(name, 'command').filter((command) => !known.includes(command));
      expect(unknown, name).toEqual([]);
    }
  });

  test('make code of nothing but their own files', () => {
    const blocks = NAMES.flatMap((name) => of(name, 'block').map((text) => `${name}: ${text}`));
    expect(blocks).toEqual([
      "call.ps1: (Get-FirnText 'json.ps1')",
      "call.ps1: (Get-FirnText 'errors.ps1')",
      'call.ps1: $text',
    ]);
  });

  test('name no function twice, as all become one text', () => {
    const functions = NAMES.flatMap((name) => of(name, 'function'));
    expect(functions.filter((name, index) => functions.indexOf(name) !== index)).toEqual([]);
  });
});

describeWithPowerShell('the look at the scripts', () => {
  test('sees what they must not have', async () => {
    const folder = await temporaryFolder();
    const text =
      'class A {}\n$a ? 1 : 2\n[A]::new()\n$a ?? 1\nGet-Item x && Get-Item y\n[scriptblock]::Create($a)\nif (';
    await writeFile(path.join(folder, 'bad.ps1'), text);
    const found = walk(folder).map(({ kind, text: what }) => `${kind} ${what}`);
    for (const expected of [
      'syntax TypeDefinitionAst at 1',
      'syntax TernaryExpressionAst at 2',
      'syntax ::new at 3',
      'syntax ?? at 4',
      'syntax PipelineChainAst at 5',
      'command Get-Item',
      'block $a',
    ]) {
      expect(found).toContain(expected);
    }
    expect(found.some((line) => line.startsWith('error '))).toBe(true);
  });
});
