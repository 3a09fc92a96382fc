"""Measure sensitivity: the effect on the detections of quantizing one layer alone.

One calibration serves all layers. Then every image goes through the float graph once, and for each
convolution only what depends on it is computed again, with that one convolution's weights and
input rounded to eight bits. It is measured at the head's outputs (SQNR) and in the
detections (agreement with the float model's). Both show which layers mixed precision should spare
(the criterion of Wu et al., 2020, "Integer quantization for deep learning inference", section 5).
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import evaluation as ev
from yqc.errors import PassError
from yqc.evaluation import Layout
from yqc.graph import Call, call, calls, role, run_graph
from yqc.graph.compare import head_nodes
from yqc.models.source import Source
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline
from yqc.quant import Int8, Observer, dequantize_linear, quantize_linear, quantize_weight
from yqc.report import Sensitivity

IMAGES = 16
"""Most calibration images that are used: with more, time grows and the SQNR scatters less."""
PREPARATION = "reparam,fold-bn,dce,observe,calibrate"


@dataclass(frozen=True)
class LayerSensitivity:
    """Sensitivity of one layer."""

    name: str
    """Path of its module."""
    node: str
    role: str
    sqnr_db: float
    """At the head's outputs, over all images; infinite where nothing changes."""
    agreement: float | None
    """AP at IoU 0.5 with the float detections as the truth; None without data or detector."""


def measure_sensitivity(
    original: fx.GraphModule,
    ctx: Context,
    *,
    images: Iterable[Tensor] | None = None,
    layout: Layout | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Rank the convolutions by sensitivity to eight bits, the most sensitive first.

    Args:
        original: a float graph, folded or not; it is not changed.
        ctx: calibration data, target and seed; nothing is recorded in it.
        images: float32 [1,3,H,W] to look at; by default the first calibration images, or the
            example without data.
        layout: of the graph's output, for a detector: then detections are compared too.

    Raises:
        PassError: nothing in the graph can be quantized.
    """
    gm = copy.deepcopy(original)
    own = Context(  # the real one records nothing of this
        ctx.example, ctx.calibration, seed=ctx.seed, target=ctx.target, progress=ctx.progress
    )
    needed = PREPARATION if calls(gm, nn.BatchNorm2d) else "observe,calibrate"
    Pipeline.parse(needed).run(gm, own, known=frozenset({"bn-folded"}))
    layers = [c for c in calls(gm, nn.Conv2d) if isinstance(c.node.meta.get("yqc.int8"), Int8)]
    if not layers:
        raise PassError("the graph has no convolution that can be quantized")
    run = _Runs(gm, layers, layout)
    samples = list(islice(_images(ctx, gm, images), IMAGES))
    with torch.inference_mode(), ctx.progress.task("sensitivity", len(samples)) as advance:
        for image in samples:
            run.add(image)
            advance(1)
    found = []
    with ctx.progress.task("agreement", len(layers)) as advance:
        for layer in layers:
            node = layer.node
            agreed = run.agreement(node) if layout else None
            found.append(
                LayerSensitivity(layer.target, node.name, role(node), run.sqnr(node), agreed)
            )
            advance(1)
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


def most_sensitive(gm: fx.GraphModule, ctx: Context, count: int) -> tuple[str, ...]:
    """Return the paths of the most sensitive convolutions, the most sensitive first."""
    return tuple(one.name for one in measure_sensitivity(gm, ctx)[:count])


def sensitivity_rows(source: Source, ctx: Context) -> tuple[Sensitivity, ...]:
    """Return the ranking of a detector's layers as the report has it."""
    layout = source.layout if ctx.calibration is not None else None
    return tuple(
        Sensitivity(
            name=one.name,
            role=one.role,
            sqnr_db=one.sqnr_db if math.isfinite(one.sqnr_db) else None,
            agreement=one.agreement,
        )
        for one in measure_sensitivity(source.gm, ctx, layout=layout)
    )


def _images(ctx: Context, gm: fx.GraphModule, given: Iterable[Tensor] | None) -> Iterator[Tensor]:
    if given is not None:
        yield from given
    elif ctx.calibration is not None:
        yield from ctx.calibration()
    else:
        yield ctx.example_for(gm)


class _Runs:
    """Runs a graph in float, and once more for every layer that is quantized alone."""

    def __init__(
        self, gm: fx.GraphModule, layers: list[Call[nn.Conv2d]], layout: Layout | None
    ) -> None:
        self.gm, self.layers, self.layout = gm, layers, layout
        self.weights = {layer.node: _rounded_weight(layer) for layer in layers}
        self.behind = {layer.node: _behind(gm, layer.node) for layer in layers}
        self.head = head_nodes(gm)
        self.signal = 0.0
        self.noise: dict[fx.Node, float] = dict.fromkeys(self.weights, 0.0)
        self.reference: list[ev.Boxes] = []
        self.found: dict[fx.Node, list[ev.Boxes]] = {node: [] for node in self.weights}

    def add(self, image: Tensor) -> None:
        """Run one image through all."""
        values = run_graph(self.gm, [image], keep=self.gm.graph.nodes)
        output = self.gm.graph.output_node()
        if self.layout:
            self.reference.append(self._detections(values[output]))
        heads = self.head or [output]
        before = [_first(values[node]) for node in heads]
        self.signal += sum(float(t.double().square().sum()) for t in before)
        for layer in self.layers:
            unmoved = {n: v for n, v in values.items() if n not in self.behind[layer.node]}
            unmoved[layer.node] = self._quantized(layer, values)
            now = run_graph(self.gm, [], keep=[*heads, output], known=unmoved)
            if self.layout:
                self.found[layer.node].append(self._detections(now[output]))
            after = [_first(now[node]) for node in heads]
            self.noise[layer.node] += sum(
                float((a.double() - b.double()).square().sum())
                for a, b in zip(before, after, strict=True)
            )

    def sqnr(self, node: fx.Node) -> float:
        """Return the signal-to-noise ratio at the head in dB when this layer is quantized."""
        noise = self.noise[node]
        return 10 * math.log10(self.signal / noise) if noise and self.signal else math.inf

    def agreement(self, node: fx.Node) -> float | None:
        """Return how far the detections agree with the float ones when this layer is quantized."""
        head = ev.OutputForm(self.layout or "yolov8", None)
        sides = (
            ev.Detections(dict(enumerate(boxes)), head, (), 0.0, 0.0)
            for boxes in (self.reference, self.found[node])
        )
        return ev.agreement50(*sides)

    def _detections(self, output: object) -> ev.Boxes:
        array = _first(output)[0].float().numpy()
        return ev.detections(array, self.layout or "yolov8")

    def _quantized(self, layer: Call[nn.Conv2d], values: Mapping[fx.Node, object]) -> Tensor:
        """Compute a convolution with its weight and its input rounded."""
        source = layer.node.all_input_nodes[0]
        x, module = _first(values[source]), layer.module
        observer = call(self.gm, source, Observer)
        if observer is not None:
            scale, zero = observer.module.scale, observer.module.zero_point
            x = dequantize_linear(quantize_linear(x, scale, zero), scale, zero)
        weight = self.weights[layer.node]
        return F.conv2d(
            x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups
        )


def _rounded_weight(layer: Call[nn.Conv2d]) -> Tensor:
    mark = layer.node.meta["yqc.int8"]
    integers = quantize_weight(layer.module.weight, mark.scale, mark.most)
    whole: Tensor = dequantize_linear(integers, mark.scale, None, 0)
    return whole


def _behind(gm: fx.GraphModule, start: fx.Node) -> set[fx.Node]:
    """Return the nodes that depend on a node."""
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        if any(source is start or source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _first(value: object) -> Tensor:
    while isinstance(value, (tuple, list)):
        value = value[0]
    if isinstance(value, dict):
        value = next(iter(value.values()))
    if not isinstance(value, Tensor):
        raise PassError("the graph returns no tensor")
    return value
