"""relu: swap the activations for ReLU, without labels, and train what is left of the error.

Stands for `swap-activation,recover`. The options of swap-activation are passed on, `to` among them.
The training is undone if fewer detections agree with the float model's after it than before.
Another `recover` later in the pipeline replaces this one, and this one an earlier recipe's, so that
nothing is trained twice.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Space, format_item
from yqc.swapping import SwapOptions
from yqc.training import RecoveryOptions


@dataclass(frozen=True)
class Relu(RecoveryOptions, SwapOptions, Recipe):
    """Swap the activations for ReLU and train what is left of the error."""

    name: ClassVar[str] = "relu"

    @classmethod
    def space(cls) -> Space:
        return Space("activations", fixed={"recover": 0})

    def expand(self, given: Given) -> str:
        options = {f.name: getattr(self, f.name) for f in fields(SwapOptions)}
        swap = format_item("swap-activation", SwapOptions(**options))
        return self.then_recover(swap, given, 1)
