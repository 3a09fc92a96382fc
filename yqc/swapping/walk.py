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
from yqc.swapping.fit import ChannelFit, fit_channels
from yqc.swapping.forms import Form
from yqc.swapping.positions import flatten_positions
from yqc.swapping.refit import mean_square_error, refit_weights
from yqc.swapping.units import SwapUnit

NodeBatches: TypeAlias = list[Any]
"""What a node computes, one value a batch of images."""
HELD_OUT = 5
"""One of so many pictures, the last ones, is kept out of the refit of weights, to judge it. With
half as many layers hardly get any, with twice as many fewer pictures are learned from."""


@dataclass(frozen=True)
class UnitFit:
    """How one activation was fitted."""

    unit: SwapUnit
    fit: ChannelFit
    error: float
    """Mean squared error over the variance of what the activation computes."""
    refitted: bool
    """Whether the weights were refitted, too."""


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
    refit: Literal["auto", "always", "never"] = "auto"
    fits: dict[str, UnitFit] = field(default_factory=dict)
    """By the names of the units' nodes."""
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Mean and variance of what the student's units compute, float32 [C], by the same names."""
    _old: dict[str, NodeBatches] = field(default_factory=dict, repr=False)
    _new: dict[str, NodeBatches] = field(default_factory=dict, repr=False)

    def run(self, images: Sequence[Tensor], advance: Callable[[int], None]) -> None:
        """Fit on batches of images, float32 [N, C, H, W] each.

        Raises:
            PassError: a unit computes values that are not finite; the message names its node.
        """
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

    def _compute(
        self, gm: fx.GraphModule, node: fx.Node, values: Mapping[str, NodeBatches], count: int
    ) -> NodeBatches:
        sources = node.all_input_nodes
        return [
            compute_node(gm, node, {s: values[s.name][i] for s in sources}) for i in range(count)
        ]

    def _fit(self, unit: SwapUnit) -> bool:
        """Fit one unit; return whether the student's layers were changed."""
        at = self.positions[unit.node]
        x, u = (gather_rows(v[unit.node], at, unit) for v in (self._old, self._new))
        if not (x.isfinite().all() and u.isfinite().all()):
            raise PassError(
                f"node {unit.node} computes values that are not finite on the calibration images; "
                "the checkpoint is damaged, or its training diverged"
            )
        shift = x.mean(0) - u.mean(0)
        if unit.activation is None:
            if not shift.any():
                return False
            self._rescale(unit, torch.ones_like(shift), shift)
        else:
            u += shift
            t = find_function(self.teacher, unit.activation)(x)
            fit = fit_channels(self.form, u, t, constant=unit.constant)
            self._rescale(unit, fit.a, fit.a * shift + fit.b)
            better = None if self.refit == "never" else self._refit(unit, u, t, fit)
            error = float(fit.loss.mean()) if better is None else better
            spread = float((t - t.mean(0)).square().mean())
            self.fits[unit.node] = UnitFit(
                unit, fit, error / max(spread, 1e-12), refitted=better is not None
            )
        self.moments[unit.node] = find_moments(self._new[unit.node], unit)
        return True

    def _refit(self, unit: SwapUnit, u: Tensor, t: Tensor, fit: ChannelFit) -> float | None:
        """Refit a convolution's weights; return the mean squared error, or None if it stays."""
        node = next(n for n in self.student.graph.nodes if n.name == unit.layers[0])
        conv = call(self.student, node, nn.Conv2d)
        if conv is None or len(unit.layers) > 1:
            return None
        at, (source,) = self.positions[unit.node], node.all_input_nodes
        patches = [
            gather_patches(image, conv.module, places.unsqueeze(0))
            for image, places in pair_images(self._new[source.name], at)
        ]
        held = slice(None)
        if self.refit == "auto" and len(at) >= HELD_OUT:
            held = slice(sum(map(len, at[: -(len(at) // HELD_OUT)])), None)
        t = t - fit.m
        found = refit_weights(self.form, torch.cat(patches, 1), u * fit.a + fit.b, t, held)
        if found is None:
            return None
        conv.module.weight += found.weight.view_as(conv.module.weight)
        if conv.module.bias is not None:
            conv.module.bias += found.bias
        self._new[unit.node] = self._compute(
            self.student, node, self._new, len(self._new[source.name])
        )
        return mean_square_error(self.form, found.outputs, t)

    def _rescale(self, unit: SwapUnit, a: Tensor, b: Tensor) -> None:
        """Scale and shift what layers compute together: in their weights and in the values."""
        for i, name in enumerate(unit.layers):
            node = next(n for n in self.student.graph.nodes if n.name == name)
            layer = self.student.get_submodule(str(node.target))
            rescale_layer(layer, a, b if i == 0 else torch.zeros_like(b))
        values = self._new[unit.node]
        shape = [1] * values[0].ndim
        shape[-1 if unit.last else 1] = -1
        self._new[unit.node] = [v * a.view(shape) + b.view(shape) for v in values]


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
