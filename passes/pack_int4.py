"""pack-int4: store convolution weights as uniform integers of few bits, two (or more) a byte.

    %conv = Conv2d(%x)    ->    %w = yqc.unpack_uniform(packed, scale, zero, shape, bits, block)
                                %b = yqc.dequantize_linear(int16 bias, scale)
                                %conv = conv2d(%x, %w, %b, ...)

1. With data, layers are rounded in graph order, against inputs from what is rounded already, so
   that the output changes least (`yqc.quant.weights`): error feedback through the inverse Hessian
   (GPTQ, Frantar et al. 2022), then coordinate descent and least-squares scales by turns. Earlier
   layers' errors are made up for, and biases take up what is left of the mean error.
2. Samples of the inputs count by how much the detections depend on that position of the output.
3. Without data, the second moments of the inputs follow from the batch norms.
4. Scales take two bytes, and so do biases. Activations stay in float.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import fx

from yqc import Context, Pass
from yqc.quant.weights.apply import pack_layers
from yqc.quant.weights.driver import Settings
from yqc.quant.weights.scheme import Granularity, Rounding, Scheme


@dataclass(frozen=True)
class PackInt4(Pass):
    """Store convolution weights as uniform integers of few bits."""

    name: ClassVar[str] = "pack-int4"
    requires: ClassVar[frozenset[str]] = frozenset({"bn-folded"})
    provides: ClassVar[frozenset[str]] = frozenset({"packed"})

    scheme: Literal["symmetric", "affine"] = "affine"
    """Whether zero is in the middle of the levels or anywhere among them."""
    bits: int = 4
    """Bits of a weight: 2 to 6, or 8."""
    granularity: Granularity = "channel"
    """What shares a scale: the tensor, an output channel, a block of its weights, a kernel."""
    block: int = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    rounding: Rounding = "gptq"
    """Nearest, nearest with clipping (mse), or with error feedback (gptq)."""
    images: int = 128
    """How many calibration images to look at; fewer if memory does not allow that."""
    learn: int = 0
    """How often to look at all of them again, to learn levels, scales and biases together."""
    damp: float = 0.01
    """Share of the mean second moment that is added to all of them."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def __post_init__(self) -> None:
        if self.bits not in {2, 3, 4, 5, 6, 8}:
            raise ValueError(f"bits must be 2, 3, 4, 5, 6 or 8, not {self.bits}")
        if self.block < 2 or self.images < 1 or not 0 < self.damp <= 1 or self.learn < 0:  # noqa: PLR2004  # a block of one is no block
            raise ValueError("block must be at least 2, images at least 1, damp above 0, at most 1")

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        scheme = Scheme(self.scheme, self.bits, self.granularity, self.block)
        settings = Settings(rounding=self.rounding, damp=self.damp)
        pack_layers(gm, ctx, scheme, settings, images=self.images, learn=self.learn, skip=self.skip)
