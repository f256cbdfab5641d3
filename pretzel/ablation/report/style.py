"""The style of the page: light and dark, wide and narrow, no font or file from elsewhere."""

_LIGHT = ["#1f5fbf", "#c8501e", "#15803d", "#9333a8", "#b07d00", "#0e8a94", "#c02660", "#5f6b7a"]
_DARK = ["#7fb0ff", "#ff9a68", "#5fd38b", "#d79bec", "#ebc04f", "#5ed3dc", "#ff8bb3", "#b3bdca"]

STYLE = (
    """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #fff; --ink: #1c1e21; --soft: #5c626b; --line: #e3e0da;
  --rule: #eceae5; --mark: #f3f0ea; --warn: #8a3b12; --warn-paper: #fdf1e7; --good: #1a6b3c; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --card: #1c1f23; --ink: #e8e6e1; --soft: #a2a8b0; --line: #32363c;
  --rule: #2a2e33; --mark: #24282d; --warn: #ffb787; --warn-paper: #33241a; --good: #7ed6a3; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 94rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 3rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: .95rem; margin: 0 0 .5rem; font-weight: 600; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 75ch; }
.soft, .tick, .faint, figcaption { color: var(--soft); }
.lead { font-size: 1.05rem; color: var(--soft); }
nav { margin: 1rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .9rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .2em; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { background: var(--mark); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; }
.say { border-left: 3px solid var(--line); padding: .05rem 0 .05rem .9rem; margin: .9rem 0; }
.say p { margin: .2rem 0; max-width: 95ch; }
.say.warn { border-color: var(--warn); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .93rem; }
th, td { padding: .5rem .65rem; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
tr:last-child > * { border-bottom: 0; }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom;
  white-space: normal; overflow-wrap: anywhere; min-width: 6rem;
  border-bottom: 1px solid var(--line); }
th:first-child, .name { text-align: left; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--card); max-width: 16rem;
  white-space: normal; overflow-wrap: break-word; min-width: 9.5rem; }
.long th, .long td { padding-top: .28rem; padding-bottom: .28rem; border-bottom: 0; }
.long tbody th, .long td.name { white-space: nowrap; max-width: none; }
.long tbody { border-top: 1px solid var(--line); }
tr.baseline > * { background: var(--mark); }
td small { display: block; color: var(--soft); font-size: .8rem; }
td.wrap, th.wrap { white-space: normal; text-align: left; min-width: 18rem;
  overflow-wrap: anywhere; }
td.short { white-space: normal; text-align: left; }
.best { font-weight: 700; }
.missing { color: var(--warn); }
.tag { display: inline-block; font-size: .72rem; font-weight: 600; padding: 0 .45em;
  border-radius: 4px; background: var(--mark); color: var(--soft); vertical-align: .1em; }
tr.baseline .tag { background: var(--line); }
.tag.warn { background: var(--warn-paper); color: var(--warn); }
.tag.good { color: var(--good); }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; min-width: 0; }
figcaption { font-size: .82rem; margin-top: .35rem; }
svg { display: block; width: 100%; height: auto; overflow: visible;
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
svg text { fill: currentColor; } svg .tick, svg .faint { fill: var(--soft); font-size: 11px; }
svg .strong { font-weight: 700; } svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
.rule { stroke: var(--rule); } .base { stroke: var(--soft); stroke-dasharray: 2 3; }
.ci { stroke: var(--hue); stroke-width: 1.6; fill: none; opacity: .75; }
.seed { fill: var(--hue); opacity: .38; } .mean { fill: var(--hue); }
.curve { stroke: var(--hue); stroke-width: 1.8; fill: none; stroke-linejoin: round; }
.band { fill: var(--hue); opacity: .14; }
.again .curve, .again .ci { stroke-dasharray: 5 3; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; margin: 0 0 .8rem; font-size: .9rem; }
.legend label { display: inline-flex; align-items: center; gap: .4em; cursor: pointer; }
.legend input { accent-color: var(--hue); margin: 0; }
.key { width: 1.3em; height: 0; border-top: 3px solid var(--hue); }
.again .key { border-top-style: dashed; }
.sheets { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  margin: .8rem 0 1.2rem; }
.sheets img { display: block; width: 100%; height: auto; border-radius: 4px; background: #fff; }
.sheets label { display: block; cursor: zoom-in; } .sheets input { position: absolute; opacity: 0; }
.sheets input:focus-visible + img { outline: 2px solid currentColor; outline-offset: 2px; }
.sheets input:checked + img { position: fixed; inset: 0; z-index: 9; margin: 0; width: 100vw;
  height: 100vh; object-fit: contain; background: rgb(0 0 0 / .85); border-radius: 0;
  cursor: zoom-out; }
.none { display: grid; place-items: center; min-height: 6rem; color: var(--soft);
  text-align: center; border: 1px dashed var(--line); border-radius: 4px; padding: 1rem;
  font-size: .9rem; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
ul.plain { list-style: none; padding: 0; margin: 0; } ul.plain li { margin: .15rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { main { padding: 1.4rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  th, td { padding: .5rem .6rem; } tbody th { max-width: 9rem; min-width: 7.5rem; }
  .long tbody th { position: static; }
  td.wrap { min-width: 14rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
@media print { nav, .legend input { display: none; } body { background: #fff; } }
"""
    + "".join(f".c{i} {{ --hue: {hue}; }}\n" for i, hue in enumerate(_LIGHT))
    + "@media (prefers-color-scheme: dark) {\n"
    + "".join(f".c{i} {{ --hue: {hue}; }}\n" for i, hue in enumerate(_DARK))
    + "}\n"
)


def hiding(arms: int) -> str:
    """Return the rules that hide an arm's curves when its box is not ticked."""
    return "".join(
        f"main:has(#show-{i}:not(:checked)) .arm-{i} {{ display: none; }}\n" for i in range(arms)
    )
