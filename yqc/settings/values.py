"""What a setting may be: words for it, its usual forms, and the check by pydantic."""

import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from annotated_types import Interval

from yqc.errors import PipelineError, first_line
from yqc.targets import DeviceFileError, find_target

LARGEST = 1 << 63
"""Whole numbers are below it: what TOML and PyTorch hold."""


class SettingError(PipelineError):
    """A setting has a value that is not allowed, or a name that does not exist."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")


@dataclass(frozen=True)
class Allowed:
    """Annotates a type: what a value must be, in words, and how its usual forms are read."""

    what: str
    read: Callable[[Any], Any] | None = None
    """Turns a usual form into the value; a ValueError means that it is none."""


def check_value(name: str, hint: object, value: object, *, text: bool = False) -> Any:  # noqa: ANN401
    """Return a value of the type `hint`; if `text`, it may be written as text.

    Raises:
        SettingError: it is no such value, or not allowed.
        DeviceFileError: it names the file of a device, with something wrong in it.
    """
    given = value
    try:
        for allowed in _allowed(hint):
            value = value if allowed.read is None or value is None else allowed.read(value)
        return _checker(hint).validate_python(value, strict=not text)
    except DeviceFileError:  # it shows the line
        raise
    except PipelineError as error:
        raise SettingError(name, f"is {given!r}, but {first_line(error)}") from error
    except (ValueError, TypeError) as error:
        raise SettingError(name, f"must be {describe(hint)}, not {given!r}") from error


@functools.cache
def _checker(hint: Any) -> Any:  # noqa: ANN401  # a pydantic.TypeAdapter
    from pydantic import TypeAdapter  # noqa: PLC0415  # takes long, and --help must not

    return TypeAdapter(hint)


def _allowed(hint: object) -> Iterator[Allowed]:
    yield from (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Allowed))
    if typing.get_origin(hint) in {Annotated, Union, types.UnionType}:
        for inner in typing.get_args(hint)[: 1 if hasattr(hint, "__metadata__") else None]:
            yield from _allowed(inner)


def describe(hint: object) -> str:
    """Say in words what a value of a type must be."""
    if words := next(_allowed(hint), None):
        return words.what
    if typing.get_origin(hint) in {Union, types.UnionType}:
        kinds = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        return " or ".join(map(describe, kinds))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return {bool: "true or false", str: "a text"}.get(hint, str(hint))  # type: ignore[call-overload, no-any-return]


def _read_path(value: object) -> object:
    value = fspath(value) if isinstance(value, PathLike) else value
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _read_size(value: object) -> object:
    """Read `640`, `"640"`, `"480,640"` or `[480, 640]` as (height, width)."""
    if isinstance(value, str):
        sides = [int(part) for part in value.split(",")]
        value = sides if len(sides) > 1 else sides[0]
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _read_device(value: object) -> object:
    kind, colon, number = str(value).partition(":")
    if kind not in {"cpu", "cuda"} or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(value)
    return value


KINDS = ("onnx", "pt2")
"""Kinds of files that a compile can write."""


def _read_kinds(value: object) -> object:
    kinds = [word.strip() for word in str(value).split(",")]
    if "onnx" not in kinds or {*kinds} - {*KINDS}:
        raise ValueError(value)
    return value


def _read_options(value: object) -> object:
    """Read options as text, or as a mapping of names to values."""
    if not isinstance(value, Mapping):
        return value
    return " ".join(
        f"{key}={str(one).lower() if isinstance(one, bool) else one}" for key, one in value.items()
    )


Count = Annotated[int, Interval(ge=1, lt=LARGEST), Allowed("a whole number above 0")]
Whole = Annotated[int, Interval(gt=-LARGEST, lt=LARGEST), Allowed("a whole number of 64 bits")]
Threads = Annotated[int, Interval(ge=1, le=4096), Allowed("a whole number from 1 to 4096")]
"""More threads than any machine has cores make libraries fail without a reason."""
Opset = Annotated[int, Interval(ge=13, le=23), Allowed("an ONNX opset from 13 to 23")]
Pixels = Annotated[int, Interval(ge=1, lt=LARGEST)]
Size = Annotated[tuple[Pixels, Pixels], Allowed("a size in pixels, or [height, width]", _read_size)]
if TYPE_CHECKING:
    PathText = str
else:  # pydantic takes no text that has no form in UTF-8, which names of files may be
    PathText = Annotated[Any, Allowed("a path", _read_path)]
Device = Annotated[str, Allowed("cpu, cuda, or cuda:1", _read_device)]
Emitted = Annotated[str, Allowed("onnx, or onnx,pt2", _read_kinds)]
OptionsText = Annotated[str, Allowed("options such as conf=0.25", _read_options)]
TargetText = Annotated[
    str,
    Allowed(
        "the name of a target, or the file of a device", lambda name: find_target(fspath(name)).name
    ),
]
