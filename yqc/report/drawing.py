"""Draw the graph with bokeh, to pan, zoom and point at; the page's script adds the search."""

from collections.abc import Sequence
from typing import Any

from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from yqc.report import human
from yqc.report.charts import ROLES, chart_data
from yqc.report.page import Drawing, GraphNode

PLAIN = "#8a8f98"
CHANGED = "#e0962a"
BITS = {4: "#d9594c", 8: "#e0962a", 16: "#4caf7a", 32: "#4c8fd6"}
SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ", "BatchNormalization": "BatchNorm"}
LABELS_FROM = 26
"""Names are written from this many columns in sight downwards.

At 1280 px a column is then 46 px wide, and a name of eight letters fits; with twice as many columns
names overlap, with half as many the reader must zoom in further before seeing any.
"""

_ZOOM = """
const wide = Math.abs(range.end - range.start);
labels.visible = wide < FROM;
""".replace("FROM", str(LABELS_FROM))


def draw_graph(drawing: Drawing, passes: tuple[str, ...]) -> figure:
    """Draw a graph with pan, zoom and a tip for every node.

    The data source `nodes` has a column of colours for each way to colour the nodes: `by_role`,
    `by_bits`, `by_sqnr`, and `by_pass_0`, `by_pass_1`, ... for what each of `passes` changed.
    """
    nodes = drawing.nodes
    source = chart_data(_columns(nodes, passes), "nodes")
    made = figure(
        name="graph",
        height=460,
        x_range=_around([n.x for n in nodes]),
        y_range=_around([-n.y for n in nodes]),
        sizing_mode="stretch_width",
        tools=[PanTool(), WheelZoomTool(), ResetTool(), TapTool()],
        active_scroll="auto",
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    made.axis.visible = False
    made.grid.visible = False
    made.toolbar.logo = None
    made.toolbar.active_scroll = made.select_one(WheelZoomTool)
    xs, ys = zip(*(_bend(nodes[a], nodes[b]) for a, b in drawing.edges), strict=True)
    made.multi_line(xs=list(xs), ys=list(ys), color=PLAIN, alpha=0.55, width=1)
    _add_boxes(made, source)
    _add_labels(made, source)
    return made


def _columns(nodes: tuple[GraphNode, ...], passes: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return what the drawing shows of every node, a column each."""
    data: dict[str, list[Any]] = {
        "x": [n.x for n in nodes],
        "y": [-n.y for n in nodes],
        "name": [n.name for n in nodes],
        "op": [n.op for n in nodes],
        "label": [SHORT.get(n.op, n.op) for n in nodes],
        "type": [n.type for n in nodes],
        "role": [n.role or "-" for n in nodes],
        "bits": [str(n.bits or "-") for n in nodes],
        "sqnr": [human.decibels(n.sqnr_db) for n in nodes],
        "bytes": [human.byte_count(n.bytes) if n.bytes else "-" for n in nodes],
        "history": [n.history or "as it was traced" for n in nodes],
        "line": ["rgba(0,0,0,0)"] * len(nodes),
        "by_role": [ROLES.get(n.role, PLAIN) for n in nodes],
        "by_bits": [BITS.get(round(n.bits or 0), PLAIN) for n in nodes],
        "by_sqnr": _by_sqnr(nodes),
    }
    for number, name in enumerate(passes):
        data[f"by_pass_{number}"] = [CHANGED if name in n.passes else PLAIN for n in nodes]
    return data | {"color": data["by_role"]}


def _add_boxes(made: figure, source: ColumnDataSource) -> None:
    """Draw a box for every node, with a tip that says all that is known of it."""
    boxes = made.rect(
        "x",
        "y",
        width=0.72,
        height=0.5,
        source=source,
        fill_color="color",
        line_color="line",
        line_width=3,
        border_radius=4,
    )
    boxes.nonselection_glyph = None
    tips = [
        ("node", "@name"),
        ("op", "@op"),
        ("type", "@type"),
        ("role", "@role"),
        ("bits", "@bits"),
        ("SQNR", "@sqnr dB"),
        ("stores", "@bytes"),
        ("history", "@history"),
    ]
    made.add_tools(HoverTool(tooltips=tips, renderers=[boxes]))


def _add_labels(made: figure, source: ColumnDataSource) -> None:
    """Write the op of every node into its box, visible only from some zoom on."""
    labels = made.text(
        "x",
        "y",
        text="label",
        source=source,
        text_align="center",
        text_baseline="middle",
        text_font_size="11px",
        text_color="#111",
        name="labels",
    )
    labels.visible = False
    made.x_range.js_on_change(
        "end", CustomJS(args={"range": made.x_range, "labels": labels}, code=_ZOOM)
    )


def _around(values: Sequence[float]) -> Range1d:
    """Return a range with some room at its ends, which does not follow changes of the data."""
    room = 1 + 0.03 * (max(values) - min(values))
    return Range1d(min(values) - room, max(values) + room)


def _bend(a: GraphNode, b: GraphNode) -> tuple[list[float], list[float]]:
    """Return an edge: straight to the next column, else along the row of its start first."""
    if b.x - a.x <= 1 or a.y == b.y:
        return [a.x, b.x], [-a.y, -b.y]
    return [a.x, b.x - 1, b.x], [-a.y, -a.y, -b.y]


def _by_sqnr(nodes: tuple[GraphNode, ...]) -> list[str]:
    """Colour nodes by SQNR, from red for the worst over yellow to green."""
    known = [n.sqnr_db for n in nodes if n.sqnr_db is not None]
    if not known:
        return [PLAIN] * len(nodes)
    low, high = min(known), max(known)
    return [PLAIN if n.sqnr_db is None else _shade(n.sqnr_db, low, high) for n in nodes]


def _shade(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 1.0
    red, green = min(1.0, 2 - 2 * share), min(1.0, 2 * share)
    return f"#{round(90 + 140 * red):02x}{round(80 + 110 * green):02x}50"
