"""The style of the page: one column on a phone, dark and light, and plain on paper."""

LIGHT = """
  --paper: #fcfbf9; --card: #ffffff; --ink: #1c1d21; --muted: #64656d; --grid: #e3e1dc;
  --series-0: #2b6cb5; --series-1: #c4601a; --series-2: #2b8553; --series-3: #7f52b0;
  --series-4: #bf3648; --series-5: #10808a; --series-6: #85750f; --series-7: #b94f88;
"""
DARK = """
  --paper: #141518; --card: #1b1d21; --ink: #e9e7e2; --muted: #9c9da6; --grid: #34363d;
  --series-0: #6fa9ec; --series-1: #f09a52; --series-2: #63c28a; --series-3: #b895e8;
  --series-4: #f07d87; --series-5: #50c2c9; --series-6: #cebd4f; --series-7: #ec92c2;
"""
STYLE = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }}
h2 {{ font-size: 1.2rem; margin: 3rem 0 .75rem; letter-spacing: -.01em; }}
h3 {{ font-size: 1rem; margin: 1.75rem 0 .5rem; }}
h1, h2, h3, p, li, summary {{ overflow-wrap: anywhere; }}
p, ul {{ max-width: 44rem; margin: .4rem 0; }}
.muted, .note, figcaption a {{ color: var(--muted); }}
.note, .legend, .marks {{ font-size: .875rem; }}
ul.legend, ul.marks {{
  list-style: none; padding: 0; max-width: none; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem;
}}
ul.marks {{ display: block; margin-bottom: .8rem; }}
.swatch {{
  display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .45rem;
}}
.scroll {{ overflow-x: auto; }}
table {{
  border-collapse: collapse; font-size: .875rem; line-height: 1.4; min-width: min(100%, 34rem);
  font-variant-numeric: tabular-nums lining-nums;
}}
th, td {{
  text-align: left; vertical-align: top; font-weight: normal; padding: .42rem .9rem .42rem 0;
  border-bottom: 1px solid var(--grid); min-width: 6rem; max-width: 22rem;
  overflow-wrap: anywhere;
}}
thead th {{ font-weight: 600; border-top: 1px solid var(--grid); }}
tbody th {{
  color: var(--muted); min-width: 8.5rem; position: sticky; left: 0; background: var(--paper);
}}
.number {{ text-align: right; white-space: nowrap; padding: .42rem 0 .42rem .9rem; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.1rem; }}
figure {{
  margin: 0; padding: .8rem .9rem .5rem; background: var(--card); border: 1px solid var(--grid);
  border-radius: .5rem; break-inside: avoid;
}}
figcaption {{
  display: flex; justify-content: space-between; gap: 1rem; font-size: .875rem; font-weight: 600;
  margin-bottom: .35rem; overflow-wrap: anywhere;
}}
figcaption a {{ font-weight: normal; }}
figure svg {{ display: block; width: 100%; height: auto; overflow: visible; }}
figure svg * {{ stroke-linejoin: round; }}
.confusion {{ min-width: 0; }}
.confusion td, .confusion thead th {{
  text-align: right; padding: .42rem .8rem; white-space: nowrap; border: 0;
}}
.confusion tbody th {{ border: 0; padding-right: .9rem; }}
.confusion thead th:first-child {{
  text-align: left; font-weight: normal; color: var(--muted); padding-left: 0;
}}
.matrices {{ display: flex; flex-wrap: wrap; gap: .5rem 3rem; align-items: flex-start; }}
.matrices table {{ min-width: 0; }}
.matrices h3 {{ margin-top: .5rem; }}
.matrices {{ padding-bottom: 1.25rem; }}
.matrices > div {{ max-width: 100%; }}
details {{ border-top: 1px solid var(--grid); }}
details:last-of-type {{ border-bottom: 1px solid var(--grid); }}
summary {{ cursor: pointer; padding: .5rem 0; font-size: .9375rem; }}
pre {{
  margin: 0 0 1rem; font: .8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}}
@media (max-width: 40rem) {{
  body {{ padding: 1.5rem 1rem 3rem; }}
  figure {{ padding: .6rem .5rem .3rem; }}
  th, td {{ max-width: 13rem; }}
}}
@media print {{
  :root {{ color-scheme: light; {LIGHT} --paper: #fff; }}
  body {{ max-width: none; padding: 0; font-size: 10.5pt; }}
  h2, h3 {{ break-after: avoid; }}
  tr {{ break-inside: avoid; }}
  .scroll {{ overflow: visible; }}
  table {{ font-size: 8.5pt; }}
  th, td {{ min-width: 0; }}
  .grid {{ grid-template-columns: 1fr 1fr; }}
  figcaption a {{ display: none; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
}}
"""
