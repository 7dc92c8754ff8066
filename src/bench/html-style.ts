/** The style of the HTML report: light and dark by the reader's setting, and for paper. */
export const STYLE = `
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1c1f23; --dim: #636a73; --rule: #dfe2e6;
  --bar: #2f6f9f; --mark: #b4541a; --heat: #2f6f9f; --on: #fff; --warn: #8a5a00; --warn-paper: #fff6e0;
  --c0: #2f6f9f; --c1: #b4541a; --c2: #2c8a63; --c3: #8a4fa3; --c4: #b03a57; --c5: #6b7280; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e6e8ea; --dim: #9aa3ad; --rule: #313840;
  --bar: #6fb1df; --mark: #eb9a5d; --heat: #6fb1df; --on: #0d1115; --warn: #f0c36a; --warn-paper: #2b2414;
  --c0: #6fb1df; --c1: #eb9a5d; --c2: #6ccba0; --c3: #c594dc; --c4: #ec8aa2; --c5: #a6adb7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 28px 16px 56px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 10px; }
p { margin: 0 0 8px; max-width: 78ch; }
.dim { color: var(--dim); fill: var(--dim); }
.lead { background: var(--card); border: 1px solid var(--rule); border-left: 4px solid var(--mark); border-radius: 6px; padding: 14px 16px; margin: 18px 0; }
.lead p:last-child { margin-bottom: 0; }
.lead strong { font-weight: 650; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 14px 0; padding: 0; list-style: none; }
.figures li { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 10px 12px; }
.figures b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.figures span { color: var(--dim); font-size: 13px; display: block; line-height: 1.35; }
figure { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 14px; align-items: start; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 14px 16px; break-inside: avoid; min-width: 0; }
.card p { font-size: 13px; color: var(--dim); margin: 6px 0 0; }
svg { display: block; width: 100%; max-width: 560px; height: auto; }
svg text { font: 13px system-ui, "Segoe UI", "Noto Sans", sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg text.dim { fill: var(--dim); } svg text.on { fill: var(--on); }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.k0 { background: var(--c0); } .k1 { background: var(--c1); } .k2 { background: var(--c2); } .k3 { background: var(--c3); } .k4 { background: var(--c4); } .k5 { background: var(--c5); }
.bar { fill: var(--bar); } .mark { fill: var(--mark); } .heat { fill: var(--heat); }
.best { stroke: var(--mark); stroke-width: 2; }
.whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; }
.legend { list-style: none; margin: 8px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; }
.key { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--dim); } th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
td:first-child { position: sticky; left: 0; background: var(--card); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 14px; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 10px 14px; overflow-x: auto; font-size: 13px; margin: 0; }
.warnings { background: var(--warn-paper); color: var(--warn); border-radius: 6px; padding: 10px 14px 10px 32px; margin: 14px 0; }
footer { margin-top: 36px; color: var(--dim); font-size: 13px; }
@media (max-width: 520px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } h1 { font-size: 22px; } }
@media print { @page { margin: 14mm 12mm; } :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --dim: #444; --rule: #bbb;
  --warn: #5c3c00; --warn-paper: #fff; } body { font-size: 10pt; } main { padding: 0; max-width: none; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } h2 { break-after: avoid; margin-top: 22px; } p, li, tr, pre, .lead { break-inside: avoid; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); } .figures b { font-size: 12pt; white-space: nowrap; } .figures span { font-size: 8.5pt; }
  .cards { display: block; columns: 2; column-gap: 12px; } .cards .card { margin: 0 0 12px; } h3 { font-size: 10pt; } .card p, .legend { font-size: 8pt; }
  .warnings { border: 1px solid var(--rule); } .scroll { overflow: visible; border: 0; border-radius: 0; } table { font-size: 7.5pt; }
  th, td { padding: 2px 5px; } th:first-child, td:first-child { padding-left: 0; white-space: normal; width: 30%; } td:first-child { position: static; } }
`;
