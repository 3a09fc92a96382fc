"""Settings of a compile, and recipe files: TOML that `--config` runs again.

    yqc = "0.1.0"
    passes = "fold-bn"
    imgsz = [640, 640]
    ...
    [input]
    path = "model.pt"
    sha256 = "..."

    [dataset]
    path = "data.yaml"
    sha256 = "..."

    [[load]]
    path = "my_pass.py"
    sha256 = "..."

The tables say what the recipe was written for; a compile of something else says so. A recipe cannot
load Python.
"""

import dataclasses
import json
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from yqc.errors import PipelineError, near
from yqc.targets import TargetName, find_target


@dataclass(frozen=True)
class HashedFile:
    """A file, or a data set, and the SHA-256 of what was read of it."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What a recipe was written for."""

    version: str = ""
    """Of yqc."""
    model: HashedFile | None = None
    data: HashedFile | None = None
    loaded: tuple[HashedFile, ...] = ()
    """Python files given by `--load`."""

    def changes(self, now: "Provenance") -> tuple[str, ...]:
        """Describe in sentences what is other now; nothing where the recipe records nothing."""
        if not self.version:
            return ()
        said = [f"version {self.version} of yqc"] if self.version != now.version else []
        pairs = [(self.model, now.model, "model"), (self.data, now.data, "data set")]
        for was, found, what in pairs:
            if was is not None and (found is None or was.sha256 != found.sha256):
                said.append(f"another {what}, {was.path} (SHA-256 {was.sha256[:12]})")
        if [f.sha256 for f in self.loaded] != [f.sha256 for f in now.loaded]:
            names = ", ".join(file.path for file in self.loaded) or "none"
            said.append(f"other --load files ({names})")
        return tuple(f"the recipe was written for {one}: results can differ" for one in said)


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
    target: TargetName = "onnxruntime"
    device: str = "cpu"
    seed: int = 0
    dynamic: bool = False
    opset: int | None = None
    emit: str | None = None
    embed: str | None = None
    threads: int | None = None
    """Of PyTorch and onnxruntime; sums are rounded otherwise with another number."""
    written_for: Provenance = field(default=Provenance(), compare=False)
    """What the recipe file records that these settings were read from."""


SETTINGS = tuple(f.name for f in dataclasses.fields(Settings) if f.name != "written_for")
"""The keys of a recipe file."""


LARGEST = 16 << 20
"""Bytes of a recipe file. Plans of 4-bit weights take some 100 kB; half or double of the bound
changes nothing but the memory that a file of another kind takes before it is refused."""
DEEP = 100
"""Dots in a key at most; the time that tomllib takes grows with their square."""
ORIGINS = ("input", "dataset", "load")
"""The tables of a recipe file that say what it was written for."""


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
    target: TargetName | Literal["ort", "ov", "trt", "generic"]
    device: str
    seed: int
    dynamic: bool
    opset: int
    emit: str
    """`onnx`, or `onnx,pt2` to save the float graph by `torch.export`, too."""
    embed: str
    """What to put around the detector: `nms{conf=0.25 ...}`, `uint8-input`, `fp16-io`."""
    threads: int
    """Threads of PyTorch and onnxruntime; by default those that PyTorch takes."""


def choose(base: Settings | None, choices: Choices) -> Settings:
    """Return `base`, or the defaults, with these fields replaced."""
    plain: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value for key, value in choices.items()
    }
    if isinstance(size := plain.get("imgsz"), int):
        plain["imgsz"] = (size, size)
    if "target" in plain:
        plain["target"] = find_target(plain["target"]).name
    return dataclasses.replace(base or Settings(), **plain)


def write_recipe(settings: Settings, origin: Provenance) -> str:
    """Return the TOML text that repeats a compile, with what it was written for."""
    lines = [f"yqc = {_toml(origin.version)}"]
    for name in SETTINGS:
        value = getattr(settings, name)
        if value is not None:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{name} = {_toml(plain)}")
    tables = [("[input]", origin.model), ("[dataset]", origin.data)]
    tables += [("[[load]]", file) for file in origin.loaded]
    for head, file in tables:
        if file is not None:
            lines += ["", head, f"path = {_toml(file.path)}", f"sha256 = {_toml(file.sha256)}"]
    return "\n".join([*lines, ""])


def _toml(value: object) -> str:
    """Write a plain value: TOML's are JSON's, but for one character that must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_recipe(path: Path) -> Settings:
    """Read a recipe file. Relative paths in it are relative to the working directory.

    Raises:
        PipelineError: the file cannot be read, or holds a key or value that does not belong there.
    """
    try:
        found = tomllib.loads(_read_short(path))
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read the recipe {path}: {error}") from error
    except RecursionError as error:
        raise PipelineError(f"cannot read the recipe {path}: it is nested too deeply") from error
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key == "yqc" or (key in ORIGINS and isinstance(value, dict | list)):
            continue
        if key not in SETTINGS:
            raise PipelineError(f"{path}: a recipe has no key {key!r}{near(key, SETTINGS)}")
        values[key] = _checked(path, key, value)
    return Settings(**values, written_for=_provenance(found))


def _read_short(path: Path) -> str:
    """Return the text of a regular file of at most `LARGEST` bytes; else raise an OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > LARGEST:
        raise OSError(f"it has more than {LARGEST >> 20} MiB")
    text = path.read_text(encoding="utf-8")
    keys = (line.partition("=")[0] for line in text.splitlines())
    if any(key.count(".") > DEEP and not {*key} & {*"\"'"} for key in keys):
        raise OSError("it is nested too deeply")
    return text


def _provenance(found: Mapping[str, Any]) -> Provenance:
    """Read what a recipe was written for; what is missing or malformed counts as not recorded."""
    loaded = found.get("load")
    return Provenance(
        version=str(found.get("yqc", "")),
        model=_hashed(found.get("input")),
        data=_hashed(found.get("dataset")),
        loaded=tuple(filter(None, map(_hashed, loaded if isinstance(loaded, list) else ()))),
    )


def _hashed(table: object) -> HashedFile | None:
    if not isinstance(table, dict) or not table.get("sha256"):
        return None
    return HashedFile(str(table.get("path", "")), str(table["sha256"]))


def _checked(path: Path, key: str, value: object) -> object:
    if key == "seed":
        good, what = type(value) is int and abs(value) < 1 << 63, "a whole number of 64 bits"
    elif key in {"calib_images", "opset", "threads"}:
        good, what = _is_count(value), "a whole number above 0"
    elif key in {"dynamic", "single_class", "strict"}:
        good, what = isinstance(value, bool), "true or false"
    elif key == "target":
        good, what = isinstance(value, str), "the name of a target"
        value = _target(path, value) if isinstance(value, str) else value
    elif key == "imgsz":
        value = tuple(value) if isinstance(value, list) else (value, value)
        good = len(value) == 2 and all(map(_is_count, value))  # noqa: PLR2004  # height, width
        what = "a size in pixels, or [height, width]"
    else:
        good, what = isinstance(value, str), "a text"
    if not good:
        raise PipelineError(f"{path}: {key} must be {what}")
    return value


def _target(path: Path, name: str) -> TargetName:
    try:
        return find_target(name).name
    except PipelineError as error:
        raise PipelineError(f"{path}: {error}") from error


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 63
