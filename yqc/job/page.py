"""Gather what the HTML page shows: the graph's drawing, histograms, curves, images with boxes."""

from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from torch import Tensor, fx

from yqc import report as rp
from yqc.graph import history, is_function
from yqc.graph.calls import get_attribute
from yqc.graph.compare import node_outputs
from yqc.job.measure import Evidence
from yqc.job.pictures import choose_pictures
from yqc.look import View, ViewNode
from yqc.look.fxview import of_graph
from yqc.look.layout import place_nodes
from yqc.models.source import Source
from yqc.quant import QuantizedLayer
from yqc.quant.ops import LIMITS
from yqc.report import page as pg
from yqc.report.html import to_html

LAYERS = 6
"""Most layers with histograms."""
BINS = 64
"""Of a histogram 284 units wide; with twice as many the bars are narrower than a line."""
Q, DQ = torch.ops.yqc.quantize_linear, torch.ops.yqc.dequantize_linear


@dataclass(frozen=True)
class PageInputs:
    """What the page is made from, beside the report."""

    source: Source
    gm: fx.GraphModule
    example: Tensor
    evidence: Evidence | None


def make_page(inputs: PageInputs, report: rp.Report, recipe: str) -> str:
    """Return a report as an HTML page."""
    return to_html(gather_page(inputs, report, recipe))


def gather_page(inputs: PageInputs, report: rp.Report, recipe: str) -> pg.Page:
    """Gather the numbers, names and images of a page."""
    view, evidence = of_graph(inputs.gm), inputs.evidence
    judged = evidence.judged if evidence else None
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    names = inputs.source.names
    curves = [one.curve for one in judged or () if one.curve]
    return pg.Page(
        report=report,
        recipe=recipe,
        drawing=lay_out_graph(inputs.gm, view, report),
        spreads=worst_histograms(inputs, report),
        curves=tuple(
            pg.Curve(name=name, precision=curve)
            for name, curve in zip(("float", "compiled"), curves, strict=False)
        ),
        classes=report.accuracy.classes,
        made=made,
        pictures=choose_pictures(evidence, names, inputs.source.channels) if evidence else (),
    )


def lay_out_graph(gm: fx.GraphModule, view: View, report: rp.Report) -> pg.Drawing:
    """Place the nodes of a graph, those left out that only unpack weights."""
    fixed = view.constants()
    shown = [item for item in view.items if item.name not in fixed]
    at = place_nodes(view, [item.name for item in shown])
    layers = {one.name: one for one in report.layers}
    stored = view.bytes_by_layer()
    nodes = {node.name: node for node in gm.graph.nodes}
    index = {item.name: i for i, item in enumerate(shown)}
    drawn = (
        _graph_node(i, nodes[i.name], at[i.name], layers.get(i.path), stored.get(i.name, 0))
        for i in shown
    )
    edges = ((index[s], index[i.name]) for i in shown for s in i.inputs if s in index)
    return pg.Drawing(nodes=tuple(drawn), edges=tuple(edges))


def _graph_node(
    item: ViewNode, node: fx.Node, at: tuple[float, float], layer: rp.Layer | None, stored: int
) -> pg.GraphNode:
    """Describe a node that belongs to `layer` and reads `stored` bytes."""
    is_layer = node.op == "call_module" or QuantizedLayer.on(node) is not None
    return pg.GraphNode(
        name=item.name,
        op=item.onnx[0] if len(item.onnx) == 1 else item.op,
        type=item.type,
        role=item.role,
        x=at[0],
        y=at[1],
        bits=layer.weight_bits if layer else None,
        sqnr_db=layer.sqnr_db if layer else None,
        bytes=layer.weight_bytes or 0 if layer and is_layer else stored,
        passes=tuple(dict.fromkeys(event.by for event in history(node))),
        history="; ".join(item.history),
    )


def worst_histograms(inputs: PageInputs, report: rp.Report) -> tuple[pg.ValueHistogram, ...]:
    """Take histograms of the weights and inputs of the layers with the lowest SQNR."""
    gm, original = inputs.gm, inputs.source.gm
    known = {one.name: one.sqnr_db for one in report.layers if one.sqnr_db is not None}
    worst = sorted(known, key=known.__getitem__)[:LAYERS]
    layers = {
        layer.name: (node, layer)
        for node in gm.graph.nodes
        if (layer := QuantizedLayer.on(node)) is not None and layer.name in worst
    }
    reads = {name: _input_range(gm, node) for name, (node, _) in layers.items()}
    read = {one[0] for one in reads.values() if one}
    names = [node.name for node in original.graph.nodes if node.name in read]
    floats = node_outputs(original, names, inputs.example)
    found: list[pg.ValueHistogram] = []
    for name in filter(layers.__contains__, worst):
        node, layer = layers[name]
        if (weight := _weight_range(gm, node)) is not None:
            found.append(_histogram(name, "weights", layer.weight_bits, *weight))
        if (one := reads[name]) and one[0] in floats:
            found.append(_histogram(name, "input", layer.activation_bits, floats[one[0]], *one[1:]))
    return tuple(found)


def _input_range(gm: fx.GraphModule, node: fx.Node) -> tuple[str, float, float] | None:
    """Return which tensor a layer reads quantized, and the range that its integers cover."""
    dq = node.all_input_nodes[0]
    if not is_function(dq, DQ) or not is_function(q := dq.all_input_nodes[0], Q):
        return None
    scale, zero = (get_attribute(gm, str(n.target)) for n in q.all_input_nodes[1:3])
    if not isinstance(scale, Tensor) or not isinstance(zero, Tensor):
        return None
    low, high = LIMITS[zero.dtype]
    step, offset = float(scale), int(zero)
    return q.all_input_nodes[0].name, (low - offset) * step, (high - offset) * step


def _weight_range(gm: fx.GraphModule, node: fx.Node) -> tuple[Tensor, float, float] | None:
    """Return a layer's weight as it is used, and the range that its largest scale covers."""
    source = node.all_input_nodes[1] if len(node.all_input_nodes) > 1 else None
    if source is None or not is_function(source, DQ):
        return None
    held = [get_attribute(gm, str(n.target)) for n in source.all_input_nodes]
    axis = source.args[3] if len(source.args) > 3 else 1  # noqa: PLR2004
    if not isinstance(held[0], Tensor) or not isinstance(held[1], Tensor):
        return None
    low, high = LIMITS.get(held[0].dtype, (-127, 127))
    step = float(held[1].max())
    return DQ(held[0], held[1], None, axis), low * step, high * step


def _histogram(
    layer: str, what: str, bits: float, values: Tensor, low: float, high: float
) -> pg.ValueHistogram:
    """Count values in equal bins over their own range and the range from `low` to `high`."""
    flat = values.detach().float().reshape(-1)
    ends = min(float(flat.min()), low), max(float(flat.max()), high)
    return pg.ValueHistogram(
        layer=layer,
        what=what,
        bits=bits,
        edges=tuple(torch.linspace(*ends, BINS + 1).tolist()),
        counts=tuple(map(int, torch.histc(flat, BINS, *ends))),
        low=low,
        high=high,
    )
