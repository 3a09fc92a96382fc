"""Options: the `key=value` of an item of pipeline text to and from fields of a frozen dataclass.

Values are written by the type of their field: `true`/`false`, numbers, times (`10m`), shares
(`1%`), one of a `Literal`'s choices, plain or "quoted" text, and `a|b|c` for a tuple of texts. What
a pass prints of itself names only what differs from the defaults, and parses back to an equal pass.
"""

import ast
import dataclasses
import inspect
import itertools
import json
import math
import re
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from yqc.errors import near
from yqc.pipeline.grammar import BARE, Item, caret

T = TypeVar("T")
TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(s|m|h)?")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
REQUIRED = dataclasses.MISSING
"""The default of an option that has none."""


class Duration(float):
    """A length of time in seconds; as text 90, 90s, 10m or 1.5h."""

    @classmethod
    def read(cls, text: str) -> "Duration":
        """Read a text; a ValueError says what it must be."""
        match = TIME.fullmatch(text)
        if match is None:
            raise ValueError("a time such as 90s, 10m or 1.5h")
        return cls(float(match[1]) * UNITS[match[2] or "s"])

    def __str__(self) -> str:
        for unit, length in UNITS.items():
            if self >= length and (self / length).is_integer():
                return f"{int(self / length)}{unit}"
        return f"{float(self)!r}".removesuffix(".0") + "s"


class Share(float):
    """A share of a whole; as text 1% or 0.01."""

    @classmethod
    def read(cls, text: str) -> "Share":
        """Read a text; a ValueError says what it must be."""
        plain = text.removesuffix("%")
        try:
            value = float(plain)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("a share such as 1% or 0.01")
        return cls(value / 100 if plain != text else value)

    def __str__(self) -> str:
        percent = f"{float(self) * 100:.10g}%"
        return percent if Share.read(percent) == self else repr(float(self))


@dataclass(frozen=True)
class Option:
    """One option of a pass, as help shows it."""

    name: str
    type: str
    default: str
    doc: str


def build_options(cls: type[T], item: Item, text: str) -> T:
    """Make an instance of the dataclass `cls` from an item of `text`.

    Raises:
        PipelineError: an unknown or repeated option, or a value that does not fit its type.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for setting in item.settings:
        key = setting.key.replace("-", "_")
        if key not in known:
            hint = near(key, known) or f"; it has: {', '.join(known) or 'no options'}"
            message = f"{item.name} has no option {setting.key!r}{hint}"
            raise caret(message, text, setting.key_at, len(setting.key))
        if key in values:
            raise caret(f"{setting.key!r} is given twice", text, setting.key_at, len(setting.key))
        try:
            values[key] = parse_value(setting.value, known[key])
        except ValueError as error:
            message = f"{item.name}: {setting.key} must be {error}, not {setting.value}"
            raise caret(message, text, setting.value_at, len(setting.value)) from None
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values and _default(field) is REQUIRED:
            message = f"{item.name} needs a value for its option {field.name!r}"
            raise caret(message, text, item.at, len(item.name))
    try:
        return cls(**values)
    except ValueError as error:
        raise caret(f"{item.name}: {error}", text, item.at, len(item.name)) from None


def parse_value(text: str, hint: Any) -> Any:  # noqa: ANN401, PLR0911  # one return a type
    """Read a value of the type `hint`; a ValueError says what the value must be."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return _parse_union(text, choices)
    if text.startswith('"'):
        text = _unquote(text)
    if origin is Literal:
        known = {str(choice): choice for choice in choices}
        if text not in known:
            raise ValueError("one of " + ", ".join(known))
        return known[text]
    if origin is tuple:
        kind, parts = choices[0], text.split("|") if text else []
        return tuple(part if kind is str else parse_value(part, kind) for part in parts)
    if hint is bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise ValueError("true or false")
    if hint is int:
        return _number(text, int, "a whole number")
    if hint is float:
        return _number(text, float, "a number")
    return hint.read(text) if hint in {Duration, Share} else text


def _number(text: str, kind: type[T], what: str) -> T:
    try:
        value = kind(text)  # type: ignore[call-arg]
    except ValueError:
        raise ValueError(what) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _parse_union(text: str, choices: tuple[Any, ...]) -> Any:  # noqa: ANN401
    if type(None) in choices and text.lower() == "none":
        return None
    problems: list[str] = []
    for choice in choices:
        if choice is type(None):
            problems.append("none")
            continue
        try:
            return parse_value(text, choice)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(" or ".join(problems))


def format_item(name: str, options: object) -> str:
    """Print a dataclass as options text: its name, and the fields that differ from the default."""
    changed = [
        f"{f.name}={format_value(getattr(options, f.name))}"
        for f in dataclasses.fields(options)  # type: ignore[arg-type]
        if getattr(options, f.name) != _default(f)
    ]
    return f"{name}{{{' '.join(changed)}}}" if changed else name


def format_value(value: object) -> str:
    """Print one value so that `parse_value` gives it back."""
    if isinstance(value, tuple):
        return _quote("|".join(map(str, value)))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if value is REQUIRED:
        return "required"
    plain = isinstance(value, float) and not isinstance(value, (Duration, Share))
    return _quote(repr(value) if plain else str(value))


def _quote(text: str) -> str:
    if BARE.fullmatch(text) and text.lower() != "none":
        return text
    return json.dumps(text, ensure_ascii=False)


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        what = r"a text in which quotes are written \" and backslashes \\"
        raise ValueError(what) from None


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def list_options(cls: type) -> list[Option]:
    """List the options of a dataclass: name, type, default, and the docstring line below each."""
    hints, docs = typing.get_type_hints(cls), field_docs(cls)
    return [
        Option(f.name, type_name(hints[f.name]), format_value(_default(f)), docs.get(f.name, ""))
        for f in dataclasses.fields(cls)
    ]


def type_name(hint: Any) -> str:  # noqa: ANN401
    """Name a type as help shows it: `int`, `a|b|c`, `text|text|...`."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join("none" if c is type(None) else type_name(c) for c in choices)
    if origin is Literal:
        return "|".join(map(str, choices))
    if origin is tuple:
        return f"{type_name(choices[0])}|..."
    return {str: "text", Duration: "time", Share: "share"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


def field_docs(cls: type) -> dict[str, str]:
    """Read the string below each field of a class from its source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, after in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                docs[field.target.id] = " ".join(str(after.value.value).split())
    return docs
