"""The command line. Results go to stdout, progress and diagnostics to stderr."""

import sys
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from yqc import __version__
from yqc.commands import (
    caching,
    comparing,
    compiling,
    linting,
    looking,
    measuring,
    sweeping,
    tuning,
)
from yqc.commands.common import echo
from yqc.commands.group import Commands
from yqc.commands.process import INTERRUPTED, OVER_BUDGET, TERMINATED, guard, leave
from yqc.errors import BudgetError, YqcError, first_line
from yqc.settings import SettingError

USAGE = 2
"""Exit status where the command line itself is wrong."""

app = typer.Typer(
    name="yqc",
    help="Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out.",
    no_args_is_help=True,
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(*, asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def _help_json(*, asked: bool) -> None:
    if asked:
        from yqc.commands.help_json import describe_commands  # noqa: PLC0415
        from yqc.report.contract import to_json  # noqa: PLC0415

        echo(to_json(describe_commands(app, __version__)), nl=False)
        raise typer.Exit


@app.callback()
def common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
    help_json: Annotated[
        bool,
        typer.Option(
            "--help-json", help="Print all help as JSON.", is_eager=True, callback=_help_json
        ),
    ] = False,
) -> None:
    """Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out."""
    del debug  # main() looks for it before anything is parsed, so that it may stand anywhere
    del version, help_json  # their callbacks have ended the process


for _name, _command in (
    ("compile", compiling.compile_command),
    ("tune", tuning.tune_command),
    ("sweep", sweeping.sweep_command),
    ("compare", comparing.compare_command),
    ("eval", measuring.eval_command),
    ("passes", looking.passes_command),
    ("inspect", looking.inspect_command),
    ("diff", looking.diff_command),
    ("explain", looking.explain_command),
    ("new-pass", looking.new_pass_command),
    ("lint", linting.lint_command),
    ("bench", measuring.bench_command),
    ("replay", measuring.replay_command),
    ("cache", caching.cache_command),
):
    app.command(_name)(_command)


@app.command("version")
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def run() -> NoReturn:
    """Run the command line as a process."""
    guard()
    try:
        main()
    except SystemExit as stop:
        leave(stop.code)
    leave(0)


def main() -> None:
    """Run the command line: exit status 0, 1 (one message), 2 for usage, 3 over a budget."""
    debugging = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(prog_name="yqc")
    except SystemExit as stop:
        if stop.code in {INTERRUPTED, TERMINATED}:
            kept = "; ".join(notes_of(stop)) or "nothing was written"
            echo(f"yqc: interrupted; {kept}", err=True)
        raise
    except Exception as error:
        if debugging:
            raise
        echo(f"yqc: {describe_error(error)}", err=True)
        sys.exit(exit_status(error))


def exit_status(error: Exception) -> int:
    """Return the exit status that says what kind of error ended the process."""
    if isinstance(error, BudgetError):
        return OVER_BUDGET
    return USAGE if isinstance(error, SettingError) else 1


def describe_error(error: Exception) -> str:
    """Say in a line what failed; what no one foresaw is called a fault of yqc's."""
    if isinstance(error, YqcError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({first_line(error)})"
    if isinstance(error, OSError):
        return f"{error}"
    kind = type(error).__name__
    return f"a fault of yqc's: {kind}: {first_line(error)}; --debug shows where, please report it"


def notes_of(error: BaseException | None) -> Iterator[str]:
    """Yield the notes of an error and of those that it came from."""
    while error is not None:
        yield from getattr(error, "__notes__", ())
        error = error.__cause__ or error.__context__
