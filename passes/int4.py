"""int4: store convolution weights as uniform four-bit integers; activations stay in float.

Stands for `reparam,fold-bn,dce,pack-int4`; options are handed on.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from yqc import Recipe
from yqc.options import show


@dataclass(frozen=True)
class Int4Recipe(Recipe):
    """Store convolution weights as uniform four-bit integers."""

    name: ClassVar[str] = "int4"

    scheme: Literal["symmetric", "affine"] = "affine"
    """Whether zero is in the middle of the levels or anywhere among them."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their module paths, with * as a wildcard."""

    def expand(self) -> str:
        return f"reparam,fold-bn,dce,{show('pack-int4', self)}"
