"""Recipe files: TOML that says how a compile was run, and runs it again with `--config`.

    yqc = "0.1.0"
    passes = "fold-bn"
    imgsz = [640, 640]
    ...
    [input]
    path = "model.pt"
    sha256 = "..."

A recipe holds settings only. It cannot load Python.
"""

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from yqc.errors import PipelineError, near
from yqc.pipeline.base import Target


@dataclass(frozen=True)
class Settings:
    """What decides a compile's result, beside the model and the data."""

    passes: str = ""
    imgsz: tuple[int, int] | None = None
    head: str | None = None
    arch: str | None = None
    data: str | None = None
    images: str | None = None
    single_class: bool = False
    strict: bool = False
    calib_images: int = 128
    target: Target = "generic"
    device: str = "cpu"
    seed: int = 0
    dynamic: bool = False
    opset: int | None = None
    emit: str | None = None
    embed: str | None = None


class Choices(TypedDict, total=False):
    """The fields of `Settings` as `yqc.compile` takes them; sizes and paths in any usual form."""

    imgsz: int | tuple[int, int]
    """Height and width in pixels, or one number for both."""
    head: Literal["one2one", "one2many"]
    arch: str | Path
    data: str | Path
    images: str | Path
    single_class: bool
    """Whether every object counts as the one class of the model."""
    strict: bool
    """Whether a bad label is an error; otherwise its image is left out."""
    calib_images: int
    target: Target
    device: str
    seed: int
    dynamic: bool
    opset: int
    emit: str
    """`onnx`, or `onnx,pt2` to save the float graph by `torch.export`, too."""
    embed: str
    """What to put around the detector: `nms{conf=0.25 ...}`, `uint8-input`, `fp16-io`."""


def choose(base: Settings | None, choices: Choices) -> Settings:
    """Return `base`, or the defaults, with these fields replaced."""
    plain: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value for key, value in choices.items()
    }
    if isinstance(size := plain.get("imgsz"), int):
        plain["imgsz"] = (size, size)
    return dataclasses.replace(base or Settings(), **plain)


def write_recipe(settings: Settings, version: str, model: str, sha256: str) -> str:
    """Return the TOML text that reproduces a compile."""
    lines = [f"yqc = {_toml(version)}"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{field.name} = {_toml(plain)}")
    lines += ["", "[input]", f"path = {_toml(model)}", f"sha256 = {_toml(sha256)}", ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    """Write a plain value: TOML's are JSON's, but for one character that must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_recipe(path: Path) -> Settings:
    """Read a recipe file. Relative paths in it are relative to the working directory.

    Raises:
        PipelineError: the file cannot be read, or holds a key or value that does not belong there.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PipelineError(f"cannot read the recipe {path}: {error}") from error
    fields = {f.name for f in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key in {"yqc", "input"}:
            continue
        if key not in fields:
            hint = near(key, fields)
            raise PipelineError(f"{path}: a recipe has no key {key!r}{hint}")
        values[key] = _checked(path, key, value)
    return Settings(**values)


def _checked(path: Path, key: str, value: object) -> object:
    if key == "seed":
        good, what = type(value) is int, "a whole number"
    elif key in {"calib_images", "opset"}:
        good, what = _is_count(value), "a whole number above 0"
    elif key in {"dynamic", "single_class", "strict"}:
        good, what = isinstance(value, bool), "true or false"
    elif key == "target":
        good, what = value in get_args(Target), " or ".join(get_args(Target))
    elif key == "imgsz":
        value = tuple(value) if isinstance(value, list) else (value, value)
        good = len(value) == 2 and all(map(_is_count, value))  # noqa: PLR2004  # height, width
        what = "a size in pixels, or [height, width]"
    else:
        good, what = isinstance(value, str), "a text"
    if not good:
        raise PipelineError(f"{path}: {key} must be {what}")
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
