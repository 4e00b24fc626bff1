"""The style sheet of walks' reports: that of all reports, and what they show beside."""

from tnet.scripts.page_style import STYLE as COMMON

STYLE = (
    COMMON
    + """
body { max-width: 1480px; }
a { color: var(--accent); }
nav { margin-bottom: 12px; }
.hero { display: grid; grid-template-columns: minmax(300px, 5fr) 9fr; gap: 48px; margin-top: 20px;
  align-items: start; }
.hero figure, .said p:first-child { margin-top: 0; }
.answer { font-size: 56px; line-height: 1.1; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
.sureness { font-size: 40px; line-height: 1.2; color: var(--accent); margin: 0 0 4px;
  font-variant-numeric: tabular-nums; }
.said .cards { grid-template-columns: 1fr 1fr; gap: 4px 24px; margin-top: 28px; }
.said .card b { font-size: 34px; } .said .card { border-top-width: 3px; }
.classes { width: 100%; margin-top: 20px; }
.sum tbody tr:last-child > * { font-weight: 650; border-bottom: 0; }
.sum { margin: 20px 0 4px; }
.classes th { max-width: 12em; } .classes td:nth-child(2) { width: 50%; }
.classes svg { height: 12px; max-width: none; border-radius: 2px; }
.room { fill: #eef0f2; } .share { fill: var(--accent); }
.drawing { max-width: none; max-height: 78vh; }
.drawing .halo { fill: none; stroke: #101014; stroke-width: 4.5; stroke-opacity: .55; }
.drawing .box { fill: transparent; stroke-width: 2.2; }
.drawing a:hover .box { stroke-width: 4; } .drawing line.box { stroke-width: 1.6; }
.drawing .number { stroke: #fff; stroke-width: 2; }
.drawing text, .badge text { font-size: 14.5px; font-weight: 650; text-anchor: middle; }
.dark { fill: var(--ink); } .light { fill: #fff; }
.drawing .plate { fill: #fff; fill-opacity: .82; } .bar-scale { fill: var(--ink); }
.drawing .scale { font-size: 15px; font-weight: 500; }
.pale { filter: grayscale(1); opacity: .7; } .heat { image-rendering: pixelated; }
.edge { fill: none; stroke: var(--rule); } .drawing .disc { stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; max-width: none;
  margin: 8px 0; }
.legend svg + span { margin-right: 10px; }
figure .legend img { border: 1px solid var(--rule); }
.swatch { width: 14px; height: 14px; } .badge { width: 30px; height: 30px; flex: none; }
.problem { border-left: 4px solid var(--warm); padding-left: 12px; color: var(--ink); }
.telling { display: grid; grid-template-columns: repeat(3, 1fr); gap: 12px; }
.telling a { position: relative; display: block; }
.telling img { display: block; width: 100%; height: auto; border: 1px solid var(--rule); }
.telling .badge { position: absolute; left: 6px; top: 6px; }
.glimpses { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr));
  gap: 32px 28px; margin-top: 20px; }
.glimpse { break-inside: avoid; scroll-margin-top: 24px; }
.glimpse:target { outline: 3px solid var(--warm); outline-offset: 8px; }
.glimpse h3 { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 10px; font-size: 18px;
  margin: 0 0 8px; }
.glimpse h3 span { font-weight: 400; font-size: 15px; color: var(--faint); }
.shown { display: flex; gap: 8px; align-items: flex-start; }
.shown img { display: block; border: 1px solid var(--rule); min-width: 0; height: auto;
  max-height: 480px; object-fit: contain; }
.shown img:first-child { flex: 3 1 0; width: 100%; } .shown .inset { flex: 2 1 0; width: 100%; }
.pixels { image-rendering: pixelated; }
.none { display: grid; place-items: center; width: 100%; height: 120px; color: var(--faint);
  border: 1px dashed var(--rule); }
.worth { max-width: none; height: 8px; margin: 8px 0 6px; }
.rule, .middle { fill: var(--rule); } .middle { fill: var(--faint); }
.for { fill: var(--warm); } .against { fill: var(--accent); }
.glimpse dl { font-size: 15px; gap: 1px 14px; margin: 0; font-variant-numeric: tabular-nums; }
.glimpse dd:first-of-type { font-weight: 650; }
.random { fill: none; stroke: var(--faint); stroke-width: 1; opacity: .35; }
.mean { fill: none; stroke: var(--faint); stroke-width: 3; stroke-dasharray: 7 5; }
.index { list-style: none; margin: 28px 0; padding: 0; display: grid; gap: 18px 28px;
  grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.index a { display: flex; gap: 14px; color: inherit; text-decoration: none; }
.index a:hover b, .index a:focus-visible b { text-decoration: underline; }
.thumb { flex: none; width: 112px; height: 112px; display: grid; place-items: center;
  background: #f2f3f4; } .thumb img { max-width: 112px; max-height: 112px; }
.thumb .none { height: 100%; font-size: 14px; }
.about { min-width: 0; flex: 1; display: grid; align-content: start; gap: 2px; }
.about b { overflow-wrap: anywhere; } .about .name { overflow-wrap: anywhere; font-size: 15px; }
.about .aside { font-size: 15px; font-weight: 400; }
.sure { height: 5px; max-width: none; }
@media (max-width: 900px) { .hero { grid-template-columns: 1fr; gap: 20px; } }
@media print {
  body { max-width: none; }
  .hero { grid-template-columns: 2fr 3fr; gap: 18pt; } nav { display: none; }
  .answer { font-size: 26pt; } .sureness { font-size: 18pt; }
  .drawing { max-height: 150mm; }
  figcaption { font-size: 9pt; } .telling { gap: 5pt; }
  .said .cards { margin-top: 14pt; } .said .card b { font-size: 15pt; }
  .cards { grid-template-columns: repeat(4, 1fr); }
  .glimpses { grid-template-columns: repeat(3, 1fr); gap: 16pt 14pt; }
  .glimpse h3 { font-size: 10pt; } .glimpse dl, .glimpse h3 span { font-size: 8.5pt; }
  .glimpse dl { gap: 0 8pt; } .badge { width: 18pt; height: 18pt; }
  .shown img:first-child { max-width: 50mm; max-height: 62mm; }
  .legend { font-size: 9pt; }
  .index { grid-template-columns: 1fr 1fr; } .index li { break-inside: avoid; }
  .made { font-size: 9pt; } .made pre { font-size: 8pt; }
  svg, img, .thumb, .index a { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
)
