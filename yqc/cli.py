"""The command line. Results go to stdout, progress and diagnostics to stderr."""

import contextlib
import os
import sys
from typing import Annotated

import typer

from yqc import __version__
from yqc.commands import compiling, linting, looking, measuring
from yqc.commands.common import echo
from yqc.errors import YqcError

app = typer.Typer(
    name="yqc",
    help="Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


INTERRUPTED = 130


@app.callback()
def common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out."""
    del debug  # main() looks for it before anything is parsed, so that it may stand anywhere


for _name, _command in (
    ("compile", compiling.compile_command),
    ("eval", measuring.eval_command),
    ("passes", looking.passes_command),
    ("inspect", looking.inspect_command),
    ("diff", looking.diff_command),
    ("explain", looking.explain_command),
    ("new-pass", looking.new_pass_command),
    ("lint", linting.lint_command),
    ("bench", measuring.bench_command),
    ("replay", measuring.replay_command),
):
    app.command(_name)(_command)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def run() -> None:
    """Run the command line as a process: `main`, and then leave at once.

    Python would take a second or two to free piece by piece what the system frees anyway.
    """
    status = 0
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            raise
        status = stop.code or 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # the reader has closed the pipe, as `head` does
            stream.flush()
    os._exit(status)


def main() -> None:
    """Run the command line: exit status 0, 1 for a failure (one message), 2 for usage."""
    debugging = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(prog_name="yqc")
    except YqcError as error:
        if debugging:
            raise
        echo(f"yqc: {error}", err=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer turned the KeyboardInterrupt into it
            typer.echo("yqc: interrupted; nothing was written", err=True)
        raise
