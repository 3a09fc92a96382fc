"""What long work reports to: a protocol, and the silent form that library users get by default."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows how far long work has come.

    >>> with progress.task("evaluating", total=128) as advance:
    ...     advance(1)
    """

    def task(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        ...

    def note(self, message: str) -> None:
        """Show one line of information."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:  # the protocol's
        """Accept the steps and forget them."""
        yield lambda _: None

    def note(self, message: str) -> None:
        """Forget the message."""
