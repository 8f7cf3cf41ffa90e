"""The HTML page that holds a report is one file without links, for phones, screens and paper."""

# Proved by tests/reports/test_run.py.

import base64
import html
from collections.abc import Sequence

Section = tuple[str, str]
"""A heading in plain text, and the HTML beneath it."""


def text(value: str) -> str:
    """Return text for HTML: a title or a name cannot become markup."""
    return html.escape(value)


def image(alt: str, png: bytes) -> str:
    """Return a picture as part of the page."""
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table whose first column stays in sight; `head`, first column excepted, and labels are plain text.

    Cells are HTML.
    """
    names = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{text(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for label, cells in rows
    )
    return f'<div class="wide" tabindex="0"><table><tr><td></td>{names}</tr>{lines}</table></div>'


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the whole page: `title` as plain text, `lead` as HTML, a list of contents, the sections."""
    contents = "".join(f'<li><a href="#s{n}">{text(name)}</a></li>' for n, (name, _) in enumerate(sections))
    body = "\n".join(
        f'<section id="s{n}"><h2>{text(name)}</h2>\n{content}</section>' for n, (name, content) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style></head><body>\n"
        f"<h1>{text(title)}</h1>\n{lead}\n<nav><ul>{contents}</ul></nav>\n{body}\n</body></html>\n"
    )


# The page runs no scripts and loads nothing, whatever stands in it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
h4 { margin: .5rem 0 0; } ol { margin: .2rem 0 1rem; padding-left: 1.6rem; } dt { font-weight: 600; }
a { color: #0b4a8f; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; margin-top: .5rem; }
th, td { padding: .3rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: #fff; max-width: 9.5rem; }
small { color: #555; } td small { display: block; white-space: nowrap; }
.wide { overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: 0 2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
img { max-width: 100%; height: auto; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; } nav { display: none; } .wide { overflow: visible; }
  table { font-size: 7pt; } th, td { padding: .15rem .25rem; } tr > :first-child { position: static; }
  h2, h3, h4 { break-after: avoid; } img, tr, .columns { break-inside: avoid; }
}
"""
