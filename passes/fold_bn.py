"""fold-bn: absorb an inference-mode batch norm into the convolution before it.

    conv(x) = W*x + b      bn(y) = (y - mean) * s + beta,   s = gamma / sqrt(var + eps)

so bn(conv(x)) is one convolution with W' = W * s and b' = (b - mean) * s + beta.

The batch norm stays as a `BatchNorm` mark on the convolution: beta and gamma are the mean and the
standard deviation of its output, from which ranges follow without data.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from yqc import BatchNorm, Call, Context, Pass, State, callers
from yqc.graph import fold_conv_bn
from yqc.rewrite import module, rewrite_all, var

CONV_BN = module(nn.BatchNorm2d, module(nn.Conv2d, var("x"), name="conv"), name="bn")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Absorb batch norms into the convolutions before them."""

    name: ClassVar[str] = "fold-bn"
    provides: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED})
    removes: ClassVar[frozenset[str]] = frozenset({State.BATCH_NORM})
    keeps_numbers: ClassVar[bool] = True

    min_var: float = 0.0
    """Leave a batch norm alone if some channel's variance plus eps is at or below this."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        rewrite_all(gm, ctx, CONV_BN, self.fold, check=self.obstacle, what="folded into {conv}")

    def fold(self, gm: fx.GraphModule, conv: Call[nn.Conv2d], bn: Call[nn.BatchNorm2d]) -> fx.Node:
        """Replace both by one convolution."""
        gm.set_submodule(conv.target, fold_conv_bn(conv.module, bn.module))
        BatchNorm.of(bn.module).put(conv.node)
        return conv.node

    def obstacle(
        self, gm: fx.GraphModule, conv: Call[nn.Conv2d], bn: Call[nn.BatchNorm2d]
    ) -> str | None:
        """Return why this pair must stay as it is, or None if it may be folded."""
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        if bn.module.running_var is None or bn.module.running_mean is None:
            return "it normalises by batch statistics"
        if bn.module.running_var.min() + bn.module.eps <= self.min_var:
            return f"a channel variance is at or below {self.min_var:g}"
        return None
