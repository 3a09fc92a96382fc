"""codebook: store convolution weights as four-bit indices into tables; activations stay in float.

Stands for `reparam,fold-bn,dce,cluster`; options go to the passes that have them.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from yqc import Given, Recipe
from yqc.pipeline import format_item
from yqc.quant import Granularity


@dataclass(frozen=True)
class CodebookRecipe(Recipe):
    """Store convolution weights as four-bit indices into tables."""

    name: ClassVar[str] = "codebook"

    table: Literal["codebook", "pwlq", "pot"] = "codebook"
    """K-means, piecewise linear, or powers of two."""
    granularity: Granularity = "channel"
    """What shares a scale: the tensor, an output channel, a block of its weights, a kernel."""
    rows: int = 0
    """Output channels that share a k-means table; 0 for one table a layer."""
    spare: float = 0.035
    """Share of bytes to spend on top of this scheme where it helps most; needs data."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('cluster', self)}"
