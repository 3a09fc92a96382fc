"""fp16: store weights and compute in half precision; the decoding, inputs and outputs stay float32.

Stands for `reparam,fold-bn,dce,half`; the options are those of `half`.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Count, Space, format_item


@dataclass(frozen=True)
class Fp16(Recipe):
    """Store weights and compute in half precision."""

    name: ClassVar[str] = "fp16"

    skip: tuple[str, ...] = ()
    """Modules to leave in float32: their paths, * as a wildcard."""
    images: Count = 8
    """Number of calibration images to measure on."""

    @classmethod
    def space(cls) -> Space:
        return Space("weights")

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('half', self)}"
