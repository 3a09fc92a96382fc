"""The options of recipes that train what a change of the graph has left."""

from dataclasses import dataclass

from yqc.pipeline.base import Given
from yqc.pipeline.options import Duration, format_value

RECOVERY = Duration(300)
"""Half of it recovers less; double takes longer, and `recover` is there for that."""


@dataclass(frozen=True)
class RecoveryOptions:
    """How long a recipe trains behind its own pass.

    Raises:
        ValueError: an option is out of range.
    """

    recover: Duration = RECOVERY
    """How long to train afterwards, where data is given and no recover follows; 0: no training."""
    recover_steps: int | None = None
    """Batches of 4 of that training instead of a time; the same on every machine."""

    def __post_init__(self) -> None:
        if self.recover_steps is not None and self.recover_steps < 1:
            raise ValueError(f"recover_steps must be 1 or above, not {self.recover_steps}")

    def then_recover(self, passes: str, given: Given, agreement: float) -> str:
        """Return pipeline text with the training behind passes, if there is to be one."""
        if not given.can_train or not (self.recover or self.recover_steps):
            return passes
        length = f"steps={self.recover_steps}" if self.recover_steps else f"time={self.recover}"
        return f"{passes},recover{{{length} batch=4 agreement={format_value(agreement)}}}"
