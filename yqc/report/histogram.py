"""Lay out histograms for the page's template, which draws them as SVG."""

import math
from dataclasses import dataclass

from yqc.report.charts import AxisMark
from yqc.report.page import ValueHistogram

WIDTH, HEIGHT = 320.0, 130.0
"""Of a picture, in its own units; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 34.0, 318.0, 6.0, 18.0
"""Ends of the plane of the bars, and margins above it and below."""
CLEAR = 50.0
"""Least distance of the mark of zero from those of the ends; at half of it numbers touch."""


@dataclass(frozen=True)
class Bin:
    """One bin of a histogram: a rectangle and its tip."""

    x: float
    y: float
    width: float
    height: float
    tip: str


@dataclass(frozen=True)
class HistogramChart:
    """A distribution, and the ends of the range that was chosen for it."""

    title: str
    left: float
    floor: float
    """Where the axes are."""
    what: str
    """`weights` or `input`."""
    bars: tuple[Bin, ...]
    range: tuple[float, float]
    """Where the ends of the chosen range are."""
    counts: tuple[AxisMark, ...]
    """Beside the axis of counts, which is logarithmic: powers of ten."""
    values: tuple[AxisMark, ...]
    """Beside the axis of values."""


def lay_out_histogram(spread: ValueHistogram) -> HistogramChart:
    """Lay out a distribution; bars are as high as the logarithm of how many values they hold."""
    edges = spread.edges
    first, last = min(edges[0], spread.low), max(edges[-1], spread.high)
    most = math.log10(max(spread.counts, default=0) + 1) or 1.0
    floor, plane = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def along(value: float) -> float:
        return round(LEFT + (value - first) / (last - first or 1.0) * (RIGHT - LEFT), 2)

    def up(count: int) -> float:
        return round(floor - math.log10(count + 1) / most * plane, 2)

    bars = (
        Bin(along(a), up(n), round(along(b) - along(a), 2), round(floor - up(n), 2), tip(a, b, n))
        for a, b, n in zip(edges, edges[1:], spread.counts, strict=False)
        if n
    )
    powers = [10**i for i in range(math.floor(most) + 1) if 10**i <= max(spread.counts)]
    zero = [AxisMark(along(0), "0", "mid")] * (CLEAR < along(0) - LEFT < RIGHT - LEFT - CLEAR)
    return HistogramChart(
        title=f"{spread.layer}, {spread.what}, {spread.bits:g} bits",
        left=LEFT,
        floor=floor,
        what=spread.what,
        bars=tuple(bars),
        range=(along(spread.low), along(spread.high)),
        counts=tuple(AxisMark(up(n), short(n)) for n in powers),
        values=(AxisMark(LEFT, f"{first:.3g}", "start"), *zero, AxisMark(RIGHT, f"{last:.3g}")),
    )


def short(power: int) -> str:
    """Print a power of ten in at most four characters, up to 100 millions."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if power >= unit:
            return f"{power // unit}{name}"
    return str(power)


def tip(low: float, high: float, count: int) -> str:
    """Return the tip of a bin: its range and its count."""
    return f"{low:.3g} to {high:.3g}: {count:,} values"
