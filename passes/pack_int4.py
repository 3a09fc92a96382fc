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
6. `mixed` measures the damage of 3 to 6 bits in each layer, and chooses among them in the same way.
7. Scales take two bytes, and so do biases. Activations stay in float.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from torch import fx

from yqc import Context, Pass, State
from yqc.errors import OptionError, PassError
from yqc.pipeline import Bounds, Count, Share, Stage, Workload
from yqc.quant import QuantizedLayer, Rounding, Scheme
from yqc.quantizing import (
    Int4Options,
    PackJob,
    RoundingSettings,
    WeightBudget,
    foresee_rounding,
    pack_layers,
    plan_differences,
    read_plan_line,
)

MIXED = (3, 4, 5, 6)
"""Bits of a mixed layer. On yolov5n in 956 KB they do a damage of 0.19, four bits in every layer of
0.70. With 2 or 8 bits besides was not measured; both are among the choices of granularity=auto."""


@dataclass(frozen=True)
class PackInt4(Int4Options, Pass):
    """Store convolution weights as uniform integers of few bits."""

    name: ClassVar[str] = "pack-int4"
    reads_images: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED, State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    provides: ClassVar[frozenset[str]] = frozenset({State.PACKED})

    bits: Literal[2, 3, 4, 5, 6, 8] = 4
    """Bits of a weight: 2 to 6, or 8."""
    rounding: Rounding = "gptq"
    """Nearest, with clipping (mse), with error feedback (gptq), or learned (adaround)."""
    images: Count = 128
    """Number of calibration images to use; fewer if memory does not allow that."""
    damp: Annotated[float, Share, Bounds(above=0, most=1)] = 0.01
    """Share of the mean second moment that is added to all of them."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, model.0.conv:affine.4.block.64, as granularity=auto finds them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        auto = self.granularity == "auto"
        if auto and self.mixed:
            raise OptionError("granularity=auto chooses the bits, too; leave out mixed or auto")
        given = sum(map(bool, (self.ratio_vs_fp16, self.bytes, self.max_drop)))
        if given != int(auto or self.mixed):
            raise OptionError(
                "granularity=auto and mixed=true go with one of ratio_vs_fp16=3.9, bytes=950KB, "
                "max_drop=0.01"
            )
        for line in self.plan:
            read_plan_line(line)

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        return foresee_rounding(work) if work.images else ()

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        granularity = "channel" if self.granularity == "auto" else self.granularity
        auto = self.granularity == "auto" or self.mixed
        base = Scheme(self.scheme, self.bits, granularity, self.block)
        budget = WeightBudget(self.ratio_vs_fp16, self.bytes, self.max_drop) if auto else None
        if budget and self.mixed:
            budget = replace(budget, schemes=self.mixed_schemes(base, ctx))
        job = PackJob(
            base,
            RoundingSettings(rounding=self.rounding, damp=self.damp),
            images=self.images,
            skip=self.skip,
            plan=self.plan,
            budget=budget or (WeightBudget(spare=self.spare) if self.spare else None),
        )
        plan = pack_layers(gm, ctx, job)
        if self.mixed:
            ctx.says(f"{mean_code_bits(gm):.2f} bits a weight in the mean")
        if auto or plan_differences(plan, base):
            ctx.chose(
                replace(
                    self,
                    granularity=granularity,
                    mixed=False,
                    ratio_vs_fp16=0.0,
                    bytes=0,
                    max_drop=0.0,
                    spare=0.0,
                    plan=plan if auto else plan_differences(plan, base),
                )
            )

    def mixed_schemes(self, base: Scheme, ctx: Context) -> tuple[Scheme, ...]:
        """Return the schemes of `mixed` layers.

        Raises:
            PassError: the target decodes no two of their widths.
        """
        kept = [bits for bits in MIXED if bits in ctx.rules.code_bits]
        if len(kept) < 2:  # noqa: PLR2004  # nothing to choose from
            known = ", ".join(map(str, ctx.rules.code_bits))
            raise PassError(
                f"mixed=true chooses among 3, 4, 5 and 6 bits, and {ctx.target} decodes weights of "
                f"{known} bits only; leave mixed out, or choose another --target"
            )
        return tuple(replace(base, bits=bits) for bits in kept)


def mean_code_bits(gm: fx.GraphModule) -> float:
    """Return the bits of a quantized weight in the mean over a graph, without scales."""
    marks = [mark for node in gm.graph.nodes if (mark := QuantizedLayer.on(node))]
    weights = sum(math.prod(mark.shape) for mark in marks)
    return sum(mark.weight_bits * math.prod(mark.shape) for mark in marks) / max(1, weights)
