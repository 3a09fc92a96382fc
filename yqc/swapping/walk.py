"""Swap activations node by node, the graph beside its original, on the same images.

At each unit the inputs of the activation in both graphs are compared at drawn positions. A shift of
the bias takes up what constants the activations before have left; a scale and a bias fit the new
activation to the values of the old one; the weights may be refitted. All later layers see the
result, so that they make up for its errors as far as they can.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import TensorSpec, call, compute_node, last_uses
from yqc.quant.weights.statistics import gather_patches
from yqc.swapping.fit import ENOUGH, ChannelFit, fit_channels
from yqc.swapping.forms import Form
from yqc.swapping.kept import KeptRecords, Record
from yqc.swapping.positions import flatten_positions
from yqc.swapping.refit import Refit, refit_weights
from yqc.swapping.step import UnitFit, UnitStep
from yqc.swapping.units import SwapUnit

NodeBatches: TypeAlias = list[Any]
"""What a node computes, one value a batch of images."""
PER_COLUMN = 8
"""Samples of a refit for each weight of an output, at least, or all that there are. On yolov5n at
640 px, without training, they give mAP 0.2850 and all of them 0.2834, in twice the time. Half of
them follow single samples more closely; double are all that most layers of 3x3 have."""
HELD_OUT = 5
"""One of so many pictures, the last ones, is kept out of the refit of weights, to judge it. With
half as many layers hardly get any, with twice as many fewer pictures are learned from."""


@dataclass
class SwapWalk:
    """A walk along a graph and a copy of it, whose activations are swapped already."""

    teacher: fx.GraphModule
    student: fx.GraphModule
    """The copy; its weights and biases are changed. It has the same nodes by name, and more."""
    form: Form
    units: Mapping[str, SwapUnit]
    """By the names of their nodes."""
    positions: Mapping[str, list[Tensor]]
    """For each unit, the drawn positions of each image."""
    kept: KeptRecords
    """Has a record for each step, and one when the walk is at its end."""
    refit: Literal["auto", "always", "never"] = "auto"
    fits: dict[str, UnitFit] = field(default_factory=dict)
    """By the names of the units' nodes."""
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Mean and variance of what the student's units compute, float32 [C], by the same names."""
    _records: dict[str, Record] = field(default_factory=dict, repr=False)
    """Of steps that an interrupted compile has kept, by the names of the units' nodes."""
    _old: dict[str, NodeBatches] = field(default_factory=dict, repr=False)
    _new: dict[str, NodeBatches] = field(default_factory=dict, repr=False)

    def run(self, images: Sequence[Tensor], advance: Callable[[int], None]) -> None:
        """Fit on batches of images, float32 [N, C, H, W] each.

        Raises:
            PassError: a unit computes values that are not finite; the message names its node.
        """
        if self._restore():
            advance(len(self.units))
            return
        twins = {node.name: node for node in self.teacher.graph.nodes}
        order = [node for node in self.student.graph.nodes if node.op != "output"]
        finished, changed = last_uses(order), set[str]()
        swapped = {unit.activation for unit in self.units.values()}
        for node in order:
            name, twin = node.name, twins.get(node.name)
            if node.op == "placeholder":
                self._old[name] = self._new[name] = list(images)
                continue
            if twin is not None:
                self._old[name] = self._compute(self.teacher, twin, self._old, len(images))
            follows = any(source.name in changed for source in node.all_input_nodes)
            if follows or twin is None or name in swapped:
                changed.add(name)
                self._new[name] = self._compute(self.student, node, self._new, len(images))
            else:
                self._new[name] = self._old[name]
            if name in self.units:
                if self._fit(self.units[name]):
                    changed.add(name)
                advance(1)
            for source in finished[node]:
                self._new.pop(source.name, None)
                self._old.pop(source.name, None)
        self.kept.add({}, {"node": ""})
        self.kept.save()

    def _restore(self) -> bool:
        """Read what an interrupted compile has kept; return whether its walk was at the end.

        No values are computed then.
        """
        records = self.kept.restore()
        ended = bool(records) and not records[-1][1]["node"]
        self._records = {about["node"]: (tensors, about) for tensors, about in records}
        for node, record in self._records.items() if ended else ():
            if node:
                step = UnitStep.of_record(self.units[node], record)
                self._change_layers(self.units[node], step)
                self.moments[node] = record[0]["mean"], record[0]["variance"]
        return ended

    def _compute(
        self, gm: fx.GraphModule, node: fx.Node, values: Mapping[str, NodeBatches], count: int
    ) -> NodeBatches:
        sources = node.all_input_nodes
        return [
            compute_node(gm, node, {s: values[s.name][i] for s in sources}) for i in range(count)
        ]

    def _fit(self, unit: SwapUnit) -> bool:
        """Fit one unit; return whether the student's layers were changed."""
        record = self._records.get(unit.node)
        step = UnitStep.of_record(unit, record) if record else self._find_step(unit)
        if step is None:
            return False
        self._change_layers(unit, step)
        values = self._new[unit.node]
        if step.weight is None:
            shape = [1] * values[0].ndim
            shape[-1 if unit.last else 1] = -1
            a, b = step.a.view(shape), step.b.view(shape)
            self._new[unit.node] = [torch.addcmul(b, v, a) for v in values]
        else:
            node = self._find_layer(unit.layers[0])
            self._new[unit.node] = self._compute(self.student, node, self._new, len(values))
        self.moments[unit.node] = find_moments(self._new[unit.node], unit)
        if record is None:
            self.kept.add(*step.to_record(unit.node, self.moments[unit.node]))
        return True

    def _find_step(self, unit: SwapUnit) -> UnitStep | None:
        """Find what is to be changed at a unit, None for nothing."""
        at = self.positions[unit.node]
        x, u = (gather_rows(v[unit.node], at, unit) for v in (self._old, self._new))
        if not (x.isfinite().all() and u.isfinite().all()):
            raise PassError(
                f"node {unit.node} computes values that are not finite on the calibration images; "
                "the checkpoint is damaged, or its training diverged"
            )
        shift = x.mean(0) - u.mean(0)
        if unit.activation is None:
            return UnitStep(torch.ones_like(shift), shift) if shift.any() else None
        u += shift
        t = find_function(self.teacher, unit.activation)(x)
        fit = fit_channels(self.form, u, t, constant=unit.constant)
        found = None if self.refit == "never" else self._refit(unit, u, t, fit)
        spread = max(float((t - t.mean(0)).square().mean()), 1e-12)
        a, b = fit.a, fit.a * shift + fit.b
        if found is None:
            error = float(fit.loss.mean())
            return UnitStep(a, b, UnitFit(unit, fit, error / spread, refitted=False))
        refitted = UnitFit(unit, fit, found.error / spread, refitted=True)
        return UnitStep(a, b, refitted, found.weight, found.bias)

    def _refit(self, unit: SwapUnit, u: Tensor, t: Tensor, fit: ChannelFit) -> Refit | None:
        """Find a change of a convolution's weights, None if they stay as they are."""
        node = self._find_layer(unit.layers[0])
        conv = call(self.student, node, nn.Conv2d)
        if conv is None or len(unit.layers) > 1:
            return None
        (source,) = node.all_input_nodes
        needed = PER_COLUMN * conv.module.weight[0].numel()
        every = max(1, len(u) // max(ENOUGH, needed))
        at, u, t = thin_out(self.positions[unit.node], every), u[::every], t[::every]
        patches = [
            gather_patches(image, conv.module, places.unsqueeze(0))
            for image, places in pair_images(self._new[source.name], at)
        ]
        held = slice(None)
        if self.refit == "auto" and len(at) >= HELD_OUT:
            held = slice(sum(map(len, at[: -(len(at) // HELD_OUT)])), None)
        return refit_weights(self.form, torch.cat(patches, 1), u * fit.a + fit.b, t - fit.m, held)

    def _change_layers(self, unit: SwapUnit, step: UnitStep) -> None:
        """Change the weights and biases of the layers that compute a unit's values together."""
        layers = [self.student.get_submodule(str(self._find_layer(n).target)) for n in unit.layers]
        for i, layer in enumerate(layers):
            rescale_layer(layer, step.a, step.b if i == 0 else torch.zeros_like(step.b))
        conv = layers[0]
        if step.weight is not None and isinstance(conv, nn.Conv2d):
            conv.weight += step.weight.view_as(conv.weight)
            if conv.bias is not None and step.bias is not None:
                conv.bias += step.bias
        if step.fit is not None:
            self.fits[unit.node] = step.fit

    def _find_layer(self, name: str) -> fx.Node:
        """Return the student's node of a name."""
        found: fx.Node = next(n for n in self.student.graph.nodes if n.name == name)
        return found


def rescale_layer(layer: nn.Module, a: Tensor, b: Tensor) -> None:
    """Scale what a layer of weight and bias computes by a, [C], and add b."""
    weight, bias = layer.weight, layer.bias
    if not isinstance(weight, Tensor) or (bias is not None and not isinstance(bias, Tensor)):
        raise TypeError(f"{type(layer).__name__} has no weight")
    shape = [1] * weight.ndim
    shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0] = -1
    layer.weight = nn.Parameter(weight.detach() * a.view(shape), requires_grad=False)
    old = torch.zeros_like(a) if bias is None else bias.detach()
    layer.bias = nn.Parameter(old * a + b, requires_grad=False)


def find_function(gm: fx.GraphModule, name: str) -> Callable[[Tensor], Tensor]:
    """Return the function that an activation, a node of one input, computes."""
    node = next(n for n in gm.graph.nodes if n.name == name)
    (source,) = node.all_input_nodes

    def function(x: Tensor) -> Tensor:
        found: Tensor = compute_node(gm, node, {source: x})
        return found

    return function


def pair_images(batches: NodeBatches, at: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each image of batches, [1, ...], with its positions; those without any are left out."""
    images = (batch[i : i + 1] for batch in batches for i in range(len(batch)))
    return (pair for pair in zip(images, at, strict=True) if len(pair[1]))


def thin_out(at: Sequence[Tensor], every: int) -> list[Tensor]:
    """Return every k-th of all positions, image by image."""
    sizes = [len(places) for places in at]
    kept = torch.zeros(sum(sizes), dtype=torch.bool)
    kept[::every] = True
    return [places[k] for places, k in zip(at, torch.split(kept, sizes), strict=True)]


def gather_rows(batches: NodeBatches, at: Sequence[Tensor], unit: SwapUnit) -> Tensor:
    """Return the values of all channels at the positions of each image: [N, C]."""
    pairs = pair_images(batches, at)
    return torch.cat([flatten_positions(image, unit)[places] for image, places in pairs])


def find_moments(batches: NodeBatches, unit: SwapUnit) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel over all images and positions, [C] each."""
    rows = [flatten_positions(batch, unit) for batch in batches]
    count = sum(len(r) for r in rows)
    mean = torch.stack([r.sum(0) for r in rows]).sum(0) / count
    square = torch.stack([(r - mean).square().sum(0) for r in rows]).sum(0) / count
    return mean, square


def count_live_bytes(gm: fx.GraphModule) -> int:
    """Count the bytes of one image's values that a walk holds at most, for both graphs."""
    order = [node for node in gm.graph.nodes if node.op not in {"output", "get_attr"}]
    finished, live, most = last_uses(order), 0, 0
    for node in order:
        live += value_bytes(node)
        most = max(most, live)
        live -= sum(value_bytes(source) for source in finished[node])
    return 2 * most


def value_bytes(node: fx.Node) -> int:
    """Count the bytes of the float32 tensor that a node computes; parts of one count nothing."""
    value = node.meta.get("yqc.value")
    is_part = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    if not isinstance(value, TensorSpec) or node.op == "get_attr" or is_part:
        return 0
    return 4 * torch.Size(value.shape).numel()
