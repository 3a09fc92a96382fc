"""Lay out the charts of the HTML page, which its template draws: planes as SVG, bars as boxes.

Places are in percent of a chart's own width and height, so that charts fit any screen while their
numbers and names stay as large as the text around them. Colours stand in the page's style alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from yqc.report import human
from yqc.report.page import ClassScore, Curve, Page
from yqc.report.parts import Layer, Sensitivity, Size
from yqc.report.terminal import parts_of

NAMED = 10
"""Most layers that are named at an axis: at 390 px, 30 px each. Twice as many overlap there."""
LONGEST = 14
"""Letters of a name at an axis: twice as many take half of the chart's height."""
STEPS = 5
"""About as many numbers stand at an axis; twice as many crowd 200 px, half leave values unread."""
BAR = 0.85
"""Width of a bar of a layer, as a share of its place; at 1 neighbours of a colour merge."""
MOST_CLASSES = 20
"""Classes in a chart, 34 px each; twice as many take two screens of a phone."""
ROLES = (
    *("backbone", "neck", "head.box", "head.cls", "head.mask", "head.proto"),
    *("head.keypoint", "head.angle", "head.logits", "head.decode"),
)
"""The parts of a detector in the order in which a legend names them."""


@dataclass(frozen=True)
class AxisMark:
    """A number or a name beside an axis, and where it belongs."""

    at: float
    text: str
    anchor: str = "end"
    """Which part of the text is there: `start`, `mid` or `end`."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a chart shows of one layer; a bar reaches from `y` to the floor."""

    name: str
    value: float
    x: float
    y: float
    kind: str
    """Its role in the model, as the style names it."""
    tip: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through points, in percent of the plane."""

    kind: str
    """`float` or `compiled`."""
    path: str
    tip: str


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A chart with two axes: bars or dots of layers, or lines."""

    form: str
    """`bars`, `dots` or `lines`."""
    unit: str
    across: tuple[AxisMark, ...]
    up: tuple[AxisMark, ...]
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    axis: str = "layers, in graph order"
    width: float = 0.0
    """Of a bar."""


@dataclass(frozen=True)
class Bar:
    """A bar that lies: its length in percent of the longest, and its number in print."""

    kind: str
    value: float
    share: float
    text: str


@dataclass(frozen=True)
class BarRows:
    """Bars that lie under each other, one or two a name."""

    rows: tuple[tuple[str, tuple[Bar, ...]], ...]
    unit: str = ""


Chart = Plane | BarRows


def charts(page: Page) -> dict[str, Chart]:
    """Make every chart that the page has numbers for, by name."""
    layers, accuracy = page.report.layers, page.report.accuracy
    found: dict[str, Chart] = {"bytes_by_cause": cause_bars(page.report.size)}
    if layers:
        found["bytes_by_layer"] = layer_bars(layers)
    if any(one.sqnr_db is not None for one in layers):
        found["sqnr"] = sqnr_dots(layers)
    if any(one.sqnr_db is not None for one in page.report.sensitivity or ()):
        found["sensitivity"] = sensitivity_dots(page.report.sensitivity or (), layers)
    if len(page.curves) == 2:  # noqa: PLR2004  # float and compiled
        found["curves"] = precision_recall(page.curves)
    shares = "share of right classes" if accuracy.main == "top1" else "AP, IoU 0.50 to 0.95"
    rows = {"classes": class_rows(page.classes), "sizes": size_rows(page)}
    return found | {name: pair_bars(some, shares) for name, some in rows.items() if some}


def layer_bars(layers: Sequence[Layer]) -> Plane:
    """Draw the bytes of each layer, in graph order."""
    counts = [one.weight_bytes or 0 for one in layers]
    ends = 0.0, float(max(counts) or 1)
    tips = (
        f"{one.role or 'elsewhere'}, {count:,} bytes"
        for one, count in zip(layers, counts, strict=True)
    )
    return _draw_layers("bars", layers, range(len(layers)), counts, tips, ends, layers)


def cause_bars(size: Size) -> BarRows:
    """Draw the bytes of the weights by cause."""
    parts = parts_of(size)
    most = max((count for _, count in parts), default=0) or 1
    rows = ((n, (Bar("float", c, _percent(c / most), human.byte_count(c)),)) for n, c in parts)
    return BarRows(tuple(rows))


def sqnr_dots(layers: Sequence[Layer]) -> Plane:
    """Draw the signal-to-noise ratio of each layer's output, in graph order."""
    at = [i for i, one in enumerate(layers) if one.sqnr_db is not None]
    known = [layers[i] for i in at]
    ratios = [one.sqnr_db or 0.0 for one in known]
    bits = ((one.weight_bits or "-", one.activation_bits or "-") for one in known)
    tips = (f"{d:.1f} dB, bits {w}/{a}" for d, (w, a) in zip(ratios, bits, strict=True))
    return _draw_layers("dots", known, at, ratios, tips, None, layers)


def sensitivity_dots(rows: Sequence[Sensitivity], layers: Sequence[Layer]) -> Plane:
    """Draw the sensitivity of each layer, in graph order: SQNR when it alone is quantized."""
    order = {one.name: i for i, one in enumerate(layers)}
    known = [one for one in rows if one.sqnr_db is not None]
    at = [order.get(one.name, i) for i, one in enumerate(known)]
    ratios = [one.sqnr_db or 0.0 for one in known]
    agreed = (human.fraction(one.agreement) for one in known)
    tips = (f"{d:.1f} dB alone, agreement {a}" for d, a in zip(ratios, agreed, strict=True))
    return _draw_layers("dots", known, at, ratios, tips, None, layers)


def _draw_layers(
    form: str,
    rows: Sequence[Layer | Sensitivity],
    at: Iterable[int],
    values: Sequence[float],
    tips: Iterable[str],
    ends: tuple[float, float] | None,
    layers: Sequence[Layer],
) -> Plane:
    """Draw a value of some layers over their places in the graph: from 0, or between its ends."""
    low, high = ends or (min(values), max(values))
    marks = choose_marks(low, high)
    if ends is None:  # dots on the frame would be cut
        low, high = min(low, marks[0]), max(high, marks[-1])
    span, count = high - low or 1.0, max(1, len(layers))
    points = tuple(
        Point(
            name=one.name,
            value=value,
            x=_percent((place + 0.5) / count),
            y=_percent(1 - (value - low) / span),
            kind=role_class(one.role),
            tip=f"{place} {one.name}: {tip}",
        )
        for one, place, value, tip in zip(rows, at, values, tips, strict=True)
    )
    up = (AxisMark(_percent(1 - (v - low) / span), _print_mark(v, form)) for v in marks)
    width = _percent(BAR / count)
    unit = "kB" if form == "bars" else "dB"
    return Plane(
        form=form, unit=unit, across=_names(layers), up=tuple(up), points=points, width=width
    )


def _names(layers: Sequence[Layer]) -> tuple[AxisMark, ...]:
    """Write numbers and names of some layers at the axis; the table numbers them the same."""
    count = len(layers)
    shown = range(0, count, max(1, math.ceil(count / NAMED)))
    return tuple(
        AxisMark(_percent((i + 0.5) / count), f"{i} {_end_of(layers[i].name)}") for i in shown
    )


def _print_mark(value: float, form: str) -> str:
    return f"{value / 1000:,g}" if form == "bars" else f"{value:g}"


def _end_of(name: str) -> str:
    """Shorten the path of a layer to what fits at an axis."""
    path = name.removeprefix("model.").removesuffix(".conv")
    return path if len(path) <= LONGEST else f"..{path[2 - LONGEST :]}"


def choose_marks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, about five: 1, 2 or 5 times a power of ten apart.

    Where the two are closer than any step, or equal, it is `low` alone.
    """
    if not high > low:
        return [low]
    rough = (high - low) / STEPS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)] or [low]


def precision_recall(curves: Sequence[Curve]) -> Plane:
    """Draw precision against recall at IoU 0.5, float against compiled."""
    lines = []
    for curve, kind in zip(curves, ("float", "compiled"), strict=True):
        last = len(curve.precision) - 1
        path = " ".join(
            f"{100 * i / last:.4g},{100 * (1 - p):.4g}" for i, p in enumerate(curve.precision)
        )
        tips = (f"{curve.precision[round(last * r)]:.3f} at recall {r:g}" for r in (0.5, 0.7, 0.9))
        lines.append(Line(kind=kind, path=path, tip=f"{curve.name}: {', '.join(tips)}"))
    tenths = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    return Plane(
        form="lines",
        unit="precision",
        axis="recall",
        across=tuple(AxisMark(100 * r, f"{r:g}", "mid") for r in tenths),
        up=tuple(AxisMark(_percent(1 - p), f"{p:g}") for p in tenths),
        lines=tuple(lines),
    )


Row = tuple[str, float, float]
"""A name, and its figure by the float model and by the compiled one."""


def class_rows(classes: Sequence[ClassScore]) -> list[Row]:
    """Return the figures of the classes; of more than 20, of those that lose most."""
    known = [c for c in classes if c.float_ is not None and c.compiled is not None]
    worst = sorted(known, key=lambda c: (c.compiled or 0) - (c.float_ or 0))[:MOST_CLASSES]
    return [(c.name, c.float_ or 0.0, c.compiled or 0.0) for c in worst]


def size_rows(page: Page) -> list[Row]:
    """Return AP by size of object."""
    before, after = page.report.accuracy.float_, page.report.accuracy.compiled
    if before is None or after is None:
        return []
    sizes = [(s, getattr(before, s), getattr(after, s)) for s in ("small", "medium", "large")]
    return [(s, a, b) for s, a, b in sizes if a is not None and b is not None]


def pair_bars(rows: Sequence[Row], unit: str) -> BarRows:
    """Draw two bars, float and compiled, for each row; they end at 1."""
    kinds = "float", "compiled"
    return BarRows(
        tuple(
            (
                name,
                tuple(
                    Bar(kind, value, _percent(value), human.fraction(value))
                    for kind, value in zip(kinds, values, strict=True)
                ),
            )
            for name, *values in rows
        ),
        unit,
    )


def role_class(role: str | None) -> str:
    """Return how the page's style names a role: `head-box`."""
    return (role or "").replace(".", "-")


def _percent(share: float) -> float:
    return round(100 * share, 2)
