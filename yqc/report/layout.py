"""Lay out tables for the terminal: no frames, two spaces between columns, no trailing blanks."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from os import environ

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from yqc.report.human import clean, pipeline_steps

HEAD = Style(bold=True)
QUIET = Style(dim=True)
GOOD = Style(color="green")
ALERT = Style(color="yellow")
NAME = 8
"""Least width of the names that stand before words."""
LABEL = 20
"""Least width of the first column of the tables that stand under each other on a page."""
FIGURE = 8
"""Least width of their columns of figures."""


def make_console(*, stderr: bool = False) -> Console:
    """Make the console of a command: results on stdout, diagnostics on stderr.

    Nothing in it is coloured unless it goes to a terminal and `NO_COLOR` is unset, and letters that
    the stream's encoding lacks are escaped instead of failing. Off a terminal lines are 80 wide, or
    `COLUMNS` where that is set.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
    return Console(
        file=stream,
        color_system=None if environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )


def say(text: str, style: Style | str = "") -> Text:
    """Make text without markup and with control characters escaped, folded where needed."""
    return Text(clean(text), style=style, overflow="fold")


def say_unbroken(text: str, style: Style | str = "") -> Text:
    """Make text as `say` does, on one line however long."""
    return Text(clean(text), style=style, no_wrap=True, overflow="ignore")


def columns(*heads: str, words: int = 1, label: int = 0, figure: int = 0) -> Table:
    """Make a table: the first columns hold words, as many as `words` says, the others figures.

    Words are folded where a line would get too long, figures never. The first column is at least
    `label` wide, columns of figures at least `figure`.
    """
    table = Table(
        box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style=HEAD
    )
    for index, head in enumerate(heads):
        figures = index >= words
        table.add_column(
            say(head),
            justify="right" if figures else "left",
            no_wrap=figures,
            overflow="fold",
            min_width=figure if figures else label if index == 0 else None,
        )
    return table


def fields(
    rows: Iterable[tuple[str, RenderableType]], label: int = NAME, style: Style = HEAD
) -> RenderableType:
    """Lay out names and their values, one a line; long values hang."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=style, no_wrap=True, min_width=label)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(say(name), say(value) if isinstance(value, str) else value)
    return Trimmed(table)


def hanging(name: str, text: str) -> RenderableType:
    """Lay out a text behind a name, its further lines under the first."""
    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(say(name), say(text))
    return Trimmed(table)


def indented(*lines: RenderableType, by: int = 2) -> RenderableType:
    """Move lines to the right."""
    return Padding(Group(*lines), (0, 0, 0, by))


@dataclass(frozen=True)
class Trimmed:
    """Something printed without the blanks that rich leaves at the ends of lines."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Print the inner lines, trimmed."""
        for line in console.render_lines(self.inner, options, pad=False):
            while line and not line[-1].text.strip(" "):
                line.pop()
            if line:
                last = line.pop()
                line.append(Segment(last.text.rstrip(" "), last.style))
            yield from line
            yield Segment.line()


@dataclass(frozen=True)
class Filled:
    """Pieces of text that are not broken: each line gets as many of them as fit."""

    pieces: Iterable[str]
    style: Style | str = ""

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Fill line after line."""
        line = say("", self.style)
        for piece in self.pieces:
            word = say(piece)
            if line and line.cell_len + cell_len(piece.rstrip()) > options.max_width:
                yield line
                line = say("", self.style)
            line.append_text(word)
        yield line


def steps(pipeline: str) -> RenderableType:
    """Lay out pipeline text, broken only between passes."""
    return Filled(pipeline_steps(pipeline))


def listing(words: Iterable[str], style: Style | str = "") -> RenderableType:
    """Lay out words with commas between them."""
    *most, last = list(words) or [""]
    return Filled([*(f"{word}, " for word in most), last], style)
