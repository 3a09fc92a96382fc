"""What long work reports to: a protocol, and the silent form that library users get by default."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows how far long work has come.

    >>> with progress.task("evaluating", total=128) as advance:
    ...     advance(1)

    One that has a method `expect` is told the stages of the work beforehand; see `expect`.
    """

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        ...

    def note(self, message: str) -> None:
        """Show one line of information."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of long work that is foreseen: a task, and how long it takes."""

    label: str
    """Of the task, that of the one around it before a slash: `calibrate/calibrating`."""
    seconds: float
    """As measured on one machine; on another one all stages take as many times as long."""
    fixed: bool = False
    """Whether it takes so many seconds on any machine, since that was asked."""


def expect(progress: Progress, stages: Sequence[Stage], past: float = 0.0) -> None:
    """Announce the stages of a work, in order, where progress can use that.

    A stage that does not come is passed over as soon as a later one begins. `past` are the foreseen
    seconds of what was done before.
    """
    announce = getattr(progress, "expect", None)
    if announce is not None:
        announce(stages, past)


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:  # the protocol's
        """Accept the steps and forget them."""
        yield lambda _: None

    def note(self, message: str) -> None:
        """Forget the message."""
