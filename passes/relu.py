"""relu: swap the activations for ReLU, without labels, and train what is left of the error.

Stands for `swap-activation,recover`. The options of swap-activation are passed on, `to` among them.
The training is undone if fewer detections agree with the float model's after it than before.
Another `recover` later in the pipeline replaces this one, and this one an earlier recipe's, so that
nothing is trained twice.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Duration, format_item
from yqc.swapping import SwapOptions

RECOVERY = Duration(300)
"""Half of it recovers less; double takes longer, and `recover` is there for that."""


@dataclass(frozen=True)
class Relu(SwapOptions, Recipe):
    """Swap the activations for ReLU and train what is left of the error."""

    name: ClassVar[str] = "relu"

    recover: Duration = RECOVERY
    """How long to train afterwards, where no recover follows; 0: no training."""
    recover_steps: int | None = None
    """Batches of 4 of that training instead of a time; the same on every machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recover_steps is not None and self.recover_steps < 1:
            raise ValueError(f"recover_steps must be 1 or above, not {self.recover_steps}")

    def expand(self, given: Given) -> str:
        options = {f.name: getattr(self, f.name) for f in fields(SwapOptions)}
        swap = format_item("swap-activation", SwapOptions(**options))
        if not given.can_train or not (self.recover or self.recover_steps):
            return swap
        length = f"steps={self.recover_steps}" if self.recover_steps else f"time={self.recover}"
        return f"{swap},recover{{{length} batch=4 agreement=1}}"
