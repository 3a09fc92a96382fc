"""bias-correct: take the mean error of rounded weights out of each convolution's bias.

    E[W_q * x] - E[W * x] = (sum over the kernel of W_q - W) E[x]

E[x] is the mean of each input channel over the calibration images, or, without data, over what the
batch norms say. Padding is left out of the mean (Nagel et al., Data-Free Quantization, ICCV 2019,
section 4.2).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, call, callers, calls
from yqc.quant import Int8, Observer, to_integers


@dataclass(frozen=True)
class BiasCorrect(Pass):
    """Take the mean error of rounded weights out of the biases."""

    name: ClassVar[str] = "bias-correct"
    requires: ClassVar[frozenset[str]] = frozenset({"calibrated"})

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for conv in calls(gm, nn.Conv2d):
            chosen = conv.node.meta.get("yqc.int8")
            if not isinstance(chosen, Int8) or chosen.scale is None:
                continue
            observer = call(gm, conv.node.all_input_nodes[0], Observer)
            if why := self.obstacle(gm, conv, observer):
                ctx.skipped(conv.node, why)
            elif observer is not None:
                shift = mean_error(conv.module, chosen.scale, observer.module.mean)
                bias = conv.module.bias
                old = torch.zeros_like(shift) if bias is None else bias.detach()
                conv.module.bias = nn.Parameter(old - shift)
                ctx.rewrote(conv.node, f"bias moved by up to {float(shift.abs().max()):.3g}")

    def obstacle(
        self, gm: fx.GraphModule, conv: Call[nn.Conv2d], observer: Call[Observer] | None
    ) -> str | None:
        """Why this convolution's bias must stay, or None if it may be corrected."""
        if observer is None:
            return "its input is not observed"
        if not observer.module.mean.any():
            return "nothing is known of the mean of its input"
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        return None


def mean_error(conv: nn.Conv2d, scale: Tensor, mean: Tensor) -> Tensor:
    """Return the mean error of each output channel, float32 [O], for input means [I]."""
    rounded = to_integers(conv.weight, scale) * scale.view(-1, 1, 1, 1)
    error = (rounded - conv.weight.detach()).sum((2, 3))
    groups, per = conv.groups, conv.out_channels // conv.groups
    inputs = mean.view(groups, 1, -1).expand(-1, per, -1).reshape(error.shape)
    return (error * inputs).sum(1)
