"""How the HTML report looks: on screen in light and dark, on a phone, and on paper."""

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --line: #d8dee4;
  --page: #ffffff; --soft: #f6f8fa; --link: #0a5aa8; --warn: #a3241c; --warn-page: #fdf0ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7eb; --quiet: #9aa4ae; --line: #353b43; --page: #14171b; --soft: #1c2026;
    --link: #7db8f0; --warn: #ff9b90; --warn-page: #38201e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
p, li { max-width: 48rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .87rem; margin-bottom: 1.4rem; }
.lead { font-size: 1.14rem; line-height: 1.5; max-width: 52rem; padding: .9rem 1.1rem;
  background: var(--soft); border-left: 4px solid var(--link); }
.warning { padding: .6rem 1rem; max-width: 52rem; font-weight: 600; color: var(--warn);
  background: var(--warn-page); border-left: 4px solid var(--warn); }
.scroll { overflow-x: auto; margin: .4rem 0 1.6rem; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
.caption { color: var(--quiet); font-size: .9rem; margin: 1.2rem 0 .4rem; }
th, td { padding: .3rem .55rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: .3rem; }
th { color: var(--quiet); font-weight: 600; border-bottom: 2px solid var(--line); }
.number { text-align: right; }
.interval { white-space: nowrap; }
td .interval, .undefined { color: var(--quiet); }
.undefined { font-style: italic; }
.flagged { color: var(--warn); }
.total td { font-weight: 600; }
tbody tr:hover { background: var(--soft); }
figure { margin: 1.2rem 0 1.8rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; padding: .4rem;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--quiet); font-size: .88rem; margin-top: .5rem; max-width: 52rem; }
.example { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem .9rem;
  margin: 1rem 0; max-width: 60rem; }
.example p { font-weight: 600; font-size: .92rem; max-width: none; }
.example dt { color: var(--quiet); font-size: .82rem; margin-top: .6rem; }
.example dd { margin: .1rem 0 0; padding: .4rem .7rem; background: var(--soft); font-size: .88rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 700px) { .frame { overflow-x: auto; } figure img { max-width: none; } }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  :root { --ink: #000; --quiet: #444; --line: #bbb; --page: #fff; --soft: #f4f4f4;
    --link: #0a5aa8; --warn: #a3241c; --warn-page: #fff; }
  body { font-size: 9.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  .scroll { overflow: visible; } table { font-size: 7.4pt; } th, td { padding: .18rem .3rem; }
  h2, .caption { break-after: avoid; } figure, tr, .example { break-inside: avoid; }
  thead { display: table-header-group; } }
"""
