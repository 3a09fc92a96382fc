"""codebook: store convolution weights as four-bit indices into tables; activations stay in float.

Stands for `reparam,fold-bn,dce,cluster`; options go to the passes that have them.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Space, format_item
from yqc.quantizing import CodebookOptions


@dataclass(frozen=True)
class Codebook(CodebookOptions, Recipe):
    """Store convolution weights as four-bit indices into tables."""

    name: ClassVar[str] = "codebook"

    @classmethod
    def space(cls) -> Space:
        return Space("weights")

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('cluster', self)}"
