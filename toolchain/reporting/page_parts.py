"""Parts of the pages that vlmc writes: each is one HTML file without a script, without anything from elsewhere.

Every function escapes the text that it is given. The pages follow the browser's light or dark setting and fit on a phone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

PER_ROW, WIDTH, HEIGHT = 100, 9, 46
"""Bars beside each other in a picture, and the size of each in pixels."""
_PLOT_WIDTH, _LEFT, _BOTTOM, _POINTS = 720, 56, 22, 400
"""Sizes of a plot of curves in pixels, and the most points of a curve."""
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #2a78d6; --low: #c0392b;
--c0: #2a78d6; --c1: #c0392b; --c2: #2e8b57; --c3: #b8860b; --c4: #8e44ad }
@media (prefers-color-scheme: dark) { :root { --bar: #5aa2f2; --low: #ff7b6b;
--c0: #5aa2f2; --c1: #ff7b6b; --c2: #58c48a; --c3: #e0b341; --c4: #c58be0 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1, p, li { overflow-wrap: anywhere }
table { border-collapse: collapse; margin: .6rem 0 1.2rem } td, th { padding: .25rem .8rem; border-bottom: 1px solid
var(--line); text-align: right; font-variant-numeric: tabular-nums } td:first-child, th:first-child { text-align: left;
overflow-wrap: anywhere } table.words td, table.words th { text-align: left; vertical-align: top }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto } rect.low { fill: var(--low) } rect { fill: var(--bar) }
svg text { fill: currentColor; font-size: 12px } polyline { fill: none; stroke-width: 1.8 } .axis { stroke: var(--line) }
code, .digest { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem; margin: .6rem 0 1.2rem }
.cards > div { border: 1px solid var(--line); border-radius: 6px; padding: .7rem; overflow-wrap: anywhere }
.cards img { max-width: 100%; image-rendering: auto; border-radius: 4px } dl { margin: .4rem 0 0; display: grid;
grid-template-columns: max-content 1fr; gap: .1rem .7rem } dt { opacity: .7 } dd { margin: 0; overflow-wrap: anywhere }
""".strip()


@dataclass(frozen=True)
class Curve:
    """A line of a plot: its name, its points (x, y), and whether the points are marked."""

    name: str
    points: Sequence[tuple[float, float]]
    marked: bool = False


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; the parts are HTML."""
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{escape(title)}</title>"
    body = "\n".join((f"<h1>{escape(title)}</h1>", *parts))
    return f"<!doctype html>\n<html lang='en'><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(title: str, lines: Iterable[str]) -> str:
    """Return a list under a heading."""
    return f"{heading(title, 3)}\n<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def folded(summary: str, inside: str) -> str:
    """Return a part that is shown when its summary is clicked; `inside` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}</details>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False) -> str:
    """Return a table, numbers to the right of a first column of names; `words`: all its columns are text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    kind = " class='words'" if words else ""
    return f"<div class='wide'><table{kind}><tr>{head}</tr>\n{body}</table></div>"


def bars(label: str, shares: Sequence[float], told: Sequence[str], low: float | None = None) -> str:
    """Draw a bar as high as each share, from 0 to 1, under a label; the pointer over one shows what is told of it.

    Bars below `low` stand out.
    """
    lines = -(-len(shares) // PER_ROW)
    drawn = []
    for number, (share, text) in enumerate(zip(shares, told, strict=True)):
        x, y = WIDTH * (number % PER_ROW), (HEIGHT + 8) * (number // PER_ROW)
        high = HEIGHT * min(1.0, max(0.0, share))
        kind = " class='low'" if low is not None and share < low else ""
        place = f"x='{x}' y='{y + HEIGHT - high:.1f}' width='{WIDTH - 2}' height='{high:.1f}'"
        drawn.append(f"<rect{kind} {place}><title>{escape(text)}</title></rect>")
    width, height = WIDTH * min(len(shares), PER_ROW), (HEIGHT + 8) * lines
    return f"{paragraph(label)}\n{_drawing(width, height, drawn)}"


def plot(label: str, curves: Sequence[Curve], height: int = 220, top: float | None = None) -> str:
    """Draw curves over one axis from zero to `top`, by default the highest value, with a legend; '' if none has a point.

    What is above `top` is drawn at its height. Points that are not finite are left out.
    """
    kept = [(curve, _thinned(curve.points)) for curve in curves]
    kept = [(curve, points) for curve, points in kept if points]
    if not kept:
        return ""
    right = max(x for _, points in kept for x, _ in points) or 1.0
    most = top or max(y for _, points in kept for _, y in points) or 1.0
    inner = height - _BOTTOM - 8

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + (_PLOT_WIDTH - _LEFT - 8) * x / right, 8 + inner * (1 - min(max(y / most, 0), 1))

    drawn = [_axis(f"{most * part:.3g}", 8 + inner * (1 - part)) for part in (0, 0.5, 1)]
    drawn += [f"<text x='{_LEFT}' y='{height - 4}'>0</text>"]
    drawn += [f"<text x='{_PLOT_WIDTH - 8}' y='{height - 4}' text-anchor='end'>step {right:.0f}</text>"]
    for number, (curve, points) in enumerate(kept):
        places = [place(x, y) for x, y in points]
        colour = f"var(--c{number % 5})"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f"<polyline style='stroke: {colour}' points='{line}'><title>{escape(curve.name)}</title></polyline>")
        drawn += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' style='fill: {colour}'/>" for x, y in places if curve.marked]
    legend = " ".join(
        f"<span style='color: var(--c{number % 5})'>&#9632;</span> {escape(curve.name)}"
        for number, (curve, _) in enumerate(kept)
    )
    return f"<p>{escape(label)}: {legend}</p>\n{_drawing(_PLOT_WIDTH, height, drawn)}"


def cards(pictures: Iterable[tuple[Sequence[str], Mapping[str, str]]]) -> str:
    """Return cards beside each other, each of some pictures, base64 of JPEG files, and named texts under them."""
    found = []
    for images, texts in pictures:
        shown = "".join(f"<img alt='' src='data:image/jpeg;base64,{escape(image, quote=True)}'>" for image in images)
        terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items())
        found.append(f"<div>{shown}<dl>{terms}</dl></div>")
    return f"<div class='cards'>{''.join(found)}</div>"


def _drawing(width: int, height: int, drawn: Iterable[str]) -> str:
    return f"<svg role='img' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>{''.join(drawn)}</svg>"


def _axis(text: str, y: float) -> str:
    line = f"<line class='axis' x1='{_LEFT}' x2='{_PLOT_WIDTH - 8}' y1='{y:.1f}' y2='{y:.1f}'/>"
    return f"{line}<text x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the finite points, and of many every so-manieth and the last."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    step = -(-len(finite) // _POINTS) or 1
    return finite[::step] + (finite[-1:] if finite and (len(finite) - 1) % step else [])
