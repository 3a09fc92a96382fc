"""conv-for-focus: write a space-to-depth and the convolution behind it as one convolution.

A space-to-depth moves each square of r x r pixels into the channels: channel q of its result is
channel c of x at the offset (a, b) within the squares. A convolution W of stride s and padding p
behind it is one on x with a kernel, a stride and a padding r times as large:

    W'[o, c, a + r*i, b + r*j] = W[o, q, i, j]

It is found as YOLOv5's Focus and YOLOv7's ReOrg write it, a concat of slices with steps, and as
`pixel_unshuffle`. What is summed is the same; the order, and so the rounding, differs.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, State, call, callers, is_function, shape

IMAGE = 4
"""Dimensions of what has pixels and channels."""
ChannelSource = tuple[int, int, int]
"""Channel and offset, down and right, that a channel of a space-to-depth holds."""


@dataclass(frozen=True)
class SpaceToDepth:
    """A node that moves squares of pixels into the channels."""

    node: fx.Node
    x: fx.Node
    side: int
    """Of the squares."""
    sources: list[ChannelSource]
    """What each channel of the result holds."""


@dataclass(frozen=True)
class ConvForFocus(Pass):
    """Write a space-to-depth and the convolution behind it as one convolution."""

    name: ClassVar[str] = "conv-for-focus"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for node in list(gm.graph.nodes):
            found = find_space_to_depth(gm, node)
            if found is None:
                continue
            conv = call(gm, next(iter(node.users), None), nn.Conv2d)
            if why := self.obstacle(gm, found, conv):
                ctx.skipped(node, why)
            elif conv is not None:
                gm.set_submodule(conv.target, absorb_squares(conv.module, found))
                conv.node.args = (found.x,)
                erase_unread(gm, node)
                ctx.rewrote(conv.node, f"took in the space-to-depth {node}")

    def obstacle(
        self, gm: fx.GraphModule, found: SpaceToDepth, conv: Call[nn.Conv2d] | None
    ) -> str | None:
        """Return why a space-to-depth must stay, or None."""
        if len(found.node.users) > 1:
            return f"{found.node} has other users"
        if conv is None:
            return "no convolution reads it"
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        if conv.module.groups > 1 or max(conv.module.dilation) > 1:
            return "its convolution has groups or is dilated"
        padding = conv.module.padding
        if conv.module.padding_mode != "zeros" or isinstance(padding, str):
            return "its convolution does not pad by a number of zeros"
        return None


def absorb_squares(conv: nn.Conv2d, found: SpaceToDepth) -> nn.Conv2d:
    """Return the convolution on what was moved into the channels that `conv` reads."""
    side, weight = found.side, conv.weight.detach()
    sizes: tuple[Any, ...] = (weight.shape[2:], conv.stride, conv.padding)
    kernel_size, stride, padding = ((side * int(a), side * int(b)) for a, b in sizes)
    how: dict[str, Any] = {"stride": stride, "padding": padding, "bias": conv.bias is not None}
    made = nn.Conv2d(shape(found.x)[1], conv.out_channels, kernel_size, **how)
    kernel = torch.zeros(made.weight.shape)
    for own, (channel, down, right) in enumerate(found.sources):
        kernel[:, channel, down::side, right::side] = weight[:, own]
    made.weight = nn.Parameter(kernel)
    made.bias = conv.bias
    return made.eval()


def find_space_to_depth(gm: fx.GraphModule, node: fx.Node) -> SpaceToDepth | None:
    """Return a node as a space-to-depth, or None."""
    found = read_unshuffle(gm, node) or read_slices(node)
    if found is None:
        return None
    x, side, places = found
    count = shape(x)[1]
    sources = [(c, *place) for place in places for c in range(count)]
    if not is_function(node, torch.cat, torch.concat):
        sources = [(c, *place) for c in range(count) for place in places]
    return SpaceToDepth(node, x, side, sources)


Found = tuple[fx.Node, int, list[tuple[int, int]]]


def read_unshuffle(gm: fx.GraphModule, node: fx.Node) -> Found | None:
    """Read `pixel_unshuffle`: its input, the side of the squares, and the order of offsets."""
    unshuffle = call(gm, node, nn.PixelUnshuffle)
    if unshuffle is not None:
        side = unshuffle.module.downscale_factor
    elif is_function(node, F.pixel_unshuffle):
        given: Any = node.kwargs.get("downscale_factor") or node.args[1]
        side = int(given)
    else:
        return None
    x = node.all_input_nodes[0]
    offsets = [(down, right) for down in range(side) for right in range(side)]
    return (x, side, offsets) if len(shape(x)) == IMAGE else None


def read_slices(node: fx.Node) -> Found | None:
    """Read a concat of slices with steps of one tensor, which cover it."""
    if not is_function(node, torch.cat, torch.concat) or concat_axis(node) not in {1, -3}:
        return None
    parts: Any = node.args[0] if node.args else node.kwargs["tensors"]
    side = math.isqrt(len(parts))
    if side < 2 or side**2 != len(parts):  # noqa: PLR2004
        return None
    read = [read_offset(part, side) for part in parts]
    xs = {one[0] for one in read if one is not None}
    offsets = [one[1] for one in read if one is not None]
    return (xs.pop(), side, offsets) if len({*offsets}) == side**2 and len(xs) == 1 else None


def concat_axis(node: fx.Node) -> object:
    """Return the axis of a concat."""
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def read_offset(part: object, side: int) -> tuple[fx.Node, tuple[int, int]] | None:
    """Return what slices with steps of `side` are taken of, and the offset down and right.

    The slices are tried on an image of 2 channels and 2 x 2 squares, whose pixels are numbered.
    """
    node: Any = part
    indices = list[Any]()
    while is_function(node, operator.getitem):
        source, index = node.args
        indices.insert(0, index if isinstance(index, tuple) else (index,))
        node = source
    numbered = torch.arange(2 * (2 * side) ** 2).reshape(1, 2, 2 * side, 2 * side)
    plain = all(isinstance(one, slice) or one is Ellipsis for index in indices for one in index)
    if not isinstance(node, fx.Node) or not indices or not plain:
        return None
    sliced = numbered
    for index in indices:
        sliced = sliced[index]
    return place_offset(node, numbered, sliced, side)


def place_offset(
    x: fx.Node, numbered: Tensor, sliced: Tensor, side: int
) -> tuple[fx.Node, tuple[int, int]] | None:
    """Return the offset at which a slice of numbered pixels begins, if it has all channels."""
    if not sliced.numel() or len(shape(x)) != IMAGE:
        return None
    down, right = divmod(int(sliced.flatten()[0]), 2 * side)
    same = torch.equal(sliced, numbered[:, :, down::side, right::side])
    return (x, (down, right)) if same and max(down, right) < side else None


def erase_unread(gm: fx.GraphModule, node: fx.Node) -> None:
    """Erase a node and what only it read."""
    sources = node.all_input_nodes
    gm.graph.erase_node(node)
    for source in sources:
        if not source.users and source.op != "placeholder":
            erase_unread(gm, source)
