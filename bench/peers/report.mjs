/**
 * Says what was measured: the same tables on the terminal and in Markdown, and everything as JSON.
 */
import { readFileSync, statfsSync } from 'node:fs';
import os from 'node:os';
import { runQuietly } from './measure.mjs';
import { ceilingSeconds, summarise, TASK_TITLES } from './targets.mjs';

const MIB = 2 ** 20;
const TABLE_TASKS = ['full', 'second', 'restore', 'copy', 'narrow', 'wide'];

function fileSystemOf(folder) {
  try {
    return runQuietly('findmnt', ['-n', '-o', 'FSTYPE,SOURCE,OPTIONS', '-T', folder]).trim();
  } catch {
    return `type 0x${statfsSync(folder).type.toString(16)}`;
  }
}

/** The machine as it matters to the figures. */
export function describeMachine(folder) {
  const distribution = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    kernel: `${os.type()} ${os.release()} ${os.arch()}`,
    distribution,
    fileSystem: fileSystemOf(folder),
    node: process.version,
  };
}

function seconds(summary) {
  const digits = summary.median < 10 ? 2 : 1;
  const text = `${summary.median.toFixed(digits)} s`;
  if (summary.values.length === 1) return text;
  return `${text} (${summary.min.toFixed(digits)}-${summary.max.toFixed(digits)})`;
}

/** One row for each contender of each task. */
export function taskRows({ samples, failures, contenders }) {
  const rows = [];
  for (const task of TABLE_TASKS) {
    for (const contender of contenders) {
      const own = samples.filter((one) => one.task === task && one.contender === contender.id);
      if (own.length > 0) {
        rows.push({
          task: TASK_TITLES[task],
          contender: contender.label,
          time: seconds(summarise(own.map((one) => one.seconds))),
          settled: seconds(summarise(own.map((one) => one.seconds + one.settleSeconds))),
          cpu:
            own[0].cpuSeconds === undefined
              ? '-'
              : seconds(summarise(own.map((one) => one.cpuSeconds))),
          memory: `${(Math.max(...own.map((one) => one.peakBytes)) / MIB).toFixed(0)} MiB`,
        });
      } else if (failures.has(contender.id) && contender.tasks.includes(task)) {
        const why = failures.get(contender.id) === 'absent' ? 'absent' : 'failed';
        rows.push({
          task: TASK_TITLES[task],
          contender: contender.label,
          time: why,
          settled: '',
          cpu: '',
          memory: '',
        });
      }
    }
  }
  return rows;
}

function table(header, rows) {
  const widths = header.map((cell, column) =>
    Math.max(cell.length, ...rows.map((row) => row[column].length)),
  );
  const line = (cells) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column])).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(header), rule, ...rows.map(line)].join('\n');
}

export function timesTable(rows) {
  return table(
    ['work', 'tool', 'time', 'until written back', 'CPU', 'peak memory'],
    rows.map((row) => [row.task, row.contender, row.time, row.settled, row.cpu, row.memory]),
  );
}

export function targetsTable(targets) {
  const word = (passed) => (passed === undefined ? '-' : passed ? 'pass' : 'MISS');
  return table(
    ['target', 'asked', 'reached', ''],
    targets.map((one) => [one.name, one.target, one.result, word(one.passed)]),
  );
}

export function storedTable(storedBytes, contenders) {
  const rows = contenders
    .filter(({ id }) => storedBytes[id] !== undefined)
    .map(({ id, label }) => [label, `${(storedBytes[id] / MIB).toFixed(1)} MiB`]);
  return table(['repository of three related images', 'stored'], rows);
}

function ceilingText(ceilings, cores) {
  if (ceilings.length === 0) return 'The ceiling was not measured.';
  const median = (key) => summarise(ceilings.map((one) => one[key])).median;
  const read = median('readSeconds');
  const kernels = median('kernelSeconds');
  const ceiling = ceilingSeconds({ readSeconds: read, kernelSeconds: kernels }, cores);
  return (
    `Reading the disk's allocated ranges unbuffered takes ${read.toFixed(2)} s. The kernels alone (zero scan and cut ` +
    `${median('scanAndCutSeconds').toFixed(2)} s, BLAKE3 ${median('hashSeconds').toFixed(2)} s, LZ4 of the unique chunks ` +
    `${median('compressSeconds').toFixed(2)} s) take ${kernels.toFixed(2)} s of one core, ${(kernels / cores).toFixed(2)} s ` +
    `on ${cores}. The ceiling is the slower of the two: ${ceiling.toFixed(2)} s.`
  );
}

function commandLines(samples) {
  const seen = new Map();
  for (const one of samples) {
    const key = `${one.contender} ${one.task}`;
    if (!seen.has(key)) seen.set(key, one.command);
  }
  return [...seen].map(([key, command]) => `${key.padEnd(20)} ${command}`).join('\n');
}

/** The whole report as Markdown. */
export function markdown(result) {
  const { machine, versions, images, cache, rounds, targets, contenders } = result;
  const failed = Object.entries(result.failures).filter(([, why]) => why !== 'absent');
  const version = ([tool, text]) => `- ${tool}: ${text ?? 'absent'}`;
  return `# Firn against its peers

${result.date}. ${machine.cpu}, ${machine.cores} cores, ${(machine.memoryBytes / 2 ** 30).toFixed(0)} GiB of memory;
${machine.distribution ?? ''}, ${machine.kernel}, Node ${machine.node}; everything on one file system: ${machine.fileSystem}.

The source is a ${(images.virtualBytes / 2 ** 30).toFixed(0)} GiB dynamic VHDX of ${(images.base.fileBytes / MIB).toFixed(0)} MiB with
${(images.base.dataBytes / MIB).toFixed(0)} MiB of files on ext4. Sources and repositories were ${cache === 'warm' ? 'in the page cache (read once before each run)' : 'dropped from the page cache before each run'}.
${rounds} round${rounds === 1 ? '' : 's'}, contenders taking turns; median (min-max). Ratios are taken inside each round. The dirty pages of one run were
written back before the next began; "until written back" adds that wait. restic always encrypts; borg and Firn did not.

## Targets

${targetsTable(targets)}

## Times

${timesTable(taskRows({ ...result, failures: new Map(Object.entries(result.failures)) }))}

${storedTable(result.storedBytes, contenders)}

${ceilingText(result.ceilings, machine.cores)}
${failed.map(([id, why]) => `\n**${id} failed:** ${why}\n`).join('')}
## Versions

${Object.entries(versions).map(version).join('\n')}

## Commands of the first round

\`\`\`
${commandLines(result.samples)}
\`\`\`
`;
}
