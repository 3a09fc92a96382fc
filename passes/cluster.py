"""cluster: store convolution weights as indices into a small table of values.

    %conv = Conv2d(%x)    ->    %w = yqc.unpack_table(packed, table, scale, shape, bits, block)
                                %b = yqc.dequantize_linear(int16 bias, scale)
                                %conv = conv2d(%x, %w, %b, ...)

1. A layer has one table (or one for every `rows` output channels) and a scale a channel.
2. The table holds k-means centres, weighted by the second moments of the inputs and by the
   relevance of the channels, and improved by turns with the scales; or it is piecewise linear (a
   dense centre and sparse tails); or zero and powers of two.
3. Rounding is as in pack-int4: error feedback, coordinate descent, least squares for the scales,
   and for the entries of a k-means table too.
4. A small share of bytes on top, `spare`, goes to the layers where it lowers the damage to the
   detections most: more tables, scales of blocks, or eight bits.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import fx

from yqc import Context, Pass
from yqc.quant import Rounding, Scheme
from yqc.quantizing import (
    CodebookOptions,
    PackJob,
    RoundingSettings,
    WeightBudget,
    pack_layers,
    plan_differences,
    read_plan_line,
)


@dataclass(frozen=True)
class Cluster(CodebookOptions, Pass):
    """Store convolution weights as indices into a small table of values."""

    name: ClassVar[str] = "cluster"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded", "float32"})
    provides: ClassVar[frozenset[str]] = frozenset({"packed"})

    bits: int = 4
    """Bits of an index: 2 to 6, or 8."""
    block: int = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    rounding: Rounding = "gptq"
    """Nearest, weighted by moments (mse), with error feedback (gptq), or learned (adaround)."""
    images: int = 128
    """Number of calibration images to use; fewer if memory does not allow that."""
    damp: float = 0.01
    """Share of the mean second moment that is added to all of them."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, such as model.0.conv:codebook.4.channel.rows.8."""

    def __post_init__(self) -> None:
        if self.bits not in {2, 3, 4, 5, 6, 8}:
            raise ValueError(f"bits must be 2, 3, 4, 5, 6 or 8, not {self.bits}")
        if self.block < 2 or self.images < 1 or not 0 < self.damp <= 1:  # noqa: PLR2004  # a block of one is no block
            raise ValueError("block must be at least 2, images at least 1, damp above 0, at most 1")
        if self.rows < 0:
            raise ValueError("rows must not be negative")
        if not 0 <= self.spare <= 1:
            raise ValueError("spare must be between 0 and 1")
        for line in self.plan:
            read_plan_line(line)

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        scheme = Scheme(self.table, self.bits, self.granularity, self.block, self.rows)
        job = PackJob(
            scheme,
            RoundingSettings(rounding=self.rounding, damp=self.damp),
            images=self.images,
            skip=self.skip,
            plan=self.plan,
            budget=WeightBudget(spare=self.spare) if self.spare else None,
        )
        if plan := plan_differences(pack_layers(gm, ctx, job), scheme):
            ctx.chose(replace(self, spare=0.0, plan=plan))
