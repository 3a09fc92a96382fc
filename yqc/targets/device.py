"""Read the file of a device: TOML that states what its runtime takes.

    base = "portable"              # the target whose rules hold where the file is silent
    operators = ["Conv", "Relu"]   # of ONNX; without the key, all that the base runs
    decode = "raw"                 # full, scores or raw
    fast_activations = ["relu"]    # the cheapest first
    [limits]
    opset = 17
    kernel = 7
    pool_kernel = 3
    stride = 2
    channels = 4096
    rank = 4
    dtypes = ["float32", "uint8", "int8", "int32"]

Every key may be left out. What is wrong is shown with its line and a caret.
"""

import functools
import hashlib
import json
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Interval, Len

from yqc.errors import PipelineError, near
from yqc.targets.base import ActivationName, DecodeForm, Limits, TargetName, TypeName

SUFFIX = ".toml"
LARGEST = 1 << 16
"""Bytes of a file at most. The examples have about 2 kB; half or double of the bound changes only
which files of another kind are refused by their size."""
Largest = Annotated[int, Interval(ge=1, lt=1 << 31)]
Names = Annotated[tuple[str, ...], Len(1)]


class DeviceFileError(PipelineError):
    """The file of a device cannot be read, or says what cannot be."""


@dataclass(frozen=True)
class LimitKeys:
    """The table `limits` of a device's file; `Limits` says what each key means."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    opset: Largest | None = None
    kernel: Largest | None = None
    pool_kernel: Largest | None = None
    stride: Largest | None = None
    channels: Largest | None = None
    rank: Largest | None = None
    dtypes: Annotated[tuple[TypeName, ...], Len(1)] | None = None


@dataclass(frozen=True)
class DeviceKeys:
    """What a device's file holds."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    base: TargetName = "portable"
    operators: Names | None = None
    decode: DecodeForm = "full"
    fast_activations: tuple[ActivationName, ...] | None = None
    limits: LimitKeys = LimitKeys()


@dataclass(frozen=True)
class DeviceFile:
    """A device's file as it was read."""

    keys: DeviceKeys
    sha256: str

    @property
    def limits(self) -> Limits:
        """What the device takes at most."""
        return Limits(**vars(self.keys.limits))


def read_device(path: Path) -> DeviceFile:
    """Read and check a device's file.

    Raises:
        DeviceFileError: it cannot be read, has an unknown key, or a value that cannot be.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no file")
        if status.st_size > LARGEST:
            raise OSError(f"it has more than {LARGEST >> 10} KiB")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DeviceFileError(f"cannot read the target {path}: {why}") from error
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _read(path: Path, _changed: int, _size: int) -> DeviceFile:
    """Read a file; it is read again once its time or its size has changed."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise DeviceFileError(f"cannot read the target {path}: {error}") from error
    source = _DeviceText(path, text)
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise source.refuse_syntax(error) from error
    return DeviceFile(_check(source, found), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class _DeviceText:
    """The text of a file, where its keys and words are looked up."""

    path: Path
    text: str

    def refuse(self, why: str, key: str, word: str | None = None) -> DeviceFileError:
        """Make an error that points at a key, or at a word of its value."""
        lines = self.text.splitlines()
        row = next((i for i, line in enumerate(lines) if _names_key(line, key)), 0)
        wanted = re.escape(key if word is None else word)
        places = (
            (i, re.search(rf"(?<!\w){wanted}(?!\w)", lines[i])) for i in range(row, len(lines))
        )
        at = next(((i, found) for i, found in places if found), None)
        if at is None:
            return self._point(why, row, 0, len(lines[row].rstrip()) if lines else 1)
        return self._point(why, at[0], at[1].start(), len(wanted) if word is None else len(word))

    def refuse_syntax(self, error: Exception) -> DeviceFileError:
        """Make an error that points where TOML cannot be read any more."""
        why = re.sub(r" \(at .*\)$", "", str(error)) or type(error).__name__
        place = re.search(r"line (\d+), column (\d+)", str(error))
        rows = self.text.count("\n") + 1
        row, column = map(int, place.groups()) if place else (rows, 1)
        return self._point(f"it is no TOML: {why}", row - 1, column - 1, 1)

    def _point(self, why: str, row: int, column: int, length: int) -> DeviceFileError:
        lines = self.text.splitlines() or [""]
        line = re.sub(r"\s", " ", lines[min(row, len(lines) - 1)])
        mark = f"{' ' * column}{'^' * max(1, length)}"
        return DeviceFileError(f"{self.path}, line {row + 1}: {why}\n  {line}\n  {mark}")


def _names_key(line: str, key: str) -> bool:
    """Return whether a line gives a key its value, or opens its table."""
    name = rf"(\w+\s*\.\s*)?[\"']?{re.escape(key)}[\"']?"
    return re.match(rf"\s*(\[\s*{name}\s*\]|{name}\s*[.=])", line) is not None


def _check(source: _DeviceText, found: Mapping[str, Any]) -> DeviceKeys:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  # takes long, --help must not

    _check_keys(source, found, DeviceKeys, "the file of a target")
    limits = found.get("limits", {})
    if isinstance(limits, dict):
        _check_keys(source, limits, LimitKeys, "limits")
    try:
        keys = TypeAdapter(DeviceKeys).validate_json(json.dumps(found, default=str), strict=True)
    except ValidationError as error:
        raise _explain(source, error.errors(include_url=False)[0]) from error
    known = sorted(_operators())
    for name in keys.operators or ():
        if name not in known:
            why = f"{name!r} is no operator of ONNX{near(name, known)}"
            raise source.refuse(why, "operators", name)
    return keys


def _check_keys(source: _DeviceText, found: Mapping[str, Any], kind: type, where: str) -> None:
    known = [one.name for one in fields(kind)]
    for key in found:
        if key not in known:
            raise source.refuse(f"{where} has no key {key!r}{near(key, known)}", key)


def _explain(source: _DeviceText, fault: Mapping[str, Any]) -> DeviceFileError:
    """Say in a sentence what pydantic found first."""
    names = [word for word in fault["loc"] if isinstance(word, str) and word.isidentifier()]
    key = next((word for word in reversed(names) if word in _KEYS), "")
    given = fault["input"]
    if fault["type"] == "too_short":
        return source.refuse(f"{key} names none; leave the key out where all are taken", key)
    if fault["type"] == "literal_error":
        allowed = fault["ctx"]["expected"].replace("'", "")
        hint = near(str(given), re.split(r", | or ", allowed))
        return source.refuse(f"{key} cannot be {given!r}; write {allowed}{hint}", key, str(given))
    wanted = fault["msg"].removeprefix("Input should be ")
    for word, plain in _PLAIN.items():
        wanted = wanted.replace(word, plain)
    return source.refuse(f"{key} must be {wanted}, not {given!r}", key)


_PLAIN = {
    "a valid integer": "a whole number",
    "a valid string": "a text",
    "a valid array": "a list",
    "an object": "a table",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
"""Words of pydantic, and those of TOML for them."""
_KEYS: tuple[str, ...] = tuple(one.name for kind in (DeviceKeys, LimitKeys) for one in fields(kind))


def _operators() -> set[str]:
    from onnx import defs  # noqa: PLC0415  # takes long, and --help must not

    return {schema.name for schema in defs.get_all_schemas() if not schema.domain}
