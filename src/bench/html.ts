/**
 * A report as one HTML file to send to a colleague: what follows first, then the plots, then every figure. It loads nothing, runs no script,
 * and its security policy forbids both, so that a mail program or a careful browser shows it as it is.
 */

import { charts } from './html-charts.js';
import { STYLE } from './html-style.js';
import type { BenchReport, HostPage, Measurement, PeerRatio } from './report.js';
import { escapeText as esc } from './svg.js';
import { environmentPairs } from './text.js';
import { digits, duration, longTime, mebibytes, megabytes, percent, sizeName } from './words.js';

const TITLES: Readonly<Record<BenchReport['suite'], string>> = {
  read: 'How fast this host reads',
  write: 'How fast this host writes',
  kernels: 'What one core does',
  copy: 'How fast disks are copied',
  backup: 'How fast a disk is backed up',
  scale: 'What more workers and disks bring',
  host: 'What this host can do',
};

export function toHtml(report: BenchReport): string {
  const title = TITLES[report.suite];
  const body = [
    `<h1>${esc(title)}</h1>`,
    `<p class="dim">firn bench ${report.suite} · ${esc(report.created.slice(0, 16).replace('T', ' '))} UTC · ${esc(report.environment.cpu)}, ${report.environment.cores} cores · took ${longTime(report.elapsedSeconds)}</p>`,
    report.host === undefined ? '' : hostSection(report.host),
    report.findings.length === 0 || report.host !== undefined ? '' : lead(report.findings),
    warnings(report.warnings),
    section('Plots', cards(charts(report))),
    report.host === undefined
      ? ''
      : section('What follows', report.findings.map((each) => `<p>${esc(each)}</p>`).join('')),
    report.peers?.length ? section('Beside other programs', peerTable(report.peers)) : '',
    report.paste.length === 0
      ? ''
      : section('To paste', `<pre>${esc(report.paste.join('\n'))}</pre>`),
    section('All figures', allFigures(report.measurements)),
    section('Where and how', environment(report)),
    footer(report),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${esc(title)} - firn bench</title><style>${STYLE}</style></head>
<body><main>${body.filter((each) => each !== '').join('\n')}</main></body></html>
`;
}

function section(title: string, content: string): string {
  return content === '' ? '' : `<section><h2>${esc(title)}</h2>${content}</section>`;
}

function lead(sentences: readonly string[]): string {
  return `<div class="lead">${sentences.map((each) => `<p>${esc(each)}</p>`).join('')}</div>`;
}

function warnings(sentences: readonly string[]): string {
  if (sentences.length === 0) return '';
  return `<ul class="warnings">${sentences.map((each) => `<li>${esc(each)}</li>`).join('')}</ul>`;
}

function hostSection({ figures, bottleneck, changeFirst, window }: HostPage): string {
  const { sizeBytes, churn, fullSeconds, trackedSeconds, untrackedSeconds } = window;
  const item = (name: string, value: string, note: string) =>
    `<li><span>${esc(name)}</span><b>${esc(value)}</b><span>${esc(note)}</span></li>`;
  const rates = figures.map(({ name, bytesPerSecond, note }) =>
    item(name, `${mebibytes(bytesPerSecond)} MiB/s`, `${megabytes(bytesPerSecond)} MB/s; ${note}`),
  );
  const times = [
    item(
      `first backup of ${sizeName(sizeBytes)}`,
      longTime(fullSeconds),
      'all of it is read and stored',
    ),
    item(`next, ${percent(churn)} changed`, longTime(trackedSeconds), 'with change tracking'),
    item(
      `next, ${percent(churn)} changed`,
      longTime(untrackedSeconds),
      'without: all is read and hashed',
    ),
  ];
  return `<div class="lead"><p><strong>Bottleneck: ${esc(bottleneck)}.</strong> ${esc(changeFirst)}</p></div>
<ul class="figures">${rates.join('')}</ul><h2>Backup window</h2><ul class="figures">${times.join('')}</ul>`;
}

function cards(drawn: readonly { title: string; content: string; note: string }[]): string {
  if (drawn.length === 0) return '';
  const each = drawn.map(
    ({ title, content, note }) =>
      `<figure class="card"><h3>${esc(title)}</h3>${content}<p>${esc(note)}</p></figure>`,
  );
  return `<div class="cards">${each.join('')}</div>`;
}

function tableOf(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = titles.map((title) => `<th scope="col">${esc(title)}</th>`).join('');
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${esc(cell)}</td>`).join('')}</tr>`);
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>${body.join('')}</tbody></table></div>`;
}

function peerTable(peers: readonly PeerRatio[]): string {
  return tableOf(
    ['work', 'program', 'Firn is', '95 % interval', 'version'],
    peers.map(({ work, name, summary, failure, version }) => [
      work,
      name,
      summary === undefined ? `failed: ${failure}` : `${summary.median.toFixed(2)} times as fast`,
      summary === undefined ? '' : `${summary.low.toFixed(2)} to ${summary.high.toFixed(2)}`,
      version,
    ]),
  );
}

function allFigures(measurements: readonly Measurement[]): string {
  const hasLatency = measurements.some(({ latency }) => latency !== undefined);
  const titles = ['', 'MiB/s', 'MB/s', '95 % interval', 'varies', 'rounds', 'CPU s/GiB'];
  const latencies = ['p50', 'p90', 'p95', 'p99', 'p99.9', 'longest'];
  const rows = measurements.map(({ suite, label, summary, cpuSecondsPerGib, latency, ratio }) => [
    `${suite}: ${label}${ratio === undefined ? '' : `, ${digits(ratio)}x`}`,
    mebibytes(summary.median),
    megabytes(summary.median),
    `${mebibytes(summary.low)} to ${mebibytes(summary.high)}`,
    percent(summary.variation),
    String(summary.rounds),
    cpuSecondsPerGib === undefined ? '' : digits(cpuSecondsPerGib),
    ...(!hasLatency
      ? []
      : latency === undefined
        ? latencies.map(() => '')
        : [
            latency.p50Ns,
            latency.p90Ns,
            latency.p95Ns,
            latency.p99Ns,
            latency.p999Ns,
            latency.maxNs,
          ].map(duration)),
  ]);
  return tableOf(hasLatency ? [...titles, ...latencies] : titles, rows);
}

function environment(report: BenchReport): string {
  const pairs = environmentPairs(report).map(
    ([name, value]) => `<dt>${esc(name)}</dt><dd>${esc(value)}</dd>`,
  );
  return `<div class="card"><dl>${pairs.join('')}</dl></div>`;
}

function footer({ environment: { firn } }: BenchReport): string {
  return `<footer>The middle is the median over rounds; the interval holds the true median in 95 of 100 such measurements, by resampling. MiB are 1,048,576 bytes, MB are 1,000,000. Made by Firn ${esc(firn)}.</footer>`;
}
