"""Swap activations node by node, the graph beside its original on the same images.

At each unit both graphs' inputs of the activation are compared at drawn positions: a shift of the
bias takes up what constants the activations before have left, a scale and a bias fit the new
activation to the old one's values, and the weights may be refitted. What comes later sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import call, compute_node, last_uses
from yqc.quant.weights.statistics import gather_patches
from yqc.swapping.fit import ChannelFit, fit_channels
from yqc.swapping.forms import Form
from yqc.swapping.refit import refit_weights
from yqc.swapping.units import Unit

Values = list[Any]
"""What a node computes, one value a batch of images."""


@dataclass(frozen=True)
class UnitFit:
    """The fit of one unit."""

    unit: Unit
    fit: ChannelFit
    before: float
    """Mean square of the wanted values about their means."""
    after: float
    """Mean squared error."""


@dataclass
class Swap:
    """Walks through a graph and its copy, whose activations are swapped."""

    teacher: fx.GraphModule
    student: fx.GraphModule
    form: Form
    units: Mapping[str, Unit]
    """By the name of their node; of the student."""
    positions: Mapping[str, list[Tensor]]
    refit: bool = False
    advance: Callable[[int], None] = lambda _: None
    fits: dict[str, UnitFit] = field(default_factory=dict)
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def run(self, images: Sequence[Tensor]) -> None:
        """Fit on batches of images, float32 [N, C, H, W] each."""
        order = [n for n in self.student.graph.nodes if n.op != "output"]
        partner = {n.name: n for n in self.teacher.graph.nodes}
        finished = last_uses(order)
        old: dict[fx.Node, Values] = {}
        new: dict[fx.Node, Values] = {}
        changed: set[fx.Node] = set()
        for node in order:
            twin = partner[node.name]
            if node.op == "placeholder":
                old[twin] = new[node] = list(images)
                continue
            old[twin] = self.compute(self.teacher, twin, old, len(images))
            touched = node.name in self.units or any(n in changed for n in node.all_input_nodes)
            swapped = any(u.activation is node for u in self.units.values())
            if touched or swapped:
                changed.add(node)
                same = not any(n in changed for n in node.all_input_nodes) and not swapped
                new[node] = list(old[twin]) if same else self.compute(self.student, node, new, len(images))
            else:
                new[node] = old[twin]
            if (unit := self.units.get(node.name)) is not None:
                self.fit(unit, old[twin], new)
                self.advance(1)
            for source in finished[node]:
                new.pop(source, None)
                old.pop(partner[source.name], None)

    def compute(self, gm: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Values], n: int) -> Values:
        sources = node.all_input_nodes
        return [compute_node(gm, node, {s: values[s][i] for s in sources}) for i in range(n)]

    def fit(self, unit: Unit, wanted: Values, new: dict[fx.Node, Values]) -> None:
        """Fit one unit."""
        at = self.positions[unit.node.name]
        dim = -1 if call(self.student, unit.layers[0], nn.Linear) else 1
        x, u = (gather_rows(v, at, dim) for v in (wanted, new[unit.node]))
        if not (x.isfinite().all() and u.isfinite().all()):
            raise PassError(f"{unit.node} computes values that are not finite on calibration images")
        shift = x.mean(0) - u.mean(0)
        if unit.activation is None:
            self.rescale(unit, torch.ones_like(shift), shift, new, dim)
            return
        u = u + shift
        function = activation_of(self.teacher, unit.activation)
        t = function(x)
        fit = fit_channels(self.form, u, t, constant=unit.constant)
        self.rescale(unit, fit.a, fit.a * shift + fit.b, new, dim)
        after = float(fit.loss.mean())
        if self.refit and (conv := call(self.student, unit.layers[0], nn.Conv2d)) and len(unit.layers) == 1:
            source = unit.layers[0].all_input_nodes[0]
            a = torch.cat([gather_patches(p, conv.module, k) for p, k in each_image(new[source], at)], 1)
            found = refit_weights(self.form, a, u * fit.a + fit.b, t - fit.m)
            if found is not None:
                weight, bias, z = found
                conv.module.weight.data += weight.view_as(conv.module.weight)
                conv.module.bias.data += bias
                after = float((self.form.function(z) + fit.m - t).square().mean())
                new[unit.node] = self.compute(self.student, unit.node, new, len(new[unit.node]))
        spread = float((t - t.mean(0)).square().mean())
        self.fits[unit.node.name] = UnitFit(unit, fit, spread, after)

    def rescale(self, unit: Unit, a: Tensor, b: Tensor, new: dict[fx.Node, Values], dim: int) -> None:
        """Scale and shift what layers compute together, in their weights and in the values."""
        for i, layer in enumerate(unit.layers):
            rescale_layer(self.student.get_submodule(str(layer.target)), a, b if i == 0 else None)
        shape = [1] * new[unit.node][0].ndim
        shape[dim] = -1
        new[unit.node] = [v * a.view(shape) + b.view(shape) for v in new[unit.node]]


def rescale_layer(module: nn.Module, a: Tensor, b: Tensor | None) -> None:
    """Scale what a layer computes by a, [C], and add b."""
    weight = module.weight.data
    at = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    shape = [1] * weight.ndim
    shape[at] = -1
    if module.bias is None:
        module.bias = nn.Parameter(torch.zeros_like(a))
    if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
        raise PassError("grouped transposed")
    module.weight = nn.Parameter(weight * a.view(shape), requires_grad=False)
    bias = module.bias.data * a
    module.bias = nn.Parameter(bias if b is None else bias + b, requires_grad=False)


def activation_of(gm: fx.GraphModule, node: fx.Node) -> Callable[[Tensor], Tensor]:
    """Return the function that an activation computes."""
    (source,) = node.all_input_nodes

    def function(x: Tensor) -> Tensor:
        found: Tensor = compute_node(gm, node, {source: x})
        return found

    return function


def each_image(batches: Values, at: list[Tensor]) -> Any:
    """Yield each image of batches with its positions [1, K]."""
    images = (batch[i : i + 1] for batch in batches for i in range(len(batch)))
    for image, places in zip(images, at, strict=True):
        if len(places):
            yield image, places.unsqueeze(0)


def gather_rows(batches: Values, at: list[Tensor], dim: int) -> Tensor:
    """Return the channels at the positions of each image: [N, C]."""
    found = []
    for image, places in each_image(batches, at):
        rows = image[0].movedim(dim if dim < 0 else dim - 1, -1)
        found.append(rows.reshape(-1, rows.shape[-1])[places[0]])
    return torch.cat(found)
