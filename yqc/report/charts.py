"""Draw the charts of the HTML page with bokeh.

Text, axes and background get no colours here: the page's script sets them for light and dark
screens.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource, CustomJSTickFormatter, HoverTool
from bokeh.plotting import figure

from yqc.report.human import clean, fraction
from yqc.report.page import ClassScore, Curve, Page
from yqc.report.parts import Layer, Sensitivity, Size
from yqc.report.terminal import parts_of

FLOAT, COMPILED = "#3b7dd8", "#e07b28"
NAMED = 10
"""Most layers that are named at an axis: at 390 px, 30 px each. Twice as many overlap there."""
LONGEST = 14
"""Letters of a name at an axis: twice as many take half of the chart's height."""
ROLES = {
    "backbone": "#4c8fd6",
    "neck": "#4caf7a",
    "head.box": "#e0962a",
    "head.cls": "#d9594c",
    "head.mask": "#c2579b",
    "head.proto": "#7d6bd0",
    "head.keypoint": "#c2579b",
    "head.angle": "#c2579b",
    "head.logits": "#d9594c",
    "head.decode": "#9a8fb5",
    "": "#8a8f98",
}


def _figure(
    name: str, height: int, tips: Sequence[tuple[str, str]] = (), **kwargs: object
) -> figure:
    """Make a figure as wide as its place, without tools and outlines."""
    made = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        output_backend="canvas",
        **kwargs,
    )
    made.grid.grid_line_alpha = 0.25
    made.axis.axis_line_alpha = 0.4
    made.axis.minor_tick_line_color = None
    if tips:
        made.add_tools(HoverTool(tooltips=list(tips), mode="mouse"))
    return made


def chart_data(columns: Mapping[str, Any], name: str | None = None) -> ColumnDataSource:
    """Make a data source in which names and texts hold no control characters."""
    printable = {
        key: [clean(one) if isinstance(one, str) else one for one in column]
        for key, column in columns.items()
    }
    return ColumnDataSource(printable, name=name)


def charts(page: Page) -> dict[str, figure]:
    """Make every chart that the page has numbers for, by name."""
    found: dict[str, figure | None] = {
        "bytes_by_layer": layer_bars(page.report.layers),
        "bytes_by_cause": cause_bars(page.report.size),
    }
    if any(one.sqnr_db is not None for one in page.report.layers):
        found["sqnr"] = sqnr_bars(page.report.layers)
    if page.report.sensitivity:
        found["sensitivity"] = sensitivity_dots(page.report.sensitivity, page.report.layers)
    if len(page.curves) == 2:  # noqa: PLR2004  # float and compiled
        found["curves"] = precision_recall(page.curves)
    if page.classes:
        is_share = page.report.accuracy.main == "top1"
        axis = "share of right classes" if is_share else "AP, IoU 0.50 to 0.95"
        found["classes"] = class_bars(page.classes, axis)
    if page.report.accuracy.float_ is not None:
        found["sizes"] = size_bars(page)
    return {name: chart for name, chart in found.items() if chart is not None}


def layer_bars(layers: Sequence[Layer]) -> figure:
    """Draw the bytes of each layer, in graph order."""
    data = chart_data(
        {
            "at": list(range(len(layers))),
            "name": [one.name for one in layers],
            "bytes": [one.weight_bytes or 0 for one in layers],
            "role": [one.role or "elsewhere" for one in layers],
            "color": [ROLES.get(one.role or "", ROLES[""]) for one in layers],
        }
    )
    tips = [("layer", "@at @name"), ("role", "@role"), ("bytes", "@bytes{0,0}")]
    made = _figure("bytes_by_layer", 270, tips)
    made.vbar(x="at", top="bytes", width=0.85, source=data, color="color")
    _name_layers(made, layers)
    made.yaxis.axis_label = "kB"
    made.yaxis.formatter = _in_kilobytes()
    made.y_range.start = 0
    return made


def _in_kilobytes() -> CustomJSTickFormatter:
    return CustomJSTickFormatter(code="return (tick / 1000).toLocaleString('en');")


def _name_layers(made: figure, layers: Sequence[Layer]) -> None:
    """Write numbers and names of some layers at the axis; the table numbers them the same."""
    step = max(1, math.ceil(len(layers) / NAMED))
    shown = {i: f"{i} {_end_of(layers[i].name)}" for i in range(0, len(layers), step)}
    made.xaxis.ticker = list(shown)
    made.xaxis.major_label_overrides = {i: clean(name) for i, name in shown.items()}
    made.xaxis.major_label_orientation = 0.7
    made.xaxis.axis_label = "layers, in graph order"


def _end_of(name: str) -> str:
    """Shorten the path of a layer to what fits at an axis."""
    path = name.removeprefix("model.").removesuffix(".conv")
    return path if len(path) <= LONGEST else f"..{path[2 - LONGEST :]}"


def cause_bars(size: Size) -> figure:
    """Draw the bytes of the weights by cause."""
    shown = list(reversed(parts_of(size)))
    data = {"cause": [name for name, _ in shown], "bytes": [count for _, count in shown]}
    tips = [("", "@cause"), ("bytes", "@bytes{0,0}")]
    made = _figure("bytes_by_cause", 80 + 30 * len(shown), tips, y_range=data["cause"])
    made.hbar(y="cause", right="bytes", height=0.7, source=chart_data(data), color=FLOAT)
    made.xaxis.axis_label = "kB"
    made.xaxis.formatter = _in_kilobytes()
    made.x_range.start = 0
    return made


def sqnr_bars(layers: Sequence[Layer]) -> figure:
    """Draw the signal-to-noise ratio of each layer's output, in graph order."""
    places = [i for i, one in enumerate(layers) if one.sqnr_db is not None]
    known = [layers[i] for i in places]
    bits = [f"{one.weight_bits}/{one.activation_bits}" for one in known]
    tips = [("layer", "@at @name"), ("SQNR", "@sqnr{0.0} dB"), ("bits w/a", "@bits")]
    return _dots("sqnr", known, places, {"bits": bits}, tips, layers)


def sensitivity_dots(rows: Sequence[Sensitivity], layers: Sequence[Layer]) -> figure:
    """Draw the sensitivity of each layer, in graph order: SQNR when it alone is quantized."""
    order = {one.name: i for i, one in enumerate(layers)}
    known = [one for one in rows if one.sqnr_db is not None]
    at = [order.get(one.name, i) for i, one in enumerate(known)]
    agreed = [fraction(one.agreement) for one in known]
    tips = [("layer", "@at @name"), ("alone", "@sqnr{0.0} dB"), ("agreement", "@agreement")]
    made = _dots("sensitivity", known, at, {"agreement": agreed}, tips, layers, marker="diamond")
    made.yaxis.axis_label = "dB at the head"
    return made


def _dots(
    name: str,
    rows: Sequence[Layer] | Sequence[Sensitivity],
    at: Iterable[int],
    more: Mapping[str, Any],
    tips: Sequence[tuple[str, str]],
    layers: Sequence[Layer],
    **look: str,
) -> figure:
    """Draw the SQNR of layers as dots, coloured by role, over their places in the graph."""
    columns = {
        "at": list(at),
        "name": [one.name for one in rows],
        "sqnr": [one.sqnr_db for one in rows],
        "color": [ROLES.get(one.role or "", ROLES[""]) for one in rows],
    }
    made = _figure(name, 270, tips)
    made.scatter(
        "at", "sqnr", size=8, source=chart_data({**columns, **more}), color="color", **look
    )
    _name_layers(made, layers)
    made.yaxis.axis_label = "dB"
    return made


def precision_recall(curves: Sequence[Curve]) -> figure:
    """Draw precision against recall at IoU 0.5, float against compiled."""
    made = _figure("curves", 260, [("recall", "@x{0.00}"), ("precision", "@y{0.000}")])
    for curve, color, dash in zip(curves, (FLOAT, COMPILED), ("solid", "dashed"), strict=True):
        count = len(curve.precision) - 1
        data = chart_data({"x": [i / count for i in range(count + 1)], "y": list(curve.precision)})
        look = {"color": color, "width": 2.5, "line_dash": dash, "legend_label": curve.name}
        made.line("x", "y", source=data, **look)
    made.xaxis.axis_label, made.yaxis.axis_label = "recall", "precision"
    made.y_range.start, made.y_range.end = 0, 1.02
    return _set_legend(made, location="bottom_left")


def class_bars(classes: Sequence[ClassScore], axis: str) -> figure | None:
    """Draw the AP of the classes, float beside compiled; of more than 20, those that lose most."""
    known = [c for c in classes if c.float_ is not None and c.compiled is not None]
    worst = sorted(known, key=lambda c: (c.compiled or 0) - (c.float_ or 0))[:20]
    rows = [(c.name, c.float_ or 0.0, c.compiled or 0.0) for c in reversed(worst)]
    return _pairs("classes", rows, axis)


def size_bars(page: Page) -> figure | None:
    """Draw AP by size of object, float beside compiled."""
    before, after = page.report.accuracy.float_, page.report.accuracy.compiled
    if before is None or after is None:
        return None
    sizes = [(s, getattr(before, s), getattr(after, s)) for s in ("large", "medium", "small")]
    return _pairs("sizes", [(s, a, b) for s, a, b in sizes if a is not None and b is not None])


def _pairs(
    name: str, rows: Sequence[tuple[str, float, float]], axis: str = "AP, IoU 0.50 to 0.95"
) -> figure | None:
    """Draw two bars, float and compiled, for each row of name and two numbers."""
    if not rows:
        return None
    names = [row[0] for row in rows]
    tips = [("", "@name"), ("float", "@float{0.0000}"), ("compiled", "@compiled{0.0000}")]
    made = _figure(name, 90 + 34 * len(rows), tips, y_range=(-0.6, len(rows) - 0.4))
    data = chart_data(
        {
            "name": names,
            "float": [row[1] for row in rows],
            "compiled": [row[2] for row in rows],
            "up": [i + 0.19 for i in range(len(rows))],
            "down": [i - 0.19 for i in range(len(rows))],
        }
    )
    for y, right, color in (("up", "float", FLOAT), ("down", "compiled", COMPILED)):
        made.hbar(y, right=right, height=0.36, source=data, color=color, legend_label=right)
    made.yaxis.ticker = list(range(len(rows)))
    made.yaxis.major_label_overrides = dict(enumerate(map(clean, names)))
    made.x_range.start = 0
    made.xaxis.axis_label = axis
    made.add_layout(made.legend[0], "above")
    return _set_legend(made, orientation="horizontal")


def _set_legend(made: figure, **look: str) -> figure:
    made.legend[0].update(background_fill_color=None, border_line_color=None, **look)
    return made
