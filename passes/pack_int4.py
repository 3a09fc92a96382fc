"""pack-int4: store convolution weights as uniform integers of few bits, two (or more) a byte.

    %conv = Conv2d(%x)    ->    %w = yqc.unpack_uniform(packed, scale, zero, shape, bits, block)
                                %b = yqc.dequantize_linear(int16 bias, scale)
                                %conv = conv2d(%x, %w, %b, ...)

1. With data, layers are rounded in graph order, against inputs from the layers rounded before, so
   that the output changes least (`yqc.quant.weights`): error feedback through the inverse Hessian
   (GPTQ, Frantar et al. 2022), then coordinate descent and least-squares scales by turns. Later
   layers correct for the errors of earlier ones, and biases take up the rest of the mean error.
2. Samples of the inputs are weighted by the relevance of that position of the output.
3. Without data, the second moments of the inputs follow from the batch norms.
4. `granularity=auto` measures the damage of each scheme in each layer, and chooses scheme,
   granularity and bits of the layers for the least damage within a budget (Lagrange). The written
   recipe has the plan.
5. Otherwise a small share of bytes on top, `spare`, goes to the layers where it lowers the damage
   most, as finer scales or eight bits.
6. Scales take two bytes, and so do biases. Activations stay in float.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import fx

from yqc import Context, Pass
from yqc.quant import Rounding, Scheme
from yqc.quantizing import (
    Int4Options,
    PackJob,
    RoundingSettings,
    WeightBudget,
    pack_layers,
    plan_differences,
    read_bytes,
    read_plan_line,
)


@dataclass(frozen=True)
class PackInt4(Int4Options, Pass):
    """Store convolution weights as uniform integers of few bits."""

    name: ClassVar[str] = "pack-int4"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded", "float32"})
    provides: ClassVar[frozenset[str]] = frozenset({"packed"})

    bits: int = 4
    """Bits of a weight: 2 to 6, or 8."""
    rounding: Rounding = "gptq"
    """Nearest, with clipping (mse), with error feedback (gptq), or learned (adaround)."""
    images: int = 128
    """Number of calibration images to use; fewer if memory does not allow that."""
    damp: float = 0.01
    """Share of the mean second moment that is added to all of them."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, model.0.conv:affine.4.block.64, as granularity=auto finds them."""

    def __post_init__(self) -> None:
        if self.bits not in {2, 3, 4, 5, 6, 8}:
            raise ValueError(f"bits must be 2, 3, 4, 5, 6 or 8, not {self.bits}")
        if self.block < 2 or self.images < 1:  # noqa: PLR2004  # a block of one is no block
            raise ValueError("block must be at least 2 and images at least 1")
        if not 0 < self.damp <= 1:
            raise ValueError("damp must be above 0 and at most 1")
        if not 0 <= self.spare <= 1:
            raise ValueError("spare must be between 0 and 1")
        given = sum(map(bool, (self.ratio_vs_fp16, self.bytes, self.max_drop)))
        if given != int(self.granularity == "auto"):
            raise ValueError(
                "granularity=auto goes with one of ratio_vs_fp16=3.9, bytes=950KB, max_drop=0.01"
            )
        if min(self.ratio_vs_fp16, self.max_drop) < 0:
            raise ValueError("ratio_vs_fp16 and max_drop must not be negative")
        for line in self.plan:
            read_plan_line(line)
        if self.bytes:
            read_bytes(self.bytes)

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        auto = self.granularity == "auto"
        granularity = "channel" if self.granularity == "auto" else self.granularity
        size = read_bytes(self.bytes) if self.bytes else 0
        budget = WeightBudget(self.ratio_vs_fp16, size, self.max_drop) if auto else None
        base = Scheme(self.scheme, self.bits, granularity, self.block)
        job = PackJob(
            base,
            RoundingSettings(rounding=self.rounding, damp=self.damp),
            images=self.images,
            skip=self.skip,
            plan=self.plan,
            budget=budget or (WeightBudget(spare=self.spare) if self.spare else None),
        )
        plan = pack_layers(gm, ctx, job)
        if auto or plan_differences(plan, base):
            ctx.chose(
                replace(
                    self,
                    granularity=granularity,
                    ratio_vs_fp16=0.0,
                    bytes="",
                    max_drop=0.0,
                    spare=0.0,
                    plan=plan if auto else plan_differences(plan, base),
                )
            )
