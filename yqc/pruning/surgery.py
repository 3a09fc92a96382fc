"""Remove sets of channels from a graph: weights, norms, constants, and numbers in arguments."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.graph.calls import get_attribute
from yqc.graph.channels.sets import Axis, Channels, Cut, Ids, Slot
from yqc.graph.channels.walk import is_transposed
from yqc.graph.metadata import BatchNorm, Kept
from yqc.graph.values import propagate

Keep = NDArray[np.bool_]
"""For each set of channels, whether it stays."""


def remove_channels(
    gm: fx.GraphModule, channels: Channels, keep: Keep, *, shapes: bool = True
) -> None:
    """Remove the sets of channels that do not stay from a graph, in place.

    Modules are edited, not replaced. Nodes get their new shapes unless `shapes` is off, as in a
    trial.

    Raises:
        ValueError: a pinned set is not kept.
        TraceError: the shapes do not fit afterwards; raised only with `shapes`.
    """
    pinned = [why for why, stays in zip(channels.pins, keep.tolist(), strict=True) if why]
    if any(why and not stays for why, stays in zip(channels.pins, keep.tolist(), strict=True)):
        raise ValueError(f"a pinned channel is to be removed: {pinned[0]}")
    for slot in channels.slots:
        if not keep[slot.ids].all():
            _trim(gm, slot, keep)
    for cut in channels.cuts:
        _resize(gm, cut, keep)
    axes = {node.name: axis for node, axis in channels.axes.items()}
    for node in gm.graph.nodes:
        if node.name in axes:
            _trim_meta(node, axes[node.name], keep)
    gm.recompile()
    if shapes:
        propagate(gm)


def kept_positions(ids: Ids, keep: Keep) -> Tensor:
    """Return the positions of the channels that stay, int64."""
    return torch.from_numpy(np.flatnonzero(keep[ids]))


def _trim(gm: fx.GraphModule, slot: Slot, keep: Keep) -> None:
    held = get_attribute(gm, slot.target)
    stay = kept_positions(slot.ids, keep)
    if isinstance(held, Tensor):
        _set(gm, slot.target, held.index_select(slot.dim, stay))
    elif isinstance(held, _ConvNd):
        _trim_convolution(held, slot, stay)
    elif isinstance(held, nn.Linear):
        _trim_linear(held, slot, stay)
    elif isinstance(held, nn.Module):
        for name, tensor in [*held.named_parameters(), *held.named_buffers()]:
            if tensor.ndim == 1 and len(tensor) == len(slot.ids):
                _set(held, name, tensor[stay])
        if isinstance(held, _NormBase):
            held.num_features = len(stay)
        if isinstance(held, nn.GroupNorm):
            size = held.num_channels // held.num_groups  # whole groups go
            held.num_channels, held.num_groups = len(stay), len(stay) // size
        if isinstance(held, nn.PReLU):
            held.num_parameters = len(stay)


def _trim_convolution(conv: _ConvNd, slot: Slot, stay: Tensor) -> None:
    transposed = is_transposed(conv)
    if slot.side == "channels":  # depthwise: one group a channel
        copies = conv.out_channels // conv.groups
        rows = (stay.unsqueeze(1) * copies + torch.arange(copies)).flatten()
        _set(conv, "weight", conv.weight.index_select(0, stay if transposed else rows))
        if conv.bias is not None:
            _set(conv, "bias", conv.bias[rows])
        conv.in_channels = conv.groups = len(stay)
        conv.out_channels = len(rows)
        return
    makes = slot.side == "out"
    axis = 0 if makes != transposed else 1  # on axis 1 the same channels go in every group
    each = stay[: len(stay) // conv.groups] if axis else stay
    _set(conv, "weight", conv.weight.index_select(axis, each))
    if makes:
        conv.out_channels = len(stay)
        if conv.bias is not None:
            _set(conv, "bias", conv.bias[stay])
    else:
        conv.in_channels = len(stay)


def _trim_linear(linear: nn.Linear, slot: Slot, stay: Tensor) -> None:
    makes = slot.side == "out"
    _set(linear, "weight", linear.weight.index_select(0 if makes else 1, stay))
    if makes:
        linear.out_features = len(stay)
        if linear.bias is not None:
            _set(linear, "bias", linear.bias[stay])
    else:
        linear.in_features = len(stay)


def _set(owner: nn.Module, path: str, value: Tensor) -> None:
    """Replace a parameter or buffer."""
    parent, _, name = path.rpartition(".")
    holder = owner.get_submodule(parent)
    old = getattr(holder, name)
    value = value.detach().clone()
    new = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
    setattr(holder, name, new)


def _resize(gm: fx.GraphModule, cut: Cut, keep: Keep) -> None:
    """Write the new numbers of channels into the arguments of a node."""
    counts = [int(keep[ids].sum()) for ids in cut.ids]
    node = next(n for n in gm.graph.nodes if n.name == cut.node.name)
    if counts == [len(ids) for ids in cut.ids]:
        return
    if cut.kind == "parts":
        _resize_parts(node, counts)
    elif cut.kind == "slice":
        index = node.args[1]
        whole = list(index) if isinstance(index, tuple) else [index]
        whole[cut.place] = slice(counts[0], counts[0] + counts[1])
        node.args = (node.args[0], tuple(whole) if isinstance(index, tuple) else whole[0])
    else:
        node.args, node.kwargs = _resized(node, cut.place, counts[0])


def _resize_parts(node: fx.Node, counts: list[int]) -> None:
    """Turn a chunk or split into a split with explicit sizes."""
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)  # noqa: PLR2004
    node.target = "split" if node.op == "call_method" else torch.split
    node.args, node.kwargs = (node.args[0], counts, dim), {}


def _resized(
    node: fx.Node, place: int, count: int
) -> tuple[tuple[fx.node.Argument, ...], dict[str, fx.node.Argument]]:
    """Return the arguments of a reshape with another number at one place among the sizes."""
    args, kwargs = list(node.args), dict(node.kwargs)
    at = next((key for key in ("shape", "size", "sizes") if key in kwargs), None)
    given = kwargs[at] if at else args[1]
    if not isinstance(given, (tuple, list)):
        args[1 + place] = count
        return tuple(args), kwargs
    sizes = (*given[:place], count, *given[place + 1 :])
    if at:
        kwargs[at] = sizes
    else:
        args[1] = sizes
    return tuple(args), kwargs


def _trim_meta(node: fx.Node, axis: Axis, keep: Keep) -> None:
    """Record which channels of a node stay, and trim the statistics of its folded batch norm."""
    if keep[axis.ids].all():
        return
    stay = kept_positions(axis.ids, keep)
    if axis.dim == 1:
        before = Kept.on(node)
        Kept(stay if before is None else before.channels[stay]).put(node)
    known = BatchNorm.on(node)
    if known is not None and len(axis.ids) == len(known.mean):
        known.select(stay).put(node)
