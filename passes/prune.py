"""prune: remove channels that matter least and, with data, train what is left.

Stands for `channel-prune,recover`; without training images for `channel-prune` alone. The options
of channel-prune are passed on. The training is undone if the agreement with the float model falls
below `agreement`, or below what it was before the training where that was less. Another `recover`
later in the pipeline replaces this one, so that nothing is trained twice.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Duration, format_item, format_value
from yqc.pruning import PruningOptions

RECOVERY = Duration(300)
"""Half of it recovers less; double takes longer, and `recover` is there for that."""


@dataclass(frozen=True)
class Prune(PruningOptions, Recipe):
    """Remove the channels that matter least and train what is left."""

    name: ClassVar[str] = "prune"

    recover: Duration = RECOVERY
    """How long to train afterwards, where data is given and no recover follows; 0: no training."""
    recover_steps: int | None = None
    """Batches of 4 of that training instead of a time; the same on every machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recover_steps is not None and self.recover_steps < 1:
            raise ValueError(f"recover_steps must be 1 or above, not {self.recover_steps}")

    def expand(self, given: Given) -> str:
        options = {f.name: getattr(self, f.name) for f in fields(PruningOptions)}
        removal = format_item("channel-prune", PruningOptions(**options))
        if not given.can_train or not (self.recover or self.recover_steps):
            return removal
        length = f"steps={self.recover_steps}" if self.recover_steps else f"time={self.recover}"
        return f"{removal},recover{{{length} batch=4 agreement={format_value(self.agreement)}}}"
