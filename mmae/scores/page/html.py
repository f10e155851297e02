"""A page of HTML that holds all it shows: text, tables and pictures."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

DPI = 110
NUMBER, SOFT = ' class="number"', ' class="soft"'
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --ground: #ffffff;
  --card: #f6f8fa; --green: #2da44e; --amber: #bf8700; --red: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4ae; --line: #30363d;
  --ground: #0d1117; --card: #161b22; } img.plot { filter: invert(0.92) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; }
img { max-width: 100%; height: auto; display: block; border-radius: 4px; }
.pair { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.light { background: var(--card); border-left: .5rem solid; border-radius: 4px; padding: .8rem 1rem;
  margin: 1rem 0; }
.light.green { border-color: var(--green); } .light.amber { border-color: var(--amber); }
.light.red { border-color: var(--red); } .light h2 { margin: 0 0 .3rem; } .light li { margin: .35rem 0; }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin-right: .4rem; }
.dot.amber { background: var(--amber); } .dot.red { background: var(--red); }
"""


def page(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, soft: bool = False) -> str:
    return f"<p{SOFT if soft else ''}>{escape(text)}</p>"


def table(names: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> str:
    """A table whose columns of numbers stand to the right."""
    rows = [list(row) for row in rows]
    numbers = [bool(rows) and all(not isinstance(row[k], str) for row in rows) for k in range(len(names))]

    def cells(tag: str, values: Sequence[str | int | float]) -> str:
        return "".join(
            f"<{tag}{NUMBER if right else ''}>{escape(_text(value))}</{tag}>"
            for value, right in zip(values, numbers, strict=True)
        )

    lines = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{cells("th", names)}</tr>\n{lines}</table></div>'


def _text(value: str | int | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def picture(plot: Figure, alt: str, caption: str, photographs: bool = False) -> str:
    """A figure inside the page; photographs: its colours stay where the page is dark."""
    file = io.BytesIO()
    plot.savefig(file, format="png", dpi=DPI, facecolor="white")
    data = base64.b64encode(file.getvalue()).decode()
    kind = "photo" if photographs else "plot"
    image = f'<img class="{kind}" src="data:image/png;base64,{data}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def beside(pictures: Iterable[str]) -> str:
    """Pictures side by side where there is room."""
    return f'<div class="pair">{"".join(pictures)}</div>'
