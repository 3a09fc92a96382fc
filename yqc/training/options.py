"""The options of recipes that train what a change of the graph has left."""

from dataclasses import dataclass
from typing import Annotated

from yqc.pipeline import Count, Duration, format_value
from yqc.pipeline.base import Given

RECOVERY = Duration(300)
"""Half of it recovers less; double takes longer, and `recover` is there for that."""


@dataclass(frozen=True)
class RecoveryOptions:
    """How long a recipe trains behind its own pass."""

    recover: Annotated[float, Duration] = RECOVERY
    """How long to train afterwards, where data is given and no recover follows; 0: no training."""
    recover_steps: Count | None = None
    """Batches of 4 of that training instead of a time; the same on every machine."""

    def then_recover(self, passes: str, given: Given, agreement: float) -> str:
        """Return pipeline text with the training behind passes, if there is to be one."""
        if not given.can_train or not (self.recover or self.recover_steps):
            return passes
        length = (
            f"steps={self.recover_steps}"
            if self.recover_steps
            else f"time={format_value(self.recover)}"
        )
        return f"{passes},recover{{{length} batch=4 agreement={format_value(agreement)}}}"
