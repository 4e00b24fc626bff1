"""Pages that need nothing else: their style, made to be projected and printed, and their frame.

Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

import base64
import hashlib

from tnet.scripts.markup import Html, tag

STYLE = """
:root { --ink: #202124; --faint: #64686e; --rule: #d5d8dc; --accent: #0072b2; --warm: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: #fff;
  color: var(--ink); font: 18px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 24px; margin: 48px 0 12px; }
p { max-width: 46em; margin: 8px 0; }
.sub, .aside, figcaption, .span { color: var(--faint); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 16px;
  margin: 28px 0 8px; }
.card { border-top: 4px solid var(--accent); padding: 10px 0; }
.card b { display: block; font-size: 46px; line-height: 1.15; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.card .span { display: block; font-size: 16px; }
.notes { border-left: 4px solid var(--warm); padding: 2px 18px; margin: 24px 0; }
.notes p { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 16px 5px 0; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; } th[scope=row], thead th:first-child { text-align: left; }
td:not(:last-child) { white-space: nowrap; }
.about td:last-child { text-align: left; color: var(--faint); }
tbody th { font-weight: 400; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.confusion td { min-width: 58px; padding: 9px 10px; text-align: center; border: 2px solid #fff; }
.confusion th { padding: 6px 10px; border: 0; white-space: nowrap; }
.upright thead th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg); }
.confusion thead th { text-align: center; vertical-align: bottom; }
.confusion .right { outline: 2px solid var(--ink); outline-offset: -3px; }
.s0 { background: #f6f8fa; } .s1 { background: #e3eef6; } .s2 { background: #c9dfee; }
.s3 { background: #a6cbe3; } .s4 { background: #7cb2d5; } .s5 { background: #4c95c4; color: #fff; }
.s6 { background: #1f7cb5; color: #fff; } .s7 { background: #005a8d; color: #fff; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 32px; }
figure { margin: 16px 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; border: 1px solid var(--rule); }
figcaption { font-size: 16px; overflow-wrap: anywhere; } figcaption b { color: var(--ink); }
svg { width: 100%; max-width: 680px; height: auto; display: block; }
svg text { font-size: 18px; fill: var(--ink); } svg .aside { fill: var(--faint); }
svg .value { font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 4px; }
.grid { stroke: var(--rule); } .dashed { stroke: var(--faint); stroke-dasharray: 6 5; }
.line { fill: none; stroke: var(--accent); stroke-width: 3; }
.whisker { stroke: var(--accent); stroke-width: 2; opacity: .55; }
.point { fill: #fff; stroke: var(--accent); stroke-width: 3; } .own { fill: var(--accent); }
.bar { fill: var(--accent); opacity: .28; } .count { fill: var(--faint); opacity: .6; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; font-size: 16px; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; margin: 0; }
@media (max-width: 600px) { .pair { grid-template-columns: 1fr; } body { font-size: 16px; } }
@media print {
  @page { margin: 16mm; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  h1 { font-size: 20pt; } h2 { font-size: 14pt; margin-top: 20pt; break-after: avoid; }
  .card b { font-size: 24pt; } .cards { grid-template-columns: repeat(4, 1fr); }
  .pair { grid-template-columns: 1fr 1fr; gap: 14pt; } .scroll { overflow: visible; }
  table, figure, .card, .notes { break-inside: avoid; }
  table { font-size: 9.5pt; } th, td { padding: 3pt 9pt 3pt 0; } .card .span { font-size: 9pt; }
  .confusion td { padding: 5pt; }
  td, .bar, .count { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def document(title: str, *body: str | None, made_by: str, style: str = STYLE) -> str:
    """Return a whole page, which by its policy loads nothing and runs nothing.

    Args:
        title: of the page.
        body: as ``markup.tag`` takes it.
        made_by: name of the command.
        style: the style sheet, which alone the policy allows, by its hash.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=made_by),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"
