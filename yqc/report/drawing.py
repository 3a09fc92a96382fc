"""The graph as an interactive drawing, made with bokeh: zoom, pan, hover; the page adds search."""

from collections.abc import Sequence

from bokeh.models import (
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
"""So many columns are in sight, at most, when names are written."""

_ZOOM = """
const wide = Math.abs(range.end - range.start);
labels.visible = wide < FROM;
""".replace("FROM", str(LABELS_FROM))


def draw(drawing: Drawing, passes: tuple[str, ...]) -> figure:
    """Draw a graph; the data source `nodes` has one column of colours a way to colour it."""
    nodes = drawing.nodes
    data = {
        "x": [n.x for n in nodes],
        "y": [-n.y for n in nodes],
        "name": [n.name for n in nodes],
        "op": [n.op for n in nodes],
        "type": [n.type for n in nodes],
        "role": [n.role or "-" for n in nodes],
        "bits": [str(n.bits or "-") for n in nodes],
        "sqnr": [human.decibels(n.sqnr_db) for n in nodes],
        "bytes": [human.size(n.bytes) if n.bytes else "-" for n in nodes],
        "history": [n.history or "as it was traced" for n in nodes],
        "line": ["rgba(0,0,0,0)"] * len(nodes),
        "by_role": [ROLES.get(n.role, PLAIN) for n in nodes],
        "by_bits": [BITS.get(n.bits or 0, PLAIN) for n in nodes],
        "by_sqnr": _by_sqnr(nodes),
    }
    data["color"] = data["by_role"]
    data["label"] = [SHORT.get(n.op, n.op) for n in nodes]
    for number, name in enumerate(passes):
        data[f"by_pass_{number}"] = [CHANGED if name in n.passes else PLAIN for n in nodes]
    source = chart_data(data, "nodes")
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
    made.x_range.js_on_change(
        "end", CustomJS(args={"range": made.x_range, "labels": labels}, code=_ZOOM)
    )
    return made


def _around(values: Sequence[float]) -> Range1d:
    """A range with some room at its ends; it stays as it is when data change."""
    room = 1 + 0.03 * (max(values) - min(values))
    return Range1d(min(values) - room, max(values) + room)


def _bend(a: GraphNode, b: GraphNode) -> tuple[list[float], list[float]]:
    """An edge: straight to the next column, else along the row of its start first."""
    if b.x - a.x <= 1 or a.y == b.y:
        return [a.x, b.x], [-a.y, -b.y]
    return [a.x, b.x - 1, b.x], [-a.y, -a.y, -b.y]


def _by_sqnr(nodes: tuple[GraphNode, ...]) -> list[str]:
    """Colours from red, the worst, over yellow to green."""
    known = [n.sqnr_db for n in nodes if n.sqnr_db is not None]
    if not known:
        return [PLAIN] * len(nodes)
    low, high = min(known), max(known)
    return [PLAIN if n.sqnr_db is None else _shade(n.sqnr_db, low, high) for n in nodes]


def _shade(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 1.0
    red, green = min(1.0, 2 - 2 * share), min(1.0, 2 * share)
    return f"#{round(90 + 140 * red):02x}{round(80 + 110 * green):02x}50"
