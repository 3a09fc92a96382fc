"""Run a graph in float, and once more for every convolution that is quantized alone.

What has been measured can be kept between two layers, so that an interrupted run goes on there.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import evaluation as ev
from yqc.errors import PassError
from yqc.facts import OutputForm
from yqc.graph import Call, call, run_graph
from yqc.graph.compare import fingerprint, head_nodes
from yqc.pipeline.base import Cache, Pause
from yqc.quant import Observer, dequantize_linear, quantize_linear, quantize_weight


class LayerRuns:
    """Runs of a graph in float, and once more for every layer that is quantized alone.

    Args:
        gm: a calibrated float graph.
        layers: the convolutions that can be quantized.
        form: of the graph's output, for a detector: then detections are compared too.
        cache: where an interrupted compile finds what has been measured.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        layers: list[Call[nn.Conv2d]],
        form: OutputForm | None,
        cache: Cache | None = None,
    ) -> None:
        self.gm, self.layers, self.form = gm, layers, form
        self.weights = {layer.node: _rounded_weight(layer) for layer in layers}
        self.behind = {layer.node: _behind(gm, layer.node) for layer in layers}
        self.head = head_nodes(gm)
        self.done = 0
        """Runs of a layer alone so far, over all images."""
        self.signal = 0.0
        self.noise: dict[fx.Node, float] = dict.fromkeys(self.weights, 0.0)
        self.reference: list[ev.Boxes] = []
        self.found: dict[fx.Node, list[ev.Boxes]] = {node: [] for node in self.weights}
        self._kept = KeptRuns(self, cache) if cache else None

    def measure(self, images: Sequence[Tensor], advance: Callable[[int], None]) -> None:
        """Run images, float32 [1,3,H,W] each, through all; go on where that was interrupted."""
        if self._kept:
            self._kept.restore()
        finished = self.done // len(self.layers)
        advance(finished)
        for image in images[finished:]:
            self._add(image)
            advance(1)

    def _add(self, image: Tensor) -> None:
        """Run one image through the graph, and through the layers that it has not been through."""
        values = run_graph(self.gm, [image], keep=self.gm.graph.nodes)
        output = self.gm.graph.output_node()
        heads = self.head or [output]
        before = [_first(values[node]) for node in heads]
        first = self.done % len(self.layers)
        if not first:
            self.signal += sum(float(t.double().square().sum()) for t in before)
            if self.form:
                self.reference.append(self._detections(values[output], image))
        for layer in self.layers[first:]:
            unmoved = {n: v for n, v in values.items() if n not in self.behind[layer.node]}
            unmoved[layer.node] = self._quantized(layer, values)
            now = run_graph(self.gm, [], keep=[*heads, output], known=unmoved)
            if self.form:
                self.found[layer.node].append(self._detections(now[output], image))
            after = [_first(now[node]) for node in heads]
            self.noise[layer.node] += sum(
                float((a.double() - b.double()).square().sum())
                for a, b in zip(before, after, strict=True)
            )
            self.done += 1
            if self._kept:
                self._kept.save()

    def sqnr(self, node: fx.Node) -> float:
        """Return the signal-to-noise ratio at the head in dB when this layer is quantized."""
        noise = self.noise[node]
        return 10 * math.log10(self.signal / noise) if noise and self.signal else math.inf

    def agreement(self, node: fx.Node) -> float | None:
        """Return how far the detections agree with the float ones when this layer is quantized."""
        head = self.form or OutputForm("yolov8")
        sides = (
            ev.Detections(dict(enumerate(boxes)), head, (), 0.0, 0.0)
            for boxes in (self.reference, self.found[node])
        )
        return ev.agreement50(*sides)

    def _detections(self, output: object, image: Tensor) -> ev.Boxes:
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        arrays = [_first(one)[0].float().numpy() for one in outputs]
        place = ev.Place.whole((image.shape[2], image.shape[3]))
        return ev.find_objects(arrays, self.form or OutputForm("yolov8"), place)

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


class KeptRuns:
    """Keeps what runs have measured for a resumed compile, and restores it."""

    def __init__(self, runs: LayerRuns, cache: Cache) -> None:
        self.runs, self.cache, self.pause = runs, cache, Pause()
        about = f"{fingerprint(runs.gm)} {runs.form} {[str(node) for node in runs.weights]}"
        digest = hashlib.blake2b(about.encode(), digest_size=8)
        self.name = f"sensitivity-{digest.hexdigest()}"

    def save(self) -> None:
        """Keep what is measured, unless that was done just now."""
        if not self.pause.is_over():
            return
        runs = self.runs
        sides = [runs.reference, *runs.found.values()]
        about = {
            "done": runs.done,
            "signal": runs.signal,
            "noise": list(runs.noise.values()),
            "counts": [len(side) for side in sides],
        }
        arrays = ev.stack_boxes([one for side in sides for one in side])
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        with self.pause.measured():
            self.cache.save(self.name, tensors, about)

    def restore(self) -> None:
        """Undo `save`, if anything is kept."""
        if (kept := self.cache.load(self.name)) is None:
            return
        tensors, about = kept
        runs = self.runs
        runs.done, runs.signal = about["done"], about["signal"]
        runs.noise = dict(zip(runs.noise, about["noise"], strict=True))
        boxes = iter(ev.unstack_boxes({name: one.numpy() for name, one in tensors.items()}))
        sides = [list(islice(boxes, count)) for count in about["counts"]]
        runs.reference, runs.found = sides[0], dict(zip(runs.found, sides[1:], strict=True))


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
