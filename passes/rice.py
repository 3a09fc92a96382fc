"""rice: store convolution weights in codes of variable length; activations stay in float.

Stands for `reparam,fold-bn,dce,pack-rice`; options go to the passes that have them.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Space, format_item
from yqc.quantizing import RiceOptions


@dataclass(frozen=True)
class Rice(RiceOptions, Recipe):
    """Store convolution weights in codes of variable length, within a budget."""

    name: ClassVar[str] = "rice"

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        super().__post_init__()

    @classmethod
    def space(cls) -> Space:
        return Space("weights", {"bits": [4.0, 3.5, 3.0, 2.5]})

    def expand(self, given: Given) -> str:
        return f"reparam,fold-bn,dce,{format_item('pack-rice', self)}"
