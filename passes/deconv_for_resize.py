"""deconv-for-resize: write nearest upsampling by a whole factor as a transposed convolution.

Each pixel is repeated f times along both axes, which a depthwise transposed convolution of kernel
and stride f does whose weights are all 1:

    y[c, f*i + a, f*j + b] = 1 * x[c, i, j],   0 <= a, b < f

No value is rounded: the result is equal bit by bit.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import fx, nn

from yqc import Context, Pass, State, shape
from yqc.rewrite import Match, function, module, rewrite_all, var

UPSAMPLE = module(nn.Upsample, var("x"))
INTERPOLATE = function(F.interpolate, var("x"), ..., name="call")
IMAGE = 4
"""Dimensions of what is upsampled."""


@dataclass(frozen=True)
class DeconvForResize(Pass):
    """Write nearest upsampling by a whole factor as a transposed convolution."""

    name: ClassVar[str] = "deconv-for-resize"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for pattern in (UPSAMPLE, INTERPOLATE):
            rewrite_all(
                gm, ctx, pattern, self.transpose, check=self.obstacle,
                what="became a transposed convolution",
            )  # fmt: skip

    def transpose(self, gm: fx.GraphModule, match: Match) -> fx.Node:
        """Turn the node into the call of a transposed convolution; it keeps its name."""
        node, x = match.root, match["x"]
        channels, high, wide = shape(x)[1:]
        factors = shape(node)[2] // high, shape(node)[3] // wide
        made = nn.ConvTranspose2d(
            channels, channels, factors, stride=factors, groups=channels, bias=False
        )
        nn.init.ones_(made.weight)
        path = f"{node.name}_repeat"  # a module may be called at several places
        gm.add_submodule(path, made.eval())
        node.op, node.target, node.args, node.kwargs = "call_module", path, (x,), {}
        return node

    def obstacle(self, gm: fx.GraphModule, match: Match) -> str | None:
        """Return why an upsampling must stay as it is, or None."""
        node, x = match.root, match["x"]
        own = gm.get_submodule(str(node.target)) if node.op == "call_module" else None
        settings = dict(zip(("size", "scale_factor", "mode"), node.args[1:], strict=False))
        settings |= node.kwargs if own is None else vars(own)
        if settings.get("mode", "nearest") not in {"nearest", "nearest-exact"}:
            return f"it interpolates by mode {settings['mode']}"
        if len(shape(x)) != IMAGE:
            return "it is no upsampling of images"
        if settings.get("size") is not None:
            return "it names the size, and not the factor"
        if any(new % old for old, new in zip(shape(x)[2:], shape(node)[2:], strict=True)):
            return "its factor is no whole number"
        return None
