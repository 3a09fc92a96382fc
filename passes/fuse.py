"""fuse: one convolution wherever inference allows it, and nothing left that does nothing.

Stands for `reparam,fold-bn,dce`; exact up to float rounding.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc import Given, Recipe


@dataclass(frozen=True)
class Fuse(Recipe):
    """Re-parameterise, fold batch norms, drop what does nothing."""

    name: ClassVar[str] = "fuse"

    def expand(self, given: Given) -> str:
        return "reparam,fold-bn,dce"
