"""Convert frozen dataclasses to JSON and strictly back.

`to_plain` goes by values and serves every table's `--json`. `from_json` goes by the declared types,
checked by pydantic, and names the key at fault, so that a report which was edited by hand, or
written by another version, is refused in one sentence.
"""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, TypeAlias, TypeVar

from yqc.errors import DataError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
RecordType = TypeVar("RecordType")

_NOT_ASCII = re.compile("[^ -~\n]")


def key_of(name: str) -> str:
    """Return the key of a field: a trailing underscore only keeps the name off a builtin."""
    return name.removesuffix("_")


class Part:
    """A dataclass whose fields are the keys of a JSON object, of exactly their types."""

    __pydantic_config__: ClassVar = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
        "alias_generator": key_of,
        "populate_by_name": True,
    }


def to_json(value: object) -> str:
    """Print dataclasses, or sequences of them, as indented JSON text that ends with a newline.

    Keys come in the order of the fields. NaN and infinities become null. What is not printable is
    written as an escape.

    Raises:
        TypeError: a value is of a kind that JSON cannot hold.
    """
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    return _NOT_ASCII.sub(_printable, text) + "\n"


def to_json_lines(parts: Mapping[str, Sequence[object]]) -> str:
    """Print an object of long arrays as JSON text, an element a line: indentation takes longer."""
    arrays = (
        f"{json.dumps(key)}: [\n"
        + ",\n".join(json.dumps(to_plain(one), allow_nan=False) for one in elements)
        + "\n]"
        for key, elements in parts.items()
    )
    return "{\n" + ",\n".join(arrays) + "\n}\n"


def _printable(found: re.Match[str]) -> str:
    """Return a character as it is, or its escape if a terminal would obey it or UTF-8 lacks it."""
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def to_plain(value: object) -> Json:
    """Turn dataclasses, mappings, sequences and numbers (numpy's too) into what JSON can hold.

    What has no form in UTF-8, as parts of file names may not, is written as an escape.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Integral | Real):
        number = int(value) if isinstance(value, Integral) else float(value)
        return number if math.isfinite(number) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {key_of(one.name): to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [to_plain(one) for one in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def from_json(kind: type[RecordType], text: str) -> RecordType:
    """Read a dataclass from JSON text that holds its keys and no others, with their types.

    Raises:
        DataError: the text is no JSON, or a key is missing, unknown, or of another type.
    """
    from pydantic import ValidationError  # noqa: PLC0415  # takes long, and listing passes must not

    checker: Any = _checker(kind)  # type: ignore[arg-type]  # types can be hashed
    try:
        found: RecordType = checker.validate_json(text)
    except ValidationError as error:
        raise DataError(_describe(error.errors(include_url=False)[0])) from error
    return found


def to_schema(kind: type) -> dict[str, Json]:
    """Return the JSON schema of a dataclass's JSON; descriptions are the docstrings of fields."""
    found: dict[str, Json] = _checker(kind).json_schema(by_alias=True)
    return found


@functools.cache
def _checker(kind: Any) -> Any:  # noqa: ANN401  # a pydantic.TypeAdapter
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(kind)


def _describe(fault: Mapping[str, Any]) -> str:
    """Say in a sentence what pydantic found first."""
    if fault["type"] == "json_invalid":
        return f"this is not a JSON report: {fault['ctx']['error']}"
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in fault["loc"])[1:]
    edited = "was the file edited, or written by another version of yqc?"
    if fault["type"] == "missing":
        return f"report: key {where!r} is missing; {edited}"
    if fault["type"] == "unexpected_keyword_argument":
        return f"report: key {where!r} is unknown; {edited}"
    shown = json.dumps(fault["input"])
    shown = shown if len(shown) <= 40 else shown[:37] + ".."  # noqa: PLR2004  # enough to find it
    wanted = fault["msg"].removeprefix("Input should be ")
    return f"report: {where or 'the top level'} must be {wanted}, not {shown}"
