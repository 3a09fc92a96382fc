"""int4: store convolution weights as uniform four-bit integers; activations stay in float.

Stands for `reparam,fold-bn,dce,pack-int4`; options go to the passes that have them.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Space, format_item
from yqc.quantizing import Int4Options


@dataclass(frozen=True)
class Int4(Int4Options, Recipe):
    """Store convolution weights as uniform four-bit integers."""

    name: ClassVar[str] = "int4"

    @classmethod
    def space(cls) -> Space:
        return Space("weights")

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('pack-int4', self)}"
