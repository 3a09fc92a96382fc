"""pad-in-conv: let a convolution pad by itself what is padded with zeros before it.

A convolution's own padding is by zeros, too, and equal on both sides. Where l zeros stand before
and r behind, it pads by m = max(l, r), and its kernel gets m - l rows of zeros before its own, or
m - r behind, which read the surplus:

    y[i] = sum_k w[k] * x[s*i + k - l] = sum_k w'[k] * x[s*i + k - m],   w'[k + m - l] = w[k]
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import fx, nn

from yqc import Call, Context, Pass, State, callers
from yqc.rewrite import Match, function, module, rewrite_all, var

PADDED = (
    module((nn.ZeroPad2d, nn.ConstantPad2d), var("x"), name="pad"),
    function(F.pad, var("x"), ..., name="pad"),
)
SIDES = 4
"""Numbers of a padding of images: left, right, top, bottom."""


@dataclass(frozen=True)
class PadInConv(Pass):
    """Let a convolution pad by itself what is padded with zeros before it."""

    name: ClassVar[str] = "pad-in-conv"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for pad in PADDED:
            rewrite_all(
                gm, ctx, module(nn.Conv2d, pad, name="conv"), self.pad,
                check=self.obstacle, what="pads by itself, as {pad} did",
            )  # fmt: skip

    def pad(self, gm: fx.GraphModule, match: Match) -> fx.Node:
        """Give the convolution the padding, and a wider kernel where its sides differ."""
        conv: Call[nn.Conv2d] = match.call("conv")
        module, sides = conv.module, read_zeros(gm, match["pad"]) or []
        left, right, top, bottom = sides
        wide, high = max(left, right), max(top, bottom)
        grown = (wide - left, wide - right, high - top, high - bottom)
        if any(grown):
            weight = F.pad(module.weight.detach(), grown)
            module.weight = nn.Parameter(weight, module.weight.requires_grad)
            module.kernel_size = (weight.shape[2], weight.shape[3])
        above, before = (int(one) for one in module.padding)
        module.padding = (above + high, before + wide)
        module._reversed_padding_repeated_twice = [  # noqa: SLF001  # kept by torch beside it
            *[module.padding[1]] * 2, *[module.padding[0]] * 2,
        ]  # fmt: skip
        conv.node.args = (match["x"],)
        return conv.node

    def obstacle(self, gm: fx.GraphModule, match: Match) -> str | None:
        """Return why a padding must stay, or None."""
        conv: Call[nn.Conv2d] = match.call("conv")
        sides = read_zeros(gm, match["pad"])
        if sides is None:
            return f"{match['pad']} pads with something else than zeros, or another axis"
        if min(sides) < 0:
            return f"{match['pad']} cuts off what is at the edge"
        if conv.module.padding_mode != "zeros" or isinstance(conv.module.padding, str):
            return "its own padding is not by a number of zeros"
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        uneven = sides[0] != sides[1] or sides[2] != sides[3]
        if uneven and max(conv.module.dilation) > 1:
            return "its kernel is dilated, and the padding differs by side"
        return None


def read_zeros(gm: fx.GraphModule, pad: fx.Node) -> list[int] | None:
    """Return how many zeros are put left, right, above and below; None for another padding."""
    names = ("pad", "mode", "value")
    given: dict[str, Any] = dict(zip(names, pad.args[1:], strict=False)) | pad.kwargs
    if pad.op == "call_module":
        own: Any = gm.get_submodule(str(pad.target))
        given = {"pad": own.padding, "value": own.value}
    sides = given["pad"]
    if given.get("value") or given.get("mode", "constant") != "constant":
        return None
    if not all(isinstance(one, int) for one in sides) or any(sides[SIDES:]):
        return None
    return [*sides[:SIDES], *[0] * (SIDES - len(sides))]
