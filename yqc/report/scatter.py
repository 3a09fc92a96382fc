"""Pages without a script: their style, tables, and drawings of bytes against another value."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from yqc.report import human
from yqc.report.charts import choose_marks

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; white-space: nowrap; }
tr { border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; font-size: .85rem; }
svg { max-width: 100%; height: auto; } .note { opacity: .75; font-size: .9rem; }
text { fill: currentColor; font: 12px system-ui, sans-serif; }
.grid { stroke: currentColor; opacity: .15; }
.range { stroke: #3778bf; opacity: .5; stroke-width: 2; }
.point { fill: #3778bf; } .best { fill: #d9480f; } .beaten { fill: #8a8f98; }
.line { fill: none; stroke: #3778bf; opacity: .4; }
.bound { stroke: #d9480f; stroke-dasharray: 5 4; }
"""


def write_plain_page(title: str, body: str) -> str:
    """Return the HTML of a page; the title is text, the body HTML."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 0) -> str:
    """Return an HTML table of texts; the last `texts` columns hold prose, which is folded."""

    def kind(column: int) -> str:
        return " class='text'" if column >= len(heads) - texts else ""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (f"<{tag}{kind(i)}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    head = line(heads, "th")
    return f"<div class='scroll'><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"


@dataclass(frozen=True)
class Point:
    """A point of a drawing."""

    bytes: int
    value: float
    ends: tuple[float, float]
    """Of the value's interval."""
    kind: str
    """Class of its style: point, best, beaten."""
    label: str
    """Written beside it; may be empty."""
    title: str
    """Shown where it is pointed at."""


@dataclass(frozen=True)
class Axes:
    """Places in a drawing: bytes on a logarithmic axis across, values upwards."""

    sizes: tuple[float, float]
    """Logarithms of the bytes at both ends."""
    values: tuple[float, float]
    show: Callable[[float], str]
    """Prints a value."""

    @classmethod
    def around(
        cls, points: Sequence[Point], more: Iterable[float], show: Callable[[float], str]
    ) -> "Axes":
        """Make axes that hold some points, and `more` values."""
        ends = [*(value for one in points for value in (*one.ends, one.value)), *more]
        sizes = [math.log10(max(1, one.bytes)) for one in points]
        low, high = min(ends), max(ends)
        return cls(
            (min(sizes) - 0.05, max(sizes) + 0.05), (low, high if high > low else low + 0.01), show
        )

    def across(self, count: float) -> float:
        """Return the place of a number of bytes."""
        first, last = self.sizes
        share = (math.log10(max(1, count)) - first) / (last - first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.values
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def draw(self) -> list[str]:
        """Draw the grid and its numbers."""
        parts = []
        for value in choose_marks(*self.values):
            y = self.down(value)
            parts.append(
                f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
            )
            parts.append(draw_text(LEFT - 8, y + 4, self.show(value), "end"))
        for size in choose_sizes(*self.sizes):
            shown = human.byte_count(size)
            parts.append(draw_text(self.across(size), HEIGHT - 28, shown, "middle"))
        return [*parts, draw_text(WIDTH / 2, HEIGHT - 8, "bytes of the file", "middle")]

    def mark(self, point: Point) -> str:
        """Draw a point, its interval and its label."""
        x, y = self.across(point.bytes), self.down(point.value)
        bottom, top = (self.down(one) for one in point.ends)
        parts = []
        if bottom != top:
            parts.append(
                f"<line class='range' x1='{x:.1f}' x2='{x:.1f}' y1='{top:.1f}' y2='{bottom:.1f}'/>"
            )
        parts.append(f"<circle class='{point.kind}' cx='{x:.1f}' cy='{y:.1f}' r='5'>")
        parts.append(f"<title>{escape(point.title)}</title></circle>")
        if point.label:
            near_the_end = x > WIDTH - 8 * len(point.label)
            where = (x - 8, "end") if near_the_end else (x + 8, "start")
            parts.append(draw_text(where[0], y - 6, point.label, where[1]))
        return "".join(parts)


def choose_sizes(first: float, last: float) -> list[int]:
    """Return round numbers of bytes between two decimal logarithms: 1, 2 or 5 times a power of ten.

    Where there are not two of them, both ends.
    """
    powers = range(math.floor(first), math.ceil(last) + 1)
    found = [n * 10**power for power in powers for n in (1, 2, 5)]
    within = [size for size in found if first <= math.log10(size) <= last]
    return within if len(within) > 1 else [round(10**first), round(10**last)]


def draw_text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Write a text into a drawing."""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(words)}</text>"


def draw_points(points: Sequence[Point], axes: Axes, line: Sequence[Point], label: str) -> str:
    """Return an SVG of points, with a line through some of them."""
    places = " ".join(f"{axes.across(p.bytes):.1f},{axes.down(p.value):.1f}" for p in line)
    parts = [*axes.draw(), f"<polyline class='line' points='{places}'/>", *map(axes.mark, points)]
    begin = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(label)}'>"
    return begin + "".join(parts) + "</svg>"
