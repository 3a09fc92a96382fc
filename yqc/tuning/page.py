"""The page of a front: a drawing of size against loss, and the table; no script."""

import math
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
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; font-size: .85rem; }
svg { max-width: 100%; height: auto; } .note { opacity: .75; font-size: .9rem; }
text { fill: currentColor; font: 12px system-ui, sans-serif; }
.grid { stroke: currentColor; opacity: .15; } .range { stroke: #3778bf; opacity: .5; stroke-width: 2; }
.point { fill: #3778bf; } .best { fill: #d9480f; } .line { fill: none; stroke: #3778bf; opacity: .4; }
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


def _drawing(front: Front) -> str:
    """Draw bytes, on a logarithmic axis, against the loss."""
    shown = [point for point in front.points if _loss(front, point) is not None]
    if not shown:
        return ""
    ends = [
        value for point in shown for value in (*(_range(front, point)), _loss(front, point) or 0)
    ]
    low, high = min(0.0, *ends), max(0.01, *ends)
    sizes = [math.log10(max(1, point.bytes)) for point in shown]
    first, last = min(sizes) - 0.05, max(sizes) + 0.05

    def across(bytes_: float) -> float:
        share = (math.log10(max(1, bytes_)) - first) / (last - first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(loss: float) -> float:
        return TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for i in range(5):
        loss = low + (high - low) * i / 4
        y = down(loss)
        parts.append(
            f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        )
        parts.append(
            f"<text x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{front.show_drop(loss)}</text>"
        )
    for i in range(4):
        size = 10 ** (first + (last - first) * i / 3)
        anchor = ("start", "middle", "middle", "end")[i]
        parts.append(
            f"<text x='{across(size):.1f}' y='{HEIGHT - 28}' text-anchor='{anchor}'>"
            f"{human.byte_count(int(size))}</text>"
        )
    parts.append(
        f"<text x='{WIDTH / 2}' y='{HEIGHT - 8}' text-anchor='middle'>bytes of the file</text>"
    )
    places = [(across(point.bytes), down(_loss(front, point) or 0), point) for point in shown]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts.append(f"<polyline class='line' points='{line}'/>")
    for x, y, point in places:
        bottom, top = (down(one) for one in _range(front, point))
        parts.append(
            f"<line class='range' x1='{x:.1f}' x2='{x:.1f}' y1='{top:.1f}' y2='{bottom:.1f}'/>"
        )
        best = point.name == (front.best or front.nearest)
        title = escape(f"{point.name}: {point.passes}")
        parts.append(
            f"<circle class='{'best' if best else 'point'}' cx='{x:.1f}' cy='{y:.1f}' r='5'>"
            f"<title>{title}</title></circle>"
            f"<text x='{x + 8:.1f}' y='{y - 6:.1f}'>{escape(point.name)}</text>"
        )
    label = "Bytes of each file of the front against its loss"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def _loss(front: Front, point: FrontPoint) -> float | None:
    return point.drop


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
    return f"<table><thead><tr>{head}<th class='text'>pipeline</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
