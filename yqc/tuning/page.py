"""The page of a front: a drawing of size against loss, and the table; no script."""

import math
from dataclasses import dataclass
from html import escape

from yqc.report import human
from yqc.tuning.front import Front, FrontPoint

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; white-space: nowrap; }
tr { border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; font-size: .85rem; }
svg { max-width: 100%; height: auto; } .note { opacity: .75; font-size: .9rem; }
text { fill: currentColor; font: 12px system-ui, sans-serif; }
.grid { stroke: currentColor; opacity: .15; }
.range { stroke: #3778bf; opacity: .5; stroke-width: 2; }
.point { fill: #3778bf; } .best { fill: #d9480f; }
.line { fill: none; stroke: #3778bf; opacity: .4; }
.bound { stroke: #d9480f; stroke-dasharray: 5 4; }
"""


def write_page(front: Front) -> str:
    """Return the HTML of a front."""
    said = escape(f"{front.model} on {front.data}, for {front.target}")
    figure = front.main or "agreement with the float model"
    asked = f"{escape(front.budget)}; {front.trials} trials in {human.duration(front.seconds)}"
    note = (
        f"Loss of {escape(figure)} on the evaluation images, which the search has not seen, with "
        f"its 95 % interval; pipelines were chosen by {front.held_out} training images."
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>yqc tune: {escape(front.model)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{said}</h1><p>Asked: {asked}.</p>{_drawing(front)}<p class='note'>{note}</p>"
        f"<div class='scroll'>{_table(front)}</div></body></html>\n"
    )


@dataclass(frozen=True)
class Axes:
    """Places in the drawing: bytes on a logarithmic axis across, losses upwards."""

    sizes: tuple[float, float]
    """Logarithms of the bytes at both ends."""
    losses: tuple[float, float]

    def across(self, count: float) -> float:
        """Return the place of a number of bytes."""
        first, last = self.sizes
        share = (math.log10(max(1, count)) - first) / (last - first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(self, loss: float) -> float:
        """Return the place of a loss."""
        low, high = self.losses
        return TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def draw(self, front: Front) -> list[str]:
        """Draw the grid and its numbers."""
        parts, (low, high), (first, last) = [], self.losses, self.sizes
        for i in range(5):
            loss = low + (high - low) * i / 4
            y = self.down(loss)
            parts.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y}' y2='{y}'/>")
            parts.append(_text(LEFT - 8, y + 4, front.show_drop(loss), "end"))
        for i, anchor in enumerate(("start", "middle", "middle", "end")):
            size = 10 ** (first + (last - first) * i / 3)
            parts.append(_text(self.across(size), HEIGHT - 28, human.byte_count(int(size)), anchor))
        return [*parts, _text(WIDTH / 2, HEIGHT - 8, "bytes of the file", "middle")]


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(words)}</text>"


def _drawing(front: Front) -> str:
    """Draw bytes, on a logarithmic axis, against the loss."""
    shown = [(point, point.drop) for point in front.points if point.drop is not None]
    if not shown:
        return ""
    ends = [value for point, loss in shown for value in (*_range(front, point), loss)]
    sizes = [math.log10(max(1, point.bytes)) for point, _ in shown]
    axes = Axes((min(sizes) - 0.05, max(sizes) + 0.05), (min(0.0, *ends), max(0.01, *ends)))
    parts = axes.draw(front)
    line = " ".join(f"{axes.across(p.bytes):.1f},{axes.down(loss):.1f}" for p, loss in shown)
    parts.append(f"<polyline class='line' points='{line}'/>")
    for point, loss in shown:
        x, y = axes.across(point.bytes), axes.down(loss)
        bottom, top = (axes.down(one) for one in _range(front, point))
        kind = "best" if point.name == (front.best or front.nearest) else "point"
        title = escape(f"{point.name}: {point.passes}")
        parts += [
            f"<line class='range' x1='{x:.1f}' x2='{x:.1f}' y1='{top:.1f}' y2='{bottom:.1f}'/>",
            f"<circle class='{kind}' cx='{x:.1f}' cy='{y:.1f}' r='5'>",
            f"<title>{title}</title></circle>",
            _text(x + 8, y - 6, point.name),
        ]
    label = "Bytes of each file of the front against its loss"
    begin = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>"
    return begin + "".join(parts) + "</svg>"


def _range(front: Front, point: FrontPoint) -> tuple[float, float]:
    """Return the interval of the loss, in its unit."""
    loss = point.drop or 0.0
    if point.interval is None:
        return loss, loss
    factor = 1.0
    if not front.relative and point.relative_drop:
        factor = loss / point.relative_drop
    return point.interval[0] * factor, point.interval[1] * factor


def _table(front: Front) -> str:
    heads = ["file", "bytes", "ms", "speed", "chosen by", "drop", "95 %", "sure"]
    rows = []
    for point in front.points:
        mark = " (best)" if point.name == front.best else ""
        mark = " (nearest)" if point.name == front.nearest else mark
        cells = [
            f"{point.name}.onnx{mark}",
            human.byte_count(point.bytes),
            human.milliseconds(point.ms),
            human.times(point.ratio),
            front.show_drop(point.chosen_drop),
            front.show_drop(point.drop),
            human.percent_range(point.interval),
            human.MISSING if point.sure is None else f"{100 * point.sure:.0f} %",
        ]
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr>{shown}<td class='text'>{escape(point.passes)}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    head += "<th class='text'>pipeline</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
