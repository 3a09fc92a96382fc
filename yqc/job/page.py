"""What the HTML page shows of a compile, gathered: the drawing, bytes, spreads, pictures."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from PIL import Image
from torch import Tensor, fx

from yqc import evaluation as ev
from yqc import report as rp
from yqc.graph import history, is_function
from yqc.graph.compare import node_outputs
from yqc.graph.values import attribute
from yqc.job.measure import Evidence
from yqc.job.staged import as_view
from yqc.look import View
from yqc.look.layout import place
from yqc.look.onnxview import infer, of_model
from yqc.models.source import Source
from yqc.quant import QuantizedLayer
from yqc.quant.ops import LIMITS
from yqc.report import page as pg

WORST, PICTURES, BINS = 6, 6, 64
WIDTH = 360
"""Of the pictures, in pixels."""
SURE = 0.25
"""Score from which a detection is drawn."""
Q, DQ = torch.ops.yqc.quantize_linear, torch.ops.yqc.dequantize_linear


@dataclass(frozen=True)
class PageInputs:
    """What the page is made from, beside the report."""

    source: Source
    gm: fx.GraphModule
    emitted: onnx.ModelProto
    example: Tensor
    evidence: Evidence | None


def make_page(inputs: PageInputs, report: rp.Report, recipe: str) -> str:
    """Return the report as an HTML page."""
    from yqc.report.html import to_html  # noqa: PLC0415  # importing bokeh takes a second

    return to_html(gather_page(inputs, report, recipe))


def gather_page(inputs: PageInputs, report: rp.Report, recipe: str) -> pg.Page:
    """Gather what the page shows."""
    view, evidence = as_view(inputs.gm), inputs.evidence
    judged = evidence.judged if evidence else None
    names = inputs.source.names
    return pg.Page(
        report=report,
        recipe=recipe,
        drawing=lay_out_graph(inputs.gm, view, report),
        causes=causes(inputs.emitted),
        layers=layer_bytes(inputs.emitted, report),
        spreads=worst_histograms(inputs, report),
        curves=tuple(
            pg.Curve(name=name, precision=one.curve)
            for name, one in zip(("float", "compiled"), judged or (), strict=False)
        ),
        classes=tuple(
            pg.ClassScore(name=name, float_=a, compiled=b)
            for name, a, b in zip(names, judged[0].by_class, judged[1].by_class, strict=False)
        )
        if judged
        else (),
        pictures=choose_pictures(evidence, names) if evidence else (),
    )


def lay_out_graph(gm: fx.GraphModule, view: View, report: rp.Report) -> pg.Drawing:
    """Lay the graph out, without what only unpacks weights."""
    fixed = view.constants()
    shown = [i for i in view.items if i.name not in fixed]
    at = place(view, [i.name for i in shown])
    sqnr = {one.name: one.sqnr_db for one in report.layers}
    bits = {one.name: one.weight_bits for one in report.layers}
    stored = view.bytes_by_layer()
    nodes = {n.name: n for n in gm.graph.nodes}
    index = {item.name: i for i, item in enumerate(shown)}
    return pg.Drawing(
        nodes=tuple(
            pg.GraphNode(
                name=item.name,
                op=item.onnx[0] if len(item.onnx) == 1 else item.op,
                type=item.type,
                role=item.role,
                x=at[item.name][0],
                y=at[item.name][1],
                bits=bits.get(item.path) if item.stored or item.path in bits else None,
                sqnr_db=sqnr.get(item.path),
                bytes=stored.get(item.name, 0),
                passes=tuple(dict.fromkeys(e.by for e in history(nodes[item.name]))),
                history="; ".join(item.history),
            )
            for item in shown
        ),
        edges=tuple(
            (index[source], index[item.name])
            for item in shown
            for source in item.inputs
            if source in index
        ),
    )


def causes(model: onnx.ModelProto) -> tuple[pg.Part, ...]:
    """Tell what the bytes of a file's tensors are spent on."""
    readers: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        for position, value in enumerate(node.input):
            readers.setdefault(value, (node.op_type, position))
    view = of_model(model, "")
    sizes = {s.name: s for item in view.items for s in item.stored}
    found: dict[str, int] = {}
    for name, stored in sizes.items():
        if name.endswith("_table"):
            found["codebooks"] = found.get("codebooks", 0) + stored.bytes
            continue
        bias = name.rpartition(".")[2].startswith("bias")
        reader = ("DequantizeLinear", 1) if name.endswith("_scale") else readers[name]
        kind = _cause(stored.type.partition("[")[0], *reader, bias=bias)
        found[kind] = found.get(kind, 0) + stored.bytes
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return tuple(pg.Part(name=name, bytes=count) for name, count in ordered)


def _cause(kind: str, reader: str, position: int, *, bias: bool) -> str:
    if reader in {"QuantizeLinear", "DequantizeLinear"} and position:
        return "scales and zero points"
    layer = reader in {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    if not bias and (reader in {"DequantizeLinear", "Cast"} or (layer and position == 1)):
        return f"weights, {kind}"
    return "biases" if layer or bias else "other constants"


def layer_bytes(model: onnx.ModelProto, report: rp.Report) -> tuple[pg.Part, ...]:
    """Count the bytes that each layer of the file stores, in graph order."""
    roles = {one.name: one.role or "" for one in report.layers}
    view = of_model(infer(model), "")
    counts = view.bytes_by_layer()
    return tuple(
        pg.Part(name=item.path, bytes=counts[item.name], role=roles.get(item.path, ""))
        for item in view.items
        if item.path and item.name in counts
    )


def worst_histograms(inputs: PageInputs, report: rp.Report) -> tuple[pg.ValueHistogram, ...]:
    """Take histograms of the weights and inputs of the layers with the lowest SQNR."""
    gm, source = inputs.gm, inputs.source
    known = {one.name: one.sqnr_db for one in report.layers if one.sqnr_db is not None}
    worst = sorted(known, key=known.__getitem__)[:WORST]
    layers = {}
    for node in gm.graph.nodes:
        layer = node.meta.get("yqc.layer")
        if isinstance(layer, QuantizedLayer) and layer.name in worst:
            layers[layer.name] = node
    reads = {name: _range(gm, layers[name]) for name in worst if name in layers}
    names = [r[0] for r in reads.values() if r]
    floats = node_outputs(source.gm, _names_in(source.gm, names), inputs.example)
    found: list[pg.ValueHistogram] = []
    for name, node in layers.items():
        layer = node.meta["yqc.layer"]
        if (weight := _weight(gm, node)) is not None:
            found.append(_histogram(name, "weights", layer.weight_bits, *weight))
        one = reads[name]
        if one and one[0] in floats:
            found.append(_histogram(name, "input", layer.activation_bits, floats[one[0]], *one[1:]))
    return tuple(sorted(found, key=lambda s: worst.index(s.layer)))


def _names_in(gm: fx.GraphModule, names: Sequence[str]) -> list[str]:
    return [n.name for n in gm.graph.nodes if n.name in set(names)]


def _range(gm: fx.GraphModule, node: fx.Node) -> tuple[str, float, float] | None:
    """Return which tensor a layer reads quantized, and the range that its integers cover."""
    dq = node.all_input_nodes[0]
    if not is_function(dq, DQ) or not is_function(q := dq.all_input_nodes[0], Q):
        return None
    scale, zero = (attribute(gm, str(n.target)) for n in q.all_input_nodes[1:3])
    if not isinstance(scale, Tensor) or not isinstance(zero, Tensor):
        return None
    low, high = LIMITS[zero.dtype]
    step, offset = float(scale), int(zero)
    return q.all_input_nodes[0].name, (low - offset) * step, (high - offset) * step


def _weight(gm: fx.GraphModule, node: fx.Node) -> tuple[Tensor, float, float] | None:
    """Return a layer's weight as it is used, and the range that its largest scale covers."""
    source = node.all_input_nodes[1] if len(node.all_input_nodes) > 1 else None
    if source is None or not is_function(source, DQ):
        return None
    held = [attribute(gm, str(n.target)) for n in source.all_input_nodes]
    axis = source.args[3] if len(source.args) > 3 else 1  # noqa: PLR2004
    if not isinstance(held[0], Tensor) or not isinstance(held[1], Tensor):
        return None
    low, high = LIMITS.get(held[0].dtype, (-127, 127))
    step = float(held[1].max())
    return DQ(held[0], held[1], None, axis), low * step, high * step


def _histogram(
    layer: str, what: str, bits: int, values: Tensor, low: float, high: float
) -> pg.ValueHistogram:
    flat = values.detach().float().reshape(-1)
    ends = min(float(flat.min()), low), max(float(flat.max()), high)
    counts = torch.histc(flat, BINS, *ends)
    edges = torch.linspace(*ends, BINS + 1)
    return pg.ValueHistogram(
        layer=layer,
        what=what,
        bits=bits,
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
        low=low,
        high=high,
    )


def choose_pictures(evidence: Evidence, names: Sequence[str]) -> tuple[pg.Picture, ...]:
    """Choose images, evenly over those where something was found, and draw both models' boxes."""
    before, after = (one.boxes for one in evidence.found)
    busy = [i for i in sorted(before.keys() & after.keys()) if len(before[i].above(SURE))]
    busy = busy or sorted(before.keys() & after.keys())
    step = max(1, len(busy) // PICTURES)
    return tuple(
        _picture(evidence.split.images[i], before[i], after[i], names)
        for i in busy[::step][:PICTURES]
    )


def _picture(path: Path, before: ev.Boxes, after: ev.Boxes, names: Sequence[str]) -> pg.Picture:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = min(1.0, WIDTH / image.width)
    size = round(image.width * factor), max(1, round(image.height * factor))
    buffer = io.BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=72, optimize=True)
    return pg.Picture(
        name=path.name,
        jpeg=buffer.getvalue(),
        width=size[0],
        height=size[1],
        float_=_boxes(before, factor, names),
        compiled=_boxes(after, factor, names),
    )


def _boxes(found: ev.Boxes, factor: float, names: Sequence[str]) -> tuple[pg.Box, ...]:
    sure = found.above(SURE)
    known: Mapping[int, str] = dict(enumerate(names))
    return tuple(
        pg.Box(
            x=round(x1 * factor, 1),
            y=round(y1 * factor, 1),
            width=round((x2 - x1) * factor, 1),
            height=round((y2 - y1) * factor, 1),
            label=known.get(int(cls), str(cls)),
            score=round(score, 3),
        )
        for (x1, y1, x2, y2), cls, score in zip(
            sure.xyxy.tolist(), sure.classes.tolist(), sure.scores.tolist(), strict=True
        )
    )
