"""Arguments and options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Head(StrEnum):
    """Heads of models that have two."""

    one2one = "one2one"
    one2many = "one2many"


class Form(StrEnum):
    """Ways to print a graph."""

    text = "text"
    code = "code"
    table = "table"
    dot = "dot"
    json = "json"


class Target(StrEnum):
    """Runtimes to compile for."""

    generic = "generic"
    ort = "ort"
    openvino = "openvino"
    tensorrt = "tensorrt"


Data = Annotated[Path | None, typer.Option(help="Data YAML, COCO JSON, or a folder of images.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images that a COCO JSON names.")]
Size = Annotated[str | None, typer.Option(help="640 or H,W; default: as trained.")]
Load = Annotated[list[Path] | None, typer.Option(help="Python file with passes or blocks.")]
OneOf = Annotated[Head | None, typer.Option(help="For models with two heads.")]
Arch = Annotated[Path | None, typer.Option(help="Model YAML, for a file of bare weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of onnxruntime.")]


def parse_size(text: str) -> tuple[int, int]:
    """Read `640` or `H,W` as (height, width) in pixels."""
    parts = text.split(",")
    if not 1 <= len(parts) <= 2 or not all(p.strip().isdecimal() for p in parts):  # noqa: PLR2004
        raise typer.BadParameter(
            f"{text!r} is no size; write 640, or height,width", param_hint="--imgsz"
        )
    return int(parts[0]), int(parts[-1])
