"""reparam: merge parallel linear branches of one input into a single convolution.

    sum_i s_i * (W_i * x) + b_i = (sum_i s_i W_i) * x + sum_i b_i

The branches of a sum may be convolutions, convolutions with a batch norm, and a batch norm alone
(the identity convolution, scaled). Smaller kernels are padded with zeros to the largest. This is
structural re-parameterisation (Ding et al., RepVGG, CVPR 2021), found by structure.

1. All branches read the same node, and nothing else reads what they compute.
2. They agree in stride, groups and dilation 1, and their paddings differ as their kernels do.
3. Works before and after `fold-bn`.
"""

import copy
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import BatchNorm, Call, Context, Pass, State, call, callers, has_effect, is_function
from yqc.graph import fold_kernel


@dataclass(frozen=True)
class LinearBranch:
    """One summand: an optional convolution, then an optional batch norm."""

    source: fx.Node
    end: fx.Node
    conv: Call[nn.Conv2d] | None
    bn: Call[nn.BatchNorm2d] | None


@dataclass(frozen=True)
class Reparameterize(Pass):
    """Merge parallel linear branches into one convolution."""

    name: ClassVar[str] = "reparam"
    provides: ClassVar[frozenset[str]] = frozenset({State.REPARAMETERIZED})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for total in [n for n in gm.graph.nodes if is_function(n, operator.add, torch.add)]:
            if any(is_function(user, operator.add, torch.add) for user in total.users):
                continue  # part of a larger sum
            leaves = list(summands(total))
            branches = [branch(gm, leaf) for leaf in leaves]
            linear = [b for b in branches if b is not None]
            base = widest(linear)
            if base is None or len({b.source for b in linear}) > 1 or len(linear) < len(leaves):
                continue
            why = "it weighs its summands" if total.kwargs else self.obstacle(gm, linear, base)
            if why:
                ctx.skipped(total, why)
                continue
            self.merge(gm, total, linear, base)
            ctx.rewrote(total, f"{len(linear)} branches merged into {base.node}")

    def obstacle(
        self, gm: fx.GraphModule, branches: list[LinearBranch], base: Call[nn.Conv2d]
    ) -> str | None:
        """Return why these branches must stay apart, or None if they may be merged."""
        for b in branches:
            for part in (b.conv, b.bn):
                if part and callers(gm, part.target) > 1:
                    return f"{part.target} is called from more than one place"
                if part and len(part.node.users) > 1:
                    return f"{part.node} has other users"
            if b.bn and b.bn.module.running_var is None:
                return f"{b.bn.node} normalises by batch statistics"
            if b.conv and (why := misfit(b.conv.module, base.module)):
                return f"{b.conv.node} and {base.node} differ in {why}"
            if b.conv is None and not is_same_size(base.module):
                return f"the identity branch does not fit {base.node}"
        return None

    def merge(
        self,
        gm: fx.GraphModule,
        total: fx.Node,
        branches: list[LinearBranch],
        base: Call[nn.Conv2d],
    ) -> None:
        """Merge all branches into the widest convolution, which replaces `total`."""
        parts = [kernel(b, base.module) for b in branches]
        merged = copy.deepcopy(base.module)
        merged.weight = nn.Parameter(torch.stack([w for w, _ in parts]).sum(0))
        merged.bias = nn.Parameter(torch.stack([b for _, b in parts]).sum(0))
        gm.set_submodule(base.target, merged.eval())
        known = [distribution(b) for b in branches]
        if statistics := combine([k for k in known if k is not None], len(branches)):
            statistics.put(base.node)
        total.replace_all_uses_with(base.node)
        gm.graph.eliminate_dead_code(has_effect)


def summands(total: fx.Node) -> Iterator[object]:
    """Yield the leaves of a tree of additions of which only the root has other users."""
    for arg in total.args:
        inner = is_function(arg, operator.add, torch.add)
        if isinstance(arg, fx.Node) and inner and len(arg.users) == 1 and not arg.kwargs:
            yield from summands(arg)
        else:
            yield arg


def branch(gm: fx.GraphModule, end: object) -> LinearBranch | None:
    """Return the linear branch that ends at `end`, or None."""
    bn = call(gm, end, nn.BatchNorm2d)
    before = bn.node.args[0] if bn else end
    conv = call(gm, before, nn.Conv2d)
    if not isinstance(end, fx.Node) or not (bn or conv):
        return None
    source = conv.node.args[0] if conv else before
    return LinearBranch(source, end, conv, bn) if isinstance(source, fx.Node) else None


def widest(branches: list[LinearBranch]) -> Call[nn.Conv2d] | None:
    """Return the convolution with the largest kernel; None if there is only one branch."""
    found = [b.conv for b in branches if b.conv]
    if len(branches) < 2 or not found:  # noqa: PLR2004  # a sum has two
        return None
    return max(found, key=lambda c: c.module.weight[0, 0].numel())


def misfit(conv: nn.Conv2d, base: nn.Conv2d) -> str | None:
    """Return the setting in which a convolution differs from the one to merge it into, or None."""
    for what in ("stride", "groups", "out_channels", "padding_mode"):
        if getattr(conv, what) != getattr(base, what):
            return what
    if conv.dilation != (1, 1) or base.dilation != (1, 1):
        return "dilation"
    if isinstance(conv.padding, str) or isinstance(base.padding, str):
        return "padding"
    for k, p, big_k, big_p in zip(
        conv.kernel_size, conv.padding, base.kernel_size, base.padding, strict=True
    ):
        if k > big_k:
            return "kernel_size"
        if big_k - k != 2 * (big_p - p):
            return "padding"
    return None


def is_same_size(base: nn.Conv2d) -> bool:
    """Check whether an identity can be written as this convolution."""
    if isinstance(base.padding, str):
        return False
    same = all(k == 2 * p + 1 for k, p in zip(base.kernel_size, base.padding, strict=True))
    return same and base.stride == (1, 1) and base.in_channels == base.out_channels


def kernel(b: LinearBranch, base: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return a branch as weight, in the shape of `base`'s, and bias [O]."""
    if b.conv:
        weight = b.conv.module.weight.detach()
        bias = b.conv.module.bias
        bias = torch.zeros(weight.shape[0]) if bias is None else bias.detach()
        extra = [(big - k) // 2 for big, k in zip(base.kernel_size, weight.shape[2:], strict=True)]
        weight = F.pad(weight, (extra[1], extra[1], extra[0], extra[0]))
    else:
        weight, bias = identity(base), torch.zeros(base.out_channels)
    return fold_kernel(weight, bias, b.bn.module) if b.bn else (weight, bias)


def identity(base: nn.Conv2d) -> Tensor:
    """Return the weight with which `base` would return its input."""
    weight = torch.zeros_like(base.weight)
    channel = torch.arange(base.out_channels)
    centre = [k // 2 for k in base.kernel_size]
    weight[channel, channel % weight.shape[1], centre[0], centre[1]] = 1
    return weight


def distribution(b: LinearBranch) -> BatchNorm | None:
    """Return the batch norm at the end of a branch, folded or not; None if there is none."""
    if b.bn:
        return BatchNorm.of(b.bn.module)
    return BatchNorm.on(b.conv.node) if b.conv else None


def combine(known: list[BatchNorm], branches: int) -> BatchNorm | None:
    """Add up the distributions of the branches, taken as independent; None if one is unknown."""
    if len(known) < branches:
        return None
    shift = torch.stack([k.shift for k in known]).sum(0)
    scale = torch.stack([k.scale.square() for k in known]).sum(0).sqrt()
    return BatchNorm(shift, scale.square(), scale, shift, eps=0.0)
