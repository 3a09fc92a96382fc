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
from typing import Annotated, ClassVar, Literal

from torch import fx

from yqc import Context, Pass, State
from yqc.pipeline import Bounds, Count, Share, Stage, Workload
from yqc.quant import Rounding, Scheme
from yqc.quantizing import (
    CodebookOptions,
    PackJob,
    RoundingSettings,
    WeightBudget,
    foresee_rounding,
    pack_layers,
    plan_differences,
    read_plan_line,
)


@dataclass(frozen=True)
class Cluster(CodebookOptions, Pass):
    """Store convolution weights as indices into a small table of values."""

    name: ClassVar[str] = "cluster"
    reads_images: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED, State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    provides: ClassVar[frozenset[str]] = frozenset({State.PACKED})

    bits: Literal[2, 3, 4, 5, 6, 8] = 4
    """Bits of an index: 2 to 6, or 8."""
    block: Annotated[int, Bounds(least=2)] = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    rounding: Rounding = "gptq"
    """Nearest, weighted by moments (mse), with error feedback (gptq), or learned (adaround)."""
    images: Count = 128
    """Number of calibration images to use; fewer if memory does not allow that."""
    damp: Annotated[float, Share, Bounds(above=0, most=1)] = 0.01
    """Share of the mean second moment that is added to all of them."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, such as model.0.conv:codebook.4.channel.rows.8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for line in self.plan:
            read_plan_line(line)

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        return foresee_rounding(work) if work.images else ()

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
