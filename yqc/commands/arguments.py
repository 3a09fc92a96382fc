"""Arguments and options that several commands share; those of settings come from `Settings`."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yqc.commands.common import find_passes
from yqc.commands.completing import complete_target
from yqc.settings import SETTINGS, Settings, choose, read_text
from yqc.settings.settings import setting_helps, setting_types
from yqc.settings.values import describe

if TYPE_CHECKING:
    from yqc.pipeline.registry import Registry

FormChoice = StrEnum("FormChoice", ["text", "code", "table", "dot", "json"])
PrecisionChoice = StrEnum("PrecisionChoice", ["f32"])
RuntimeChoice = StrEnum("RuntimeChoice", ["onnxruntime", "openvino"])

LoadOption = Annotated[list[Path] | None, typer.Option(help="Python file with passes or blocks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
RayOption = Annotated[
    str | None, typer.Option(metavar="<auto|host:port>", help="Run on a Ray cluster.")
]


@dataclass(frozen=True)
class Chosen:
    """The settings that a command line gives, and the files of `--load`."""

    values: dict[str, Any] = field(default_factory=dict)
    load: tuple[Path, ...] = ()
    loaded: "Registry | None" = None
    """All passes that can be named, once those of files were loaded."""

    @property
    def registry(self) -> "Registry":
        """All passes that can be named, those of the files included."""
        return self.loaded or find_passes(self.load)

    def settings(self, base: Settings | None = None) -> Settings:
        """Return `base`, or the defaults, with the given settings replaced."""
        return choose(base, self.values)


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of these settings, and `--load`, as its argument `chosen`.

    A setting that the command has as an argument of its own is left as it is.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "chosen"]
        shared = [n for n in SETTINGS if n in names and n not in {p.name for p in own}]

        @functools.wraps(function)
        def command(**given: Any) -> None:  # noqa: ANN401  # what typer has parsed
            files = tuple(given.pop("load") or ())
            registry = find_passes(files) if files else None  # settings may name what it registers
            raw = {name: given.pop(name) for name in shared}
            written = {name: v for name, v in raw.items() if v is not None and v is not False}
            values = {n: v if v is True else read_text(n, v) for n, v in written.items()}
            chosen = Chosen(values, files, registry)
            function(**given, chosen=chosen)

        options = [_option(name) for name in shared]
        options.append(_keyword("load", LoadOption, None))
        command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
        return command

    return decorate


def _option(name: str) -> inspect.Parameter:
    """Make the option of a setting from its type and help."""
    option, default = f"--{name.replace('_', '-')}", getattr(Settings(), name)
    about = setting_helps()[name]
    if setting_types()[name] is bool:
        return _keyword(name, Annotated[bool, typer.Option(option, help=about)], default=False)
    if default not in {None, ""}:
        about = f"{about.removesuffix('.')}; default: {default}."
    kind = "<int>" if "a whole number" in describe(setting_types()[name]) else "<text>"
    completion = complete_target if name == "target" else None
    info = typer.Option(option, help=about, metavar=kind, autocompletion=completion)
    return _keyword(name, Annotated[str | None, info], None)


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
