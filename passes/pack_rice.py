"""pack-rice: store convolution weights as integers in codes of variable length, within a budget.

    %conv = Conv2d(%x)  ->  %w = yqc.unpack_rice(packed, scale, exponents, shape, low, planes)
                            %b = yqc.dequantize_linear(int16 bias, scale)
                            %conv = conv2d(%x, %w, %b, ...)

1. Weights are rounded to a fine uniform grid. Frequent integers, the small ones, get short codes
   (`yqc.quant.weights.rice`), so a weight takes about the entropy of its integers.
2. A layer's step, and within it a channel's, follows from one price on bits, by the relevance of
   its outputs and the variance of its inputs: the damage that a further byte would save is equal
   everywhere.
3. Rounding weighs damage against the length of codes, with error feedback through the inverse
   Hessian (GPTQ, Frantar et al. 2022) and one sweep of coordinate descent. Later layers correct for
   the errors of earlier ones, and biases take up the rest of the mean error.
4. The price is found for the budget, which is never exceeded. It counts all bytes: of codes, steps
   (two bytes a layer, four bits a channel), biases and what stays as it is.
5. Without data, the second moments of the inputs follow from the batch norms, and layers count by
   their relative error.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import fx

from yqc import Context, Pass, State
from yqc.emit import emit, weight_bytes
from yqc.pipeline import Bounds, Count, Share, Stage, Workload
from yqc.quantizing import (
    RiceJob,
    RiceOptions,
    RoundingSettings,
    foresee_rounding,
    pack_rice_layers,
)

METADATA = 2048
"""Bytes of the file that are kept free for metadata: those of 80 class names take 1.3 KB."""


@dataclass(frozen=True)
class PackRice(RiceOptions, Pass):
    """Store convolution weights in codes of variable length."""

    name: ClassVar[str] = "pack-rice"
    reads_images: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({State.BN_FOLDED, State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    provides: ClassVar[frozenset[str]] = frozenset({State.PACKED})

    images: Count = 48
    """Number of calibration images to use; fewer if memory does not allow that."""
    damp: Annotated[float, Share, Bounds(above=0, most=1)] = 0.01
    """Share of the mean second moment that is added to all of them."""

    def __post_init__(self) -> None:
        Pass.__post_init__(self)
        super().__post_init__()

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        return foresee_rounding(work, first="measuring inputs") if work.images else ()

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        def measure(graph: fx.GraphModule) -> int:
            """Count the bytes of the file that a graph becomes, as the budget counts them."""
            model = emit(copy.deepcopy(graph), target=ctx.target)
            return model.ByteSize() + METADATA if self.bytes else weight_bytes(model)

        settings = RoundingSettings(damp=self.damp)
        pack_rice_layers(gm, ctx, RiceJob(self, settings, self.images, measure))
