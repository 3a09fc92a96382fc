"""fold-bn: absorb an inference-mode batch norm into the convolution before it.

    conv(x) = W*x + b      bn(y) = (y - mean) * s + beta,   s = gamma / sqrt(var + eps)

so bn(conv(x)) is one convolution with W' = W * s and b' = (b - mean) * s + beta.

What was folded stays in `meta["yqc.bn"]` of the convolution, since beta and gamma are the mean and
the standard deviation of its output: ranges can be told from them without data.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yqc import BatchNorm, Call, Context, Pass, callers, chains


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Absorb batch norms into the convolutions before them."""

    name: ClassVar[str] = "fold-bn"
    provides: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    removes: ClassVar[frozenset[str]] = frozenset({"batch-norm"})
    keeps_numbers: ClassVar[bool] = True

    min_var: float = 0.0
    """Leave a batch norm alone if some channel's variance plus eps is at or below this."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for conv, bn in chains(gm, nn.Conv2d, nn.BatchNorm2d):
            if why := self.obstacle(gm, conv, bn):
                ctx.skipped(bn.node, why)
                continue
            gm.set_submodule(conv.target, fuse_conv_bn_eval(conv.module, bn.module))
            bn.node.replace_all_uses_with(conv.node)
            gm.graph.erase_node(bn.node)
            conv.node.meta["yqc.bn"] = BatchNorm.of(bn.module)
            ctx.rewrote(bn.node, f"folded into {conv.node}")

    def obstacle(
        self, gm: fx.GraphModule, conv: Call[nn.Conv2d], bn: Call[nn.BatchNorm2d]
    ) -> str | None:
        """Why this pair must stay as it is, or None if it may be folded."""
        if len(conv.node.users) > 1:
            return f"{conv.node} has other users"
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        if bn.module.running_var is None or bn.module.running_mean is None:
            return "it normalises by batch statistics"
        if bn.module.running_var.min() + bn.module.eps <= self.min_var:
            return f"a channel variance is at or below {self.min_var:g}"
        return None
