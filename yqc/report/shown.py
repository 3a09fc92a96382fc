"""Data that shows itself: in a terminal as tables, in a notebook too, and as JSON."""

import functools
import io
from collections.abc import Iterator
from html import escape

from rich.console import Console, ConsoleOptions, RenderableType

from yqc.report import contract


@functools.singledispatch
def render(value: object) -> RenderableType:
    """Return the tables that show a value; registered by kind, beside the tables."""
    raise TypeError(f"{type(value).__name__} has no tables")


class Shown:
    """What a command finds: `print` shows its tables, `to_dict` gives what `--json` prints."""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Show the tables."""
        yield render(self)

    def __str__(self) -> str:
        """Print the tables, 80 columns wide or as `COLUMNS` says."""
        stream = io.StringIO()
        Console(file=stream, highlight=False, markup=False, emoji=False).print(self, crop=False)
        return stream.getvalue().removesuffix("\n")

    def _repr_html_(self) -> str:
        """Show the tables in a notebook."""
        return f'<pre style="line-height: 1.3; overflow-x: auto">{escape(str(self))}</pre>'

    def to_dict(self) -> contract.Json:
        """Return what `--json` prints, as plain values."""
        return contract.to_plain(self)

    def to_json(self) -> str:
        """Print it as `--json` does."""
        return contract.to_json(self.to_dict())
