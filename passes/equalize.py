"""equalize: move scale between the channels of two convolutions, so that none is rounded away.

    W2 * f(W1 * x + b1) = (W2 S) * f(S^-1 W1 * x + S^-1 b1),   S = diag(s), s > 0

holds for every f with f(s x) = s f(x): ReLU, LeakyReLU, max-pooling, nothing at all. With
s_c = sqrt(r1_c / r2_c), where r1_c is the largest weight of output channel c of the first and r2_c
of input channel c of the second, both become equal (Nagel et al., ICCV 2019, section 4.1).

SiLU, sigmoid and the like do not scale: there the pass is refused, with that reason.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, fx, nn

from yqc import BatchNorm, Call, Context, Pass, State, callers
from yqc.pipeline import Bounds
from yqc.rewrite import module, rewrite_all, through, var

SCALES = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.MaxPool2d, nn.Identity)
"""Modules f with f(s x) = s f(x) for every s > 0, a channel at a time."""
PAIR = module(
    nn.Conv2d,
    through(nn.Module, module(nn.Conv2d, var("x"), name="first"), name="between"),
    name="second",
)


@dataclass(frozen=True)
class Equalize(Pass):
    """Move scale between the channels of two convolutions."""

    name: ClassVar[str] = "equalize"
    requires: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED, State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED})
    keeps_numbers: ClassVar[bool] = True

    limit: Annotated[float, Bounds(least=1)] = 16.0
    """Largest factor, and one over the smallest, that a channel is scaled by."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        rewrite_all(
            gm, ctx, PAIR, self.equalize, check=self.obstacle, what="equalized with {first}"
        )

    def equalize(
        self, gm: fx.GraphModule, first: Call[nn.Conv2d], second: Call[nn.Conv2d]
    ) -> fx.Node:
        """Rescale the channels between two convolutions; no node changes."""
        rescale(first, second.module, self.factor(first.module, second.module))
        return second.node

    def obstacle(
        self,
        gm: fx.GraphModule,
        first: Call[nn.Conv2d],
        between: tuple[Call[nn.Module], ...],
        second: Call[nn.Conv2d],
    ) -> str | None:
        """Return why this pair must stay as it is, or None if it may be equalized."""
        for step in between:
            if not isinstance(step.module, SCALES):
                return f"{step.node} is a {type(step.module).__name__}, which does not scale"
        for conv in (first, second):
            if callers(gm, conv.target) > 1:
                return f"{conv.target} is called from more than one place"
        sizes = {second.module.groups, second.module.in_channels, second.module.out_channels}
        if second.module.groups != 1 and len(sizes) > 1:
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
    if (known := BatchNorm.on(first.node)) is not None:
        moved = replace(
            known,
            mean=known.mean / factor,
            variance=known.variance / factor.square(),
            scale=known.scale / factor,
            shift=known.shift / factor,
        )
        moved.put(first.node)
