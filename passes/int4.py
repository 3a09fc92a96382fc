"""int4: store convolution weights as uniform four-bit integers; activations stay in float.

Stands for `reparam,fold-bn,dce,pack-int4`; options go to the passes that have them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from yqc import Given, Recipe
from yqc.pipeline import format_item
from yqc.quant import Granularity


@dataclass(frozen=True)
class Int4Recipe(Recipe):
    """Store convolution weights as uniform four-bit integers."""

    name: ClassVar[str] = "int4"

    scheme: Literal["symmetric", "affine"] = "affine"
    """Whether zero is in the middle of the levels or anywhere among them."""
    granularity: Granularity | Literal["auto"] = "channel"
    """What shares a scale: tensor, output channel, block, kernel; auto: what a budget allows."""
    block: int = 64
    """Consecutive weights of a channel that share a scale, for granularity=block."""
    ratio_vs_fp16: float = 0.0
    """For granularity=auto: least ratio of the float16 parameters to all weights, in bytes."""
    bytes: str = ""
    """For granularity=auto: bytes of all weights at most, such as 950KB."""
    max_drop: float = 0.0
    """For granularity=auto: largest loss of agreement with the float graph, such as 0.01."""
    spare: float = 0.0125
    """Share of bytes to spend on top of this scheme where it helps most; needs data."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('pack-int4', self)}"
