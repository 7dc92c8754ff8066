/**
 * Plots as SVG text: lines, bars with intervals, heat maps, shares. Colours are CSS variables, so that one drawing serves light, dark and paper.
 *
 * All are drawn 440 units wide, about as wide as a column of the page and a telephone: text then has its own size at both.
 */

export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
}

export interface Axis {
  title: string;
  /** Positions to mark, with their words; all values are those of the points. */
  ticks: readonly (readonly [value: number, text: string])[];
  min: number;
  max: number;
}

export interface BarRow {
  name: string;
  value: number;
  text: string;
  low?: number;
  high?: number;
  /** A row that all others are held against. */
  isMark?: boolean;
}

const WIDTH = 440;
const PLOT = { left: 52, right: 24, top: 10, height: 200 };
const BAR_HEIGHT = 30;
const COLOURS = 6;

export function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** Round values from 0 to a little above `max`, three to six of them. */
export function ticksTo(max: number, say: (value: number) => string): Axis['ticks'] {
  const power = 10 ** Math.floor(Math.log10(max / 3 || 1));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => max / each <= 5) ?? max;
  const count = Math.ceil(max / step - 1e-9);
  return Array.from(
    { length: count + 1 },
    (_, index) => [index * step, say(index * step)] as const,
  );
}

export function lineChart(series: readonly Series[], x: Axis, y: Axis, label: string): string {
  const width = WIDTH - PLOT.left - PLOT.right;
  const across = (value: number) => PLOT.left + (width * (value - x.min)) / (x.max - x.min || 1);
  const down = (value: number) =>
    PLOT.top + PLOT.height * (1 - (value - y.min) / (y.max - y.min || 1));
  const bottom = PLOT.top + PLOT.height;
  const lines = series.map(({ points }, index) => {
    const path = points.map(([px, py]) => `${one(across(px))},${one(down(py))}`).join(' ');
    return `<polyline class="line c${index % COLOURS}" points="${path}"/>`;
  });
  return svg(bottom + 40, label, [
    ...y.ticks.map(
      ([value, text]) =>
        `<line class="grid" x1="${PLOT.left}" x2="${WIDTH - PLOT.right}" y1="${one(down(value))}" y2="${one(down(value))}"/>${words(PLOT.left - 6, down(value) + 4, text, 'end')}`,
    ),
    ...x.ticks.map(([value, text]) => words(across(value), bottom + 16, text, 'middle')),
    words(PLOT.left + width / 2, bottom + 34, x.title, 'middle', 'dim'),
    ...lines,
  ]);
}

/** Names of series beside their colours. */
export function legend(series: readonly Series[]): string {
  const items = series.map(
    ({ name }, index) =>
      `<li><span class="key k${index % COLOURS}"></span>${escapeText(name)}</li>`,
  );
  return `<ul class="legend">${items.join('')}</ul>`;
}

/** One row each, from 0; whiskers are the interval. */
export function barChart(rows: readonly BarRow[], label: string): string {
  const max = Math.max(...rows.map(({ value, high }) => high ?? value), 1e-9);
  const width = WIDTH - 8;
  const across = (value: number) => (width * value) / max;
  const body = rows.map(({ name, value, text, low, high, isMark }, index) => {
    const y = index * BAR_HEIGHT;
    const whisker =
      low === undefined || high === undefined
        ? ''
        : `<path class="whisker" d="M${one(across(low))} ${y + 21}H${one(across(high))}M${one(across(low))} ${y + 18}v6M${one(across(high))} ${y + 18}v6"/>`;
    return `${words(0, y + 13, name, 'start')}${words(WIDTH - 2, y + 13, text, 'end')}<rect class="${isMark ? 'mark' : 'bar'}" x="0" y="${y + 17}" width="${one(Math.max(1, across(value)))}" height="8" rx="2"/>${whisker}`;
  });
  return svg(rows.length * BAR_HEIGHT + 4, label, body);
}

export interface HeatMap {
  columns: readonly string[];
  rows: readonly string[];
  columnTitle: string;
  rowTitle: string;
  /** By row, then column; undefined where nothing was measured. */
  values: readonly (readonly (number | undefined)[])[];
  say(value: number): string;
}

export function heatMap(map: HeatMap, label: string): string {
  const [left, top, height] = [56, 40, 38];
  const width = (WIDTH - left) / map.columns.length;
  const all = map.values.flat().filter((value) => value !== undefined);
  const max = Math.max(...all);
  const cells = map.values.flatMap((row, down) =>
    row.map((value, across) => {
      if (value === undefined) return '';
      const [x, y] = [left + across * width, top + down * height];
      const share = value / max;
      // Dark fields have light words; the variables turn around in the dark.
      const ink = share > 0.55 ? 'on' : '';
      return `<rect class="heat${value === max ? ' best' : ''}" x="${one(x + 1)}" y="${y + 1}" width="${one(width - 2)}" height="${height - 2}" rx="3" style="fill-opacity:${(0.08 + 0.92 * share).toFixed(3)}"/>${words(x + width / 2, y + height / 2 + 5, map.say(value), 'middle', ink)}`;
    }),
  );
  return svg(top + map.rows.length * height + 4, label, [
    words(left + (WIDTH - left) / 2, 14, map.columnTitle, 'middle', 'dim'),
    words(0, 32, map.rowTitle, 'start', 'dim'),
    ...map.columns.map((text, index) => words(left + (index + 0.5) * width, 32, text, 'middle')),
    ...map.rows.map((text, index) =>
      words(left - 8, top + (index + 0.5) * height + 5, text, 'end'),
    ),
    ...cells,
  ]);
}

function svg(height: number, label: string, body: readonly string[]): string {
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeText(label)}">${body.join('')}</svg>`;
}

function words(x: number, y: number, text: string, anchor: string, style = ''): string {
  const name = style === '' ? '' : ` class="${style}"`;
  return `<text${name} x="${one(x)}" y="${one(y)}" text-anchor="${anchor}">${escapeText(text)}</text>`;
}

function one(value: number): string {
  return String(Math.round(value * 10) / 10);
}
