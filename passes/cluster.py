"""cluster: store convolution weights as indices into a small table of values.

    %conv = Conv2d(%x)    ->    %w = yqc.unpack_table(packed, table, scale, shape, bits, block)
                                %b = yqc.dequantize_linear(int16 bias, scale)
                                %conv = conv2d(%x, %w, %b, ...)

1. A layer has one table (or one for so many output channels) and a scale a channel.
2. The table holds k-means centres, weighted by the second moments of the inputs; or it is piecewise
   linear (a dense centre and sparse tails); or zero and powers of two.
3. Rounding is as in pack-int4: error feedback, coordinate descent, least squares for the scales,
   and for the entries of a k-means table too. Then all of these learn together (`learn=0`: not).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import fx

from yqc import Context, Pass
from yqc.quant.weights.apply import Job, pack_layers
from yqc.quant.weights.driver import Settings
from yqc.quant.weights.scheme import Granularity, Rounding, Scheme


@dataclass(frozen=True)
class Cluster(Pass):
    """Store convolution weights as indices into a small table of values."""

    name: ClassVar[str] = "cluster"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    provides: ClassVar[frozenset[str]] = frozenset({"packed"})

    table: Literal["codebook", "pwlq", "pot"] = "codebook"
    """K-means, piecewise linear, or powers of two."""
    bits: int = 4
    """Bits of an index: 2 to 6, or 8."""
    granularity: Granularity = "channel"
    """What shares a scale: the tensor, an output channel, a block of its weights, a kernel."""
    block: int = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    rows: int = 0
    """Output channels that share a k-means table; 0 for one table a layer."""
    rounding: Rounding = "gptq"
    """Nearest, nearest by importance (mse), or with error feedback (gptq)."""
    images: int = 128
    """How many calibration images to look at; fewer if memory does not allow that."""
    learn: int = 2
    """How often to look at half of them again, to learn levels, scales and biases together."""
    damp: float = 0.01
    """Share of the mean second moment that is added to all of them."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def __post_init__(self) -> None:
        if self.bits not in {2, 3, 4, 5, 6, 8}:
            raise ValueError(f"bits must be 2, 3, 4, 5, 6 or 8, not {self.bits}")
        if self.block < 2 or self.images < 1 or not 0 < self.damp <= 1 or self.learn < 0:  # noqa: PLR2004  # a block of one is no block
            raise ValueError("block must be at least 2, images at least 1, damp above 0, at most 1")
        if self.rows < 0:
            raise ValueError("rows must not be negative")

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        scheme = Scheme(self.table, self.bits, self.granularity, self.block, self.rows)
        settings = Settings(rounding=self.rounding, damp=self.damp)
        pack_layers(gm, ctx, Job(scheme, settings, self.images, self.learn, self.skip))
