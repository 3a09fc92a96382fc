"""What several commands do: find passes, read their names, print."""

import atexit
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from yqc.errors import PipelineError, near

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from yqc.pipeline.registry import Registry
    from yqc.report import Shown


@contextmanager
def importing() -> Iterator[None]:
    """Import what a command needs, and look for garbage neither meanwhile nor in it afterwards.

    What torch, onnx and the rest bring are a million objects that stay.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # extensions complain of what is alive at the very end


def find_passes(load: Iterable[Path] | None) -> "Registry":
    """Find every pass that can be named, those of the given files included."""
    from yqc.pipeline.registry import Registry  # noqa: PLC0415

    registry = Registry.default()
    for path in load or ():
        registry.load_file(path)
    return registry


def pass_names(registry: "Registry", flag: str, text: str) -> list[str]:
    """Read a list of passes, or `all`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name != "all" and name not in registry.found:
            hint = near(name, registry.found) or "; `yqc passes` lists what there is"
            raise PipelineError(f"{flag}: unknown pass {name!r}{hint}")
    return names


def print_tables(*things: "RenderableType") -> None:
    """Print tables on stdout, an empty line between them."""
    from yqc.report import make_console  # noqa: PLC0415

    console = make_console()
    for number, thing in enumerate(things):
        if number:
            console.print()
        console.print(thing, crop=False)


def show(found: "Shown", *, json: bool) -> None:
    """Print what a command found: as tables, or as JSON."""
    echo(found.to_json(), nl=False) if json else print_tables(found)


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print text that may hold names from files; their control characters are escaped."""
    from yqc.report.human import clean_lines  # noqa: PLC0415

    typer.echo(clean_lines(text), nl=nl, err=err)


def print_lines(lines: "Iterable[str | Text]") -> None:
    """Print lines on stdout, control characters escaped; none is broken, however long."""
    from yqc.report import make_console, say  # noqa: PLC0415

    console = make_console()
    for line in lines:
        console.print(say(line) if isinstance(line, str) else line, soft_wrap=True)
