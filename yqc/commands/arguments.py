"""Arguments and options that several commands share."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yqc.errors import PipelineError
from yqc.targets import find_target

if TYPE_CHECKING:
    from yqc.settings import Settings


HeadChoice = StrEnum("HeadChoice", ["one2one", "one2many"])
FormChoice = StrEnum("FormChoice", ["text", "code", "table", "dot", "json"])
PrecisionChoice = StrEnum("PrecisionChoice", ["f32"])
RuntimeChoice = StrEnum("RuntimeChoice", ["onnxruntime", "openvino"])

DataOption = Annotated[
    Path | None, typer.Option(help="Data YAML, COCO JSON, or a folder of images.")
]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Folder of the images that a COCO JSON names.")
]
SingleClassOption = Annotated[
    bool, typer.Option("--single-class", help="Count every object as the model's one class.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at a bad label; else its image is left out.")
]
SizeOption = Annotated[str | None, typer.Option(help="640 or H,W; default: as trained.")]
LoadOption = Annotated[list[Path] | None, typer.Option(help="Python file with passes or blocks.")]
HeadOption = Annotated[HeadChoice | None, typer.Option(help="For models with two heads.")]
ArchOption = Annotated[Path | None, typer.Option(help="Model YAML, for a file of bare weights.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]


def parse_target(text: str | None) -> str | None:
    """Read the name of a target, or its alias, as the name."""
    try:
        return None if text is None else find_target(text).name
    except PipelineError as error:
        raise typer.BadParameter(str(error)) from error


TargetOption = Annotated[
    str | None,
    typer.Option(
        callback=parse_target,
        help="Runtime: onnxruntime (the default), openvino, tensorrt, or portable for any.",
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of the runtime.")]


def parse_size(text: str) -> tuple[int, int]:
    """Read `640` or `H,W` as (height, width) in pixels."""
    parts = text.split(",")
    if not 1 <= len(parts) <= 2 or not all(p.strip().isdecimal() for p in parts):  # noqa: PLR2004
        raise typer.BadParameter(
            f"{text!r} is no size; write 640, or height,width", param_hint="--imgsz"
        )
    return int(parts[0]), int(parts[-1])


def path_text(path: Path | None) -> str | None:
    """Return a path as text."""
    return None if path is None else str(path)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of commands that read a model: how, and with what passes and blocks."""

    imgsz: SizeOption = None
    head: HeadOption = None
    arch: ArchOption = None
    load: LoadOption = None

    def settings(self) -> "Settings":
        """Return what the options say, as a recipe holds it."""
        from yqc.settings import Settings  # noqa: PLC0415

        return Settings(
            imgsz=None if self.imgsz is None else parse_size(self.imgsz),
            head=None if self.head is None else self.head.value,
            arch=path_text(self.arch),
        )


@dataclass(frozen=True, kw_only=True)
class PassOptions(ModelOptions):
    """The options of commands that run passes over a model: the data that they go by, too."""

    data: DataOption = None
    images: ImagesOption = None
    single_class: SingleClassOption = False
    strict: StrictOption = False

    def settings(self) -> "Settings":
        """Return what the options say, as a recipe holds it."""
        return replace(
            super().settings(),
            data=path_text(self.data),
            images=path_text(self.images),
            single_class=self.single_class,
            strict=self.strict,
        )


def with_options(kind: type[ModelOptions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that are the fields of `kind`, as its argument `how`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shared = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
            )
            for f in fields(kind)
        ]

        @functools.wraps(function)
        def command(**given: Any) -> None:  # noqa: ANN401  # what typer has parsed
            how = kind(**{p.name: given.pop(p.name) for p in shared})
            function(**given, how=how)

        own = inspect.signature(function).parameters.values()
        every = [*(p for p in own if p.name != "how"), *shared]
        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in every}
        return command

    return decorate
