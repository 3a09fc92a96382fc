"""codebook: store convolution weights as four-bit indices into tables; activations stay in float.

Stands for `reparam,fold-bn,dce,cluster`; options are handed on.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from yqc import Recipe
from yqc.options import show


@dataclass(frozen=True)
class CodebookRecipe(Recipe):
    """Store convolution weights as four-bit indices into tables."""

    name: ClassVar[str] = "codebook"

    table: Literal["codebook", "pwlq", "pot"] = "codebook"
    """K-means, piecewise linear, or powers of two."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def expand(self) -> str:
        return f"reparam,fold-bn,dce,{show('cluster', self)}"
