"""Lay out the drawing of the graph, which the page's template draws as SVG.

It can be scrolled and pointed at without a script; the page's script adds zoom and search.
"""

from dataclasses import dataclass

from yqc.report import human
from yqc.report.charts import role_class
from yqc.report.page import Drawing, GraphNode

COLUMN, ROW = 82, 40
"""From node to node in pixels: ten letters of 11 px fit into a box with a gap of 12 px beside it.

At half of them names are cut or too small to read; double needs twice the scrolling.
"""
WIDE, HIGH = 70, 24
"""Of a node's box."""
LETTERS = 11
"""Most letters in a box; a longer name is cut there and stands whole in the tip."""
SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ", "BatchNormalization": "BatchNorm"}


@dataclass(frozen=True, kw_only=True)
class DrawnNode:
    """The box of a node: its middle, what is written in it and beside it, and its colours."""

    x: float
    y: float
    label: str
    kind: str
    """Its role and the bits of its weights, as the style names them."""
    sqnr: str
    """A colour from red for the worst over yellow to green; empty where nothing was measured."""
    passes: str
    """Numbers of the passes that changed it."""
    tip: str


@dataclass(frozen=True)
class GraphChart:
    """The drawing of a graph: boxes, and all edges as one path."""

    width: float
    height: float
    nodes: tuple[DrawnNode, ...]
    edges: str


def lay_out_drawing(drawing: Drawing, passes: tuple[str, ...]) -> GraphChart:
    """Lay out a graph; `passes` are those by whose changes the reader can colour it."""
    nodes = drawing.nodes
    left, top = min(n.x for n in nodes) - 0.5, min(n.y for n in nodes) - 0.8
    at = [(round((n.x - left) * COLUMN, 1), round((n.y - top) * ROW, 1)) for n in nodes]
    colours = _colour_by_sqnr(nodes)
    drawn = (
        DrawnNode(
            x=x,
            y=y,
            label=SHORT.get(node.op, node.op)[:LETTERS],
            kind=f"{role_class(node.role)} b{round(node.bits or 0)}".strip(),
            sqnr=colour,
            passes=" ".join(str(i) for i, name in enumerate(passes) if name in node.passes),
            tip=_describe(node),
        )
        for node, (x, y), colour in zip(nodes, at, colours, strict=True)
    )
    return GraphChart(
        width=max(x for x, _ in at) + COLUMN / 2,
        height=max(y for _, y in at) + 0.8 * ROW,
        nodes=tuple(drawn),
        edges="".join(_draw_edge(*at[a], *at[b]) for a, b in drawing.edges),
    )


def _describe(node: GraphNode) -> str:
    """Say all that is known of a node, a line each."""
    facts = [
        node.role,
        f"{node.bits:g} bits" if node.bits else "",
        "" if node.sqnr_db is None else f"SQNR {human.decibels(node.sqnr_db)} dB",
        f"stores {human.byte_count(node.bytes)}" if node.bytes else "",
    ]
    lines = [node.name, f"{node.op} {node.type}", ", ".join(filter(None, facts)), node.history]
    return "\n".join(filter(None, lines))


def _draw_edge(x0: float, y0: float, x1: float, y1: float) -> str:
    """Draw an edge: straight to the next column, else along the row of its start first."""
    start = f"M{x0:g} {y0:g}"
    if x1 - x0 <= COLUMN or y0 == y1:
        return f"{start}L{x1:g} {y1:g}"
    return f"{start}H{x1 - COLUMN:g}L{x1:g} {y1:g}"


def _colour_by_sqnr(nodes: tuple[GraphNode, ...]) -> list[str]:
    """Colour nodes by SQNR, from red for the worst over yellow to green."""
    known = [n.sqnr_db for n in nodes if n.sqnr_db is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return ["" if n.sqnr_db is None else _shade(n.sqnr_db, low, high) for n in nodes]


def _shade(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 1.0
    red, green = min(1.0, 2 - 2 * share), min(1.0, 2 * share)
    return f"#{round(90 + 140 * red):02x}{round(80 + 110 * green):02x}50"
