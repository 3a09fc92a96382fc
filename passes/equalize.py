"""equalize: move scale between the channels of two convolutions, so that none is rounded away.

    W2 * f(W1 * x + b1) = (W2 S) * f(S^-1 W1 * x + S^-1 b1),   S = diag(s), s > 0

holds for every f with f(s x) = s f(x): ReLU, LeakyReLU, max-pooling, nothing at all. With
s_c = sqrt(r1_c / r2_c), where r1_c is the largest weight of output channel c of the first and r2_c
of input channel c of the second, both become equal (Nagel et al., ICCV 2019, section 4.1).

SiLU, sigmoid and the like do not scale: there the pass is refused, with that reason.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, fx, nn

from yqc import BatchNorm, Call, Context, Pass, call, callers, calls

SCALES = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.MaxPool2d, nn.Identity)


@dataclass(frozen=True)
class Equalize(Pass):
    """Move scale between the channels of two convolutions."""

    name: ClassVar[str] = "equalize"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    keeps_numbers: ClassVar[bool] = True

    limit: float = 16.0
    """Largest factor, and one over the smallest, that a channel is scaled by."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for second in calls(gm, nn.Conv2d):
            between, source = [], second.node.all_input_nodes[0]
            while (step := call(gm, source, nn.Module)) and not isinstance(step.module, nn.Conv2d):
                between.append(step)
                source = source.all_input_nodes[0]
            first = call(gm, source, nn.Conv2d)
            if first is None:
                continue
            if why := self.obstacle(gm, first, between, second):
                ctx.skipped(second.node, why)
                continue
            factor = self.factor(first.module, second.module)
            rescale(first, second.module, factor)
            ctx.rewrote(first.node, f"equalized with {second.node}")

    def obstacle(
        self,
        gm: fx.GraphModule,
        first: Call[nn.Conv2d],
        between: list[Call[nn.Module]],
        second: Call[nn.Conv2d],
    ) -> str | None:
        """Why this pair must stay as it is, or None if it may be equalized."""
        for step in between:
            if not isinstance(step.module, SCALES):
                return f"{step.node} is a {type(step.module).__name__}, which does not scale"
        for node in (first.node, *(s.node for s in between)):
            if len(node.users) > 1:
                return f"{node} has other users"
        for conv in (first, second):
            if callers(gm, conv.target) > 1:
                return f"{conv.target} is called from more than one place"
        if second.module.groups not in {1, second.module.in_channels}:
            return f"{second.node} is a grouped convolution"
        return None

    def factor(self, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
        """Return what each channel between the two is divided by: float32 [C]."""
        outgoing = first.weight.detach().flatten(1).abs().amax(1)
        incoming = by_input(second).abs().amax((0, 2, 3))
        factor = (outgoing / incoming).sqrt().clamp(1 / self.limit, self.limit)
        return torch.where((outgoing > 0) & (incoming > 0), factor, torch.ones_like(factor))


def by_input(conv: nn.Conv2d) -> Tensor:
    """Return a weight with its input channels in dimension 1, depthwise ones too."""
    weight = conv.weight.detach()
    return weight if conv.groups == 1 else weight.transpose(0, 1)


def rescale(first: Call[nn.Conv2d], second: nn.Conv2d, factor: Tensor) -> None:
    """Divide the first convolution's output channels by `factor`, multiply the second's inputs."""
    module = first.module
    module.weight = nn.Parameter(module.weight.detach() / factor.view(-1, 1, 1, 1))
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach() / factor)
    shape = (1, -1, 1, 1) if second.groups == 1 else (-1, 1, 1, 1)
    second.weight = nn.Parameter(second.weight.detach() * factor.view(shape))
    known = first.node.meta.get("yqc.bn")
    if isinstance(known, BatchNorm):
        moved = replace(
            known,
            mean=known.mean / factor,
            variance=known.variance / factor.square(),
            scale=known.scale / factor,
            shift=known.shift / factor,
        )
        first.node.meta["yqc.bn"] = moved
