"""slim: remove channels, then train what is left to answer as before.

Stands for `prune,recover`; options are handed on.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from yqc import Given, Recipe
from yqc.pipeline import Bounds, Count, Duration, Share, format_value


@dataclass(frozen=True)
class Slim(Recipe):
    """Remove channels, then train what is left."""

    name: ClassVar[str] = "slim"

    ratio: Annotated[float | None, Share, Bounds(above=0, below=1)] = None
    """Share to remove; prune chooses by itself where nothing is said."""
    of: Literal["params", "channels", "macs"] = "params"
    """What the ratio is a share of."""
    time: Annotated[float | None, Duration, Bounds(above=0)] = None
    """How long to train, such as 10m."""
    steps: Count | None = None
    """Batches to train on, instead of a time."""

    def expand(self, given: Given) -> str:
        amount = "" if self.ratio is None else f"{{ratio={format_value(self.ratio)} of={self.of}}}"
        options = {"time": self.time, "steps": self.steps}
        length = " ".join(f"{k}={format_value(v)}" for k, v in options.items() if v is not None)
        return f"prune{amount},recover{{{length}}}"
