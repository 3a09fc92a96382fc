"""Convert frozen dataclasses to JSON and strictly back.

`to_plain` goes by values and serves every table's `--json`. `from_plain` goes by the declared types
and names the key at fault, so that a report which was edited by hand, or written by another
version, is refused in one sentence.
"""

import contextlib
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Literal,
    NoReturn,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from yqc.errors import DataError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
RecordType = TypeVar("RecordType")

_NOT_ASCII = re.compile("[^ -~\n]")
_KIND_NAMES: dict[object, str] = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
}


def to_json(value: object) -> str:
    """Print dataclasses, or sequences of them, as indented JSON text that ends with a newline.

    Keys come in the order of the fields. NaN and infinities become null. What is not
    printable, or has no form in UTF-8 as parts of file names may not, is written as an escape.

    Raises:
        TypeError: a value is of a kind that JSON cannot hold.
    """
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    return _NOT_ASCII.sub(_printable, text) + "\n"


def _printable(found: re.Match[str]) -> str:
    """Return a character as it is, or its escape if a terminal would obey it or UTF-8 lacks it."""
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def to_plain(value: object) -> Json:
    """Turn dataclasses, mappings, sequences and numbers (numpy's too) into what JSON can hold."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {_key(name): to_plain(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [to_plain(one) for one in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def parse(text: str) -> Json:
    """Parse JSON strictly: no NaN, no infinity.

    Raises:
        DataError: the text is not JSON.
    """
    try:
        found: Json = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is not a JSON report: {error}") from error
    return found


def from_plain(kind: type[RecordType], value: Json) -> RecordType:
    """Build a dataclass from parsed JSON that holds exactly its keys, with exactly its types.

    Raises:
        DataError: a key is missing, unknown, or holds a value of another type.
    """
    found = _read(kind, value, "")
    if not isinstance(found, kind):
        raise TypeError(f"{kind.__name__} is no dataclass")
    return found


def _read(kind: object, value: Json, where: str) -> object:
    """Read a value of a declared type; `where` is the dotted key that leads to it."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return None if value is None else _read(inner, value, where)
    if origin is Literal:
        if value not in get_args(kind):
            _refuse(where, " or ".join(map(repr, get_args(kind))), value)
        return value
    if origin is tuple:
        return _read_tuple(get_args(kind), value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_record(kind, value, where)
    if kind is float:
        return _read_float(value, where)
    if type(value) is not kind:
        _refuse(where, _KIND_NAMES.get(kind, str(kind)), value)
    return value


def _read_float(value: Json, where: str) -> float:
    """Read a finite number; an integer is one."""
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        _refuse(where, _KIND_NAMES[float], value)
    return number


def _read_tuple(kinds: tuple[object, ...], value: Json, where: str) -> tuple[object, ...]:
    """Read `tuple[X, ...]` or a tuple of fixed length."""
    if not isinstance(value, list):
        _refuse(where, "a list", value)
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        _refuse(where, f"a list of {len(kinds)}", value)
    each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
    return tuple(
        _read(kind, one, f"{where}[{index}]")
        for index, (kind, one) in enumerate(zip(each, value, strict=True))
    )


def _read_record(kind: type, value: Json, where: str) -> object:
    """Read a dataclass from an object that has its keys and no others."""
    if not isinstance(value, dict):
        _refuse(where, "an object", value)
    hints = _hints(kind)
    for key in [*hints, *value]:
        if key not in value or key not in hints:
            what = "is missing" if key in hints else "is unknown"
            raise DataError(
                f"report: key {_join(where, key)!r} {what}; "
                "was the file edited, or written by another version of yqc?"
            )
    values = {
        name: _read(hint, value[key], _join(where, key)) for key, (name, hint) in hints.items()
    }
    built = _build(kind, values)
    for key, (name, _) in hints.items():
        if getattr(built, name) != values[name]:
            _refuse(
                _join(where, key), f"{getattr(built, name)!r}, as the other keys say", value[key]
            )
    return built


def _build(kind: type, values: Mapping[str, object]) -> object:
    """Make a dataclass of values by name; one without a value is made of those that it holds."""
    hints = get_type_hints(kind)
    given = {
        one.name: values[one.name] if one.name in values else _build(hints[one.name], values)
        for one in fields(kind)
        if one.name in values or is_dataclass(hints[one.name])
    }
    return kind(**given)


def _names(kind: type) -> tuple[str, ...]:
    """Names of what a dataclass's JSON object holds, in order.

    A dataclass that has another one and shows its values as its own lists them in `KEYS`; it has a
    property for each.
    """
    keys: tuple[str, ...] | None = getattr(kind, "KEYS", None)
    return keys or tuple(one.name for one in fields(kind))


@functools.cache
def _hints(kind: type) -> dict[str, tuple[str, object]]:
    """Key in JSON -> (name of the field or property, its declared type), in order."""
    hints = get_type_hints(kind)
    for name in set(_names(kind)) - hints.keys():  # a property
        hints[name] = get_type_hints(getattr(kind, name).fget)["return"]
    return {_key(name): (name, hints[name]) for name in _names(kind)}


def _key(name: str) -> str:
    """Key of a field: a trailing underscore only keeps the name off a builtin."""
    return name.removesuffix("_")


def _join(where: str, key: str) -> str:
    """Dotted key."""
    return f"{where}.{key}" if where else key


def _no_constant(name: str) -> NoReturn:
    """Refuse Python's additions to JSON."""
    raise ValueError(f"{name} is no JSON number")


def _refuse(where: str, wanted: str, value: Json) -> NoReturn:
    """Raise a DataError with the key, its value, and the type that it must have."""
    shown = json.dumps(value)
    shown = shown if len(shown) <= 40 else shown[:37] + ".."  # noqa: PLR2004  # enough to find it
    raise DataError(f"report: {where or 'the top level'} must be {wanted}, not {shown}")
