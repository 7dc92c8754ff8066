/** The command with which an administrator registers a restored machine. */

import { firnError } from '../../errors.js';

/** How the machine was captured; it decides what kind of configuration file it has. */
export type CaptureMethod = 'recovery checkpoint' | 'VSS set';

/**
 * A PowerShell command that registers the machine in `folder` (a Windows path) from its configuration files, of which the .vmcx or .xml is
 * taken, as a copy with an id of its own, so that it can stand beside the one it was backed up from. What does not fit this host (a switch
 * that it has not) is listed before anything is imported. ERR_NOT_FOUND if no file is a machine's configuration.
 */
export function importCommand(
  folder: string,
  configurationFiles: readonly string[],
  method: CaptureMethod,
): string {
  const extension = method === 'VSS set' ? '.xml' : '.vmcx';
  const file = configurationFiles.find((name) => name.toLowerCase().endsWith(extension));
  if (file === undefined) {
    throw firnError('ERR_NOT_FOUND', `No ${extension} file is among the configuration files`, {
      hint: 'Make a new machine with New-VM and attach the restored disks to it.',
    });
  }
  const path = /^([A-Za-z]:\\|\\\\)/.test(file) ? file : `${folder.replace(/\\+$/, '')}\\${file}`;
  const [quotedPath, quotedFolder] = [quote(path), quote(folder)];
  return [
    `$report = Compare-VM -Path ${quotedPath} -Copy -GenerateNewId`,
    `-VirtualMachinePath ${quotedFolder} -SnapshotFilePath ${quotedFolder} -VhdDestinationPath ${quotedFolder};`,
    '$report.Incompatibilities | Format-Table -AutoSize -Wrap MessageId, Message;',
    'if (-not $report.Incompatibilities) { Import-VM -CompatibilityReport $report }',
  ].join(' ');
}

/**
 * `text` as one literal of PowerShell. In single quotes nothing is special but the quote itself, and PowerShell takes the typographic
 * ones for quotes too.
 */
export function quote(text: string): string {
  return `'${text.replace(/['\u2018\u2019\u201a\u201b]/g, '$&$&')}'`;
}
