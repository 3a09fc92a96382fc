"""Options that the passes of packed weights share with their recipes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from yqc.errors import OptionError
from yqc.pipeline import Bounds, ByteSize, Share
from yqc.quant.weights.scheme import Granularity
from yqc.registered import SCHEMES


@dataclass(frozen=True)
class Int4Options:
    """Options that `pack-int4` shares with the recipe `int4`."""

    scheme: Literal["symmetric", "affine"] = "affine"
    """Whether zero is in the middle of the levels or anywhere among them."""
    granularity: Granularity | Literal["auto"] = "channel"
    """What shares a scale: tensor, output channel, block, kernel; auto: what a budget allows."""
    block: Annotated[int, Bounds(least=2)] = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    mixed: bool = False
    """Whether each layer has 3 to 6 bits, chosen for the least damage within a budget; needs data.
    Runtimes that take fixed widths read such files, unlike those of `rice`."""
    ratio_vs_fp16: Annotated[float, Bounds(least=0)] = 0.0
    """Budget of mixed or granularity=auto: least ratio of float16 parameters to all weights, in
    bytes."""
    bytes: Annotated[int, ByteSize, Bounds(least=0)] = 0
    """Budget of mixed or granularity=auto: bytes of all weights at most, such as 950KB."""
    max_drop: Annotated[float, Share, Bounds(least=0)] = 0.0
    """Budget of mixed or granularity=auto: largest loss of agreement with the float graph, such as
    0.01."""
    spare: Annotated[float, Share, Bounds(least=0, most=1)] = 0.0125
    """Share of bytes to spend on top of this scheme where it helps most; needs data."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""


@dataclass(frozen=True)
class RiceOptions:
    """Options that `pack-rice` shares with the recipe `rice`."""

    ratio_vs_fp16: Annotated[float, Bounds(least=0)] = 0.0
    """Least ratio of the float16 parameters to all weights, in bytes. Without any budget it is 4,
    or 5.5 of the parameters that pruning left where it removed half of them or more."""
    bytes: Annotated[int, ByteSize, Bounds(least=0)] = 0
    """Bytes of the file at most, such as 950KB."""
    bits: Annotated[float, Bounds(least=0, most=12)] = 0.0
    """Bits of a weight's code at most, in the mean over all packed weights, such as 3.5."""
    max_drop: Annotated[float, Share, Bounds(least=0)] = 0.0
    """Largest loss of agreement with the float graph on calibration images, such as 0.01."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def __post_init__(self) -> None:
        given = (self.ratio_vs_fp16, self.bytes, self.bits, self.max_drop)
        if sum(map(bool, given)) > 1:
            raise OptionError("give one budget: ratio_vs_fp16, bytes, bits or max_drop")


@dataclass(frozen=True)
class CodebookOptions:
    """Options that `cluster` shares with the recipe `codebook`."""

    table: Annotated[str, SCHEMES] = "codebook"
    """K-means, piecewise linear, or powers of two."""
    granularity: Granularity = "channel"
    """What shares a scale: the tensor, an output channel, a block of its weights, a kernel."""
    rows: Annotated[int, Bounds(least=0)] = 0
    """Output channels that share a k-means table; 0 for one table a layer."""
    spare: Annotated[float, Share, Bounds(least=0, most=1)] = 0.035
    """Share of bytes to spend on top of this scheme where it helps most; needs data."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""
