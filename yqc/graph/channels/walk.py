"""Following channel identities along a graph: what each kind of node does with them.

A convolution makes new ones; additions and other elementwise operations unify; a concatenation
concatenates; chunk, split and slices select; depthwise convolutions, batch norms, activations and
pools pass them through. An operation that mixes channels, reshapes their axis, or has no rule pins
them.
"""

from collections.abc import Sequence

import numpy as np
from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from yqc.graph.calls import call, get_attribute
from yqc.graph.channels import rules
from yqc.graph.channels.rules import NodeChannels, sizes_of
from yqc.graph.channels.sets import Axis, Cut, Ids, Sets, Side, Slot
from yqc.graph.text import operation
from yqc.graph.values import KEY, TensorSpec


class ChannelWalk:
    """Follows channels through a graph, node by node: a `rules.WalkState`."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.sets = Sets()
        self.known: dict[fx.Node, NodeChannels] = {}
        self.slots: dict[tuple[str, Side], Slot] = {}
        self.cuts: list[Cut] = []

    def run(self) -> "ChannelWalk":
        """Visit every node, then pin the channels of weights that are shared."""
        for node in self.gm.graph.nodes:
            self.known[node] = self.visit(node)
        self._pin_shared()
        return self

    def visit(self, node: fx.Node) -> NodeChannels:
        """Return the channels of what a node computes."""
        if node.op in {"placeholder", "get_attr"}:
            return None
        if node.op == "output":
            return self.pin_inputs(node, "it is the graph's output")
        if not self.axes_of(node) and call(self.gm, node, (_ConvNd, nn.Linear)) is None:
            return None
        if node.op == "call_module":
            return self.module(node, self.gm.get_submodule(str(node.target)))
        name = rules.name_of(node)
        rule = rules.RULES.get(name) if name else None
        return rule(self, node) if rule else self.unknown(node)

    def axes_of(self, node: fx.Node) -> list[Axis]:
        """List the known channels of a node's inputs."""
        found: list[Axis] = []
        for source in node.all_input_nodes:
            known = self.known[source]
            found += [a for a in (known if isinstance(known, tuple) else (known,)) if a is not None]
        return found

    def axis(self, value: object) -> Axis | None:
        """Return the known channels of an argument, or None."""
        known = self.known.get(value) if isinstance(value, fx.Node) else None
        return known if isinstance(known, Axis) else None

    def pin_inputs(self, node: fx.Node, why: str) -> Axis | None:
        """Pin all channels that reach a node; nothing is known of what it computes."""
        for axis in self.axes_of(node):
            self.sets.pin(axis.ids, why)
        return None

    def unknown(self, node: fx.Node) -> Axis | None:
        """Pin the channels that reach an operation that mixes channels, or has no rule."""
        return self.pin_inputs(node, f"{operation(self.gm, node)} at {node} mixes channels")

    def slot(self, target: str, side: Side, ids: Ids, dim: int = 0) -> Ids:
        """Record that the channels `ids` belong to an axis of a weight; return its identities.

        A module that is called twice has one set of weights: its channels are unified.
        """
        found = self.slots.setdefault((target, side), Slot(target, side, ids, dim))
        if len(found.ids) != len(ids) or found.dim != dim:
            self.sets.pin(np.concatenate([found.ids, ids]), f"{target} is used in two ways")
        elif found.ids is not ids:
            self.sets.unify(found.ids, ids)
        return found.ids

    def module(self, node: fx.Node, module: nn.Module) -> NodeChannels:  # noqa: C901, PLR0911  # by kind
        """Follow the channels through a module."""
        axis = self.axis(node.args[0]) if node.args else None
        if len(node.all_input_nodes) != 1 or node.kwargs:
            return self.unknown(node)
        if isinstance(module, _ConvNd):
            return self.convolution(node, module, axis)
        if isinstance(module, nn.Linear):
            return self.linear(node, module, axis)
        if axis is None:
            return None
        if isinstance(module, _NormBase):
            return self.per_channel(node, axis, affine=module.num_features)
        if isinstance(module, nn.GroupNorm):
            return self.group_norm(node, axis, module)
        if isinstance(module, nn.PReLU):
            count = module.num_parameters
            return axis if count == 1 else self.per_channel(node, axis, affine=count)
        if isinstance(module, nn.LayerNorm):
            normalized = len(sizes_of(node)) - len(module.normalized_shape)
            return axis if axis.dim < normalized else self.unknown(node)
        if isinstance(module, rules.SPATIAL):
            return rules.follow_spatial(self, node)
        if isinstance(module, rules.ELEMENTWISE):
            return axis
        if isinstance(module, nn.Softmax) and module.dim is not None:
            return axis if module.dim % len(sizes_of(node)) != axis.dim else self.unknown(node)
        if isinstance(module, nn.Flatten):
            return rules.follow_reshape(self, node, None)
        return self.unknown(node)

    def per_channel(self, node: fx.Node, axis: Axis, affine: int) -> Axis | None:
        """Pass through a module that holds values a channel, on axis 1."""
        if axis.dim != 1 or len(axis.ids) != affine:
            return self.unknown(node)
        self.slot(str(node.target), "channels", axis.ids)
        return axis

    def group_norm(self, node: fx.Node, axis: Axis, norm: nn.GroupNorm) -> Axis | None:
        """Let channels that are normalised together go together; other groups stay equal."""
        for group in np.split(axis.ids, norm.num_groups):
            self.sets.unify(group[:-1], group[1:])
        return self.per_channel(node, axis, affine=norm.num_channels)

    def convolution(self, node: fx.Node, conv: _ConvNd, axis: Axis | None) -> Axis | None:
        """Follow channels through a convolution: full, grouped, or depthwise; transposed or not."""
        target, dims = str(node.target), len(sizes_of(node))
        if dims != conv.weight.ndim or (axis is not None and axis.dim != 1):
            return self.unknown(node)
        groups = conv.groups
        if groups > 1 and groups == conv.in_channels:
            if axis is None:
                return None
            copies = conv.out_channels // groups
            ids = self.slot(target, "channels", axis.ids)
            return Axis(1, np.repeat(ids, copies))
        if axis is not None:
            self._alike(axis.ids, groups)
            self.slot(target, "in", axis.ids)
        made = self._made(target, conv.out_channels)
        self._alike(made, groups)
        return Axis(1, made)

    def _made(self, target: str, count: int) -> Ids:
        """Return the channels that a module makes: new ones at its first call."""
        if (target, "out") not in self.slots:
            self.slots[target, "out"] = Slot(target, "out", self.sets.new(count))
        return self.slots[target, "out"].ids

    def _alike(self, ids: Ids, groups: int) -> None:
        """Let the same channel of every group of a grouped convolution go together."""
        parts = np.split(ids, groups)
        for part in parts[1:]:
            self.sets.unify(parts[0], part)

    def linear(self, node: fx.Node, linear: nn.Linear, axis: Axis | None) -> Axis | None:
        """Follow channels through a linear layer, which reads and makes the last axis."""
        last, target = len(sizes_of(node)) - 1, str(node.target)
        if axis is not None and axis.dim != last:
            self.sets.pin(self._made(target, linear.out_features), f"{target} mixes positions")
            return axis
        if axis is not None:
            self.slot(target, "in", axis.ids)
        return Axis(last, self._made(target, linear.out_features))

    def elementwise(self, node: fx.Node) -> Axis | None:
        """Unify the channels of everything that meets in an elementwise operation."""
        out = sizes_of(node)
        places = {
            axis.dim + len(out) - len(sizes_of(source))
            for source in node.all_input_nodes
            if (axis := self.axis(source)) is not None
        }
        if len(places) != 1:
            return self.unknown(node)
        dim = places.pop()
        found: Ids | None = None
        for source in node.all_input_nodes:
            axis = self.axis(source)
            if axis is not None and len(axis.ids) == out[dim]:
                if found is None:
                    found = axis.ids
                else:
                    self.sets.unify(found, axis.ids)
            elif axis is not None:
                self.sets.pin(axis.ids, f"{node} spreads it over {out[dim]} channels")
        if found is None:
            return None
        for source in node.all_input_nodes:
            if self.axis(source) is None:
                self._beside(node, source, dim - len(out), found)
        return Axis(dim, found)

    def _beside(self, node: fx.Node, source: fx.Node, dim: int, ids: Ids) -> None:
        """Treat an operand without known channels; `dim` counts their axis from the end."""
        sizes = sizes_of(source)
        if len(sizes) < -dim or sizes[dim] == 1:
            return
        if source.op == "get_attr":
            self.slot(str(source.target), "channels", ids, len(sizes) + dim)
        else:
            self.sets.pin(ids, f"{node} joins it with {source}, whose channels are fixed")

    def join(self, node: fx.Node, parts: Sequence[fx.Node], dim: int) -> Axis | None:
        """Follow channels through a concatenation along `dim`."""
        axes = [self.axis(p) for p in parts]
        dims = {a.dim for a in axes if a is not None}
        if len(dims) != 1:
            return self.unknown(node)
        where = dims.pop()
        if where != dim:
            return self._side_by_side(node, axes, where)
        found: list[Ids] = []
        for part, axis in zip(parts, axes, strict=True):
            if axis is None:
                fixed = self.sets.new(sizes_of(part)[dim])
                self.sets.pin(fixed, f"{node} holds {part}, whose channels are fixed")
                found.append(fixed)
            else:
                found.append(axis.ids)
        return Axis(dim, np.concatenate(found))

    def _side_by_side(self, node: fx.Node, axes: Sequence[Axis | None], dim: int) -> Axis | None:
        known = [a for a in axes if a is not None]
        for other in known[1:]:
            self.sets.unify(known[0].ids, other.ids)
        if len(known) < len(axes):
            self.sets.pin(known[0].ids, f"{node} joins it with fixed channels")
        return Axis(dim, known[0].ids)

    def parts(self, node: fx.Node, dim: int) -> NodeChannels:
        """Follow channels through chunk or split along `dim`."""
        axis = self.axis(node.args[0])
        value = node.meta.get(KEY)
        if axis is None or not isinstance(value, tuple):
            return self.unknown(node)
        if dim != axis.dim:
            return tuple(axis for _ in value)
        sizes = [v.shape[dim] for v in value if isinstance(v, TensorSpec)]
        ends = np.cumsum(sizes)[:-1]
        pieces = np.split(axis.ids, ends)
        self.cuts.append(Cut(node, "parts", tuple(pieces)))
        return tuple(Axis(dim, ids) for ids in pieces)

    def _pin_shared(self) -> None:
        """Pin channels of weights that are read as tensors too, or by two modules."""
        owners = {t for t, _ in self.slots}
        for node in self.gm.graph.nodes:
            if node.op == "get_attr":
                owner = str(node.target).rpartition(".")[0]
                if owner in owners:
                    self._pin_target(owner, f"{node} reads the weights of {owner}")
        seen: dict[int, str] = {}
        for target in sorted(owners):
            held = get_attribute(self.gm, target)
            for parameter in held.parameters() if isinstance(held, nn.Module) else ():
                if seen.setdefault(id(parameter), target) != target:
                    why = f"{target} and {seen[id(parameter)]} share a weight"
                    self._pin_target(target, why)
                    self._pin_target(seen[id(parameter)], why)

    def _pin_target(self, target: str, why: str) -> None:
        for (owner, _), slot in self.slots.items():
            if owner == target:
                self.sets.pin(slot.ids, why)


def is_transposed(module: nn.Module) -> bool:
    """Check whether a convolution's weight has its input channels on axis 0."""
    return isinstance(module, _ConvTransposeNd)
