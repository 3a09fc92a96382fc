"""prune: remove channels that matter least and, with data, train what is left.

Stands for `channel-prune,recover`; without training images for `channel-prune` alone. The options
of channel-prune are passed on. The training is undone if the agreement with the float model falls
below `agreement`, or below what it was before the training where that was less. Another `recover`
later in the pipeline replaces this one, so that nothing is trained twice.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Space, format_item
from yqc.pruning import PruningOptions
from yqc.training import RecoveryOptions


@dataclass(frozen=True)
class Prune(RecoveryOptions, PruningOptions, Recipe):
    """Remove the channels that matter least and train what is left."""

    name: ClassVar[str] = "prune"

    @classmethod
    def space(cls) -> Space:
        return Space(
            "channels",
            {"ratio": [0.3, 0.5, 0.7, 0.8, 0.9], "of": ["params", "macs"]},
            {"recover": 0},
        )

    def expand(self, given: Given) -> str:
        options = {f.name: getattr(self, f.name) for f in fields(PruningOptions)}
        removal = format_item("channel-prune", PruningOptions(**options))
        return self.then_recover(removal, given, self.agreement)
