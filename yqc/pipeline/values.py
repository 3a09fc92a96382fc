"""Values of options: the types that they have, from text and from Python, and back to text.

Values are `true`/`false`, numbers, times (`10m`), shares (`1%`), bytes (`950KB`), one of a
`Literal`'s choices, plain or "quoted" text, and lists: `[a,b]`, or `a|b` as earlier versions wrote.
"""

import json
import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar

from yqc.pipeline.grammar import BARE, LIST, QUOTED, QUOTES
from yqc.registered import NamedSet

T = TypeVar("T")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WORD = re.compile(rf'[^\s{{}}"=,|\[\]{QUOTES}]+')
"""An element of a list that needs no quotes."""
ELEMENT = re.compile(rf'\s*({QUOTED.pattern}|(?:\[[^][]*\]|[^\s,"\[\]])+)\s*(?:,(?!$)|$)')


class Duration(float):
    """A length of time in seconds; as text 90, 90s, 10m or 1.5h."""

    WHAT: ClassVar[str] = "a time such as 90s, 10m or 1.5h"
    UNITS: ClassVar[dict[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0}

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a text; a ValueError says what it must be."""
        return cls(_with_unit(text, cls.UNITS, cls.WHAT))

    def __str__(self) -> str:
        for unit, length in self.UNITS.items():
            if self >= length and (self / length).is_integer():
                return f"{int(self / length)}{unit}"
        return f"{Decimal(repr(float(self))):f}".removesuffix(".0") + "s"


class Share(float):
    """A share of a whole; as text 1% or 0.01."""

    WHAT: ClassVar[str] = "a share such as 1% or 0.01"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a text; a ValueError says what it must be."""
        plain = text.removesuffix("%")
        value = _number(plain, float, cls.WHAT)
        return cls(value / 100 if plain != text else value)


class ByteSize(int):
    """A number of bytes; as text 950KB, 1.2MB or 950000."""

    WHAT: ClassVar[str] = "a number of bytes such as 950KB, 1.2MB or 950000"
    THOUSANDS: ClassVar[dict[str, float]] = {"GB": 1e9, "MB": 1e6, "KB": 1e3}
    UNITS: ClassVar[dict[str, float]] = {**THOUSANDS, "B": 1, "MiB": 2**20, "KiB": 2**10}

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a text; a ValueError says what it must be."""
        return cls(_with_unit(text, cls.UNITS, cls.WHAT))

    def __str__(self) -> str:
        for unit, size in self.THOUSANDS.items():
            if self and not self % size:
                return f"{int(self / size)}{unit}"
        return repr(int(self))


QUANTITIES: dict[Any, str] = {Duration: "time", Share: "share", ByteSize: "bytes"}
"""Numbers with a text form of their own, and the names of their types in help. A field is one of
them, or `Annotated[float, Share]`, which a type checker takes for a float."""


NUMERIC: dict[Any, str] = {int: "a whole number", float: "a number"}
NUMERIC |= {kind: kind.WHAT for kind in QUANTITIES}
WANTED: dict[Any, str] = {bool: "true or false", str: "a text", types.NoneType: "none"}
"""What a value must be by its type, as messages say it; so does `NUMERIC` for numbers."""


def _with_unit(text: str, units: dict[str, float], what: str) -> float:
    """Read a number with a unit; without one the factor is 1."""
    known = {unit.lower(): factor for unit, factor in units.items()}
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([a-z]*)", text.lower(), re.ASCII)
    if match is None or match[2] not in {"", *known}:
        raise ValueError(what)
    return float(match[1]) * known.get(match[2], 1.0)


def _number(text: str, kind: type[T], what: str) -> T:
    try:
        value = kind(text if NUMBER.fullmatch(text) else "")  # type: ignore[call-arg]
    except ValueError:
        is_other = text.lower().strip("+-") in {"inf", "infinity", "nan"} and kind is float
        raise ValueError("a finite number" if is_other else what) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    return value


@dataclass(frozen=True)
class Bounds:
    """Ends of the range of a number, in an option's type: `Annotated[int, Bounds(least=1)]`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __str__(self) -> str:
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"between {self.least:g} and {self.most:g}"
        texts = {"above {:g}": self.above, "{:g} or above": self.least}
        texts |= {"below {:g}": self.below, "at most {:g}": self.most}
        return " and ".join(t.format(end) for t, end in texts.items() if math.isfinite(end))

    def hold(self, value: float) -> bool:
        """Return whether a number is within the range."""
        return self.least <= value <= self.most and self.above < value < self.below


Count: TypeAlias = Annotated[int, Bounds(least=1)]
"""A whole number from 1 on."""


@dataclass(frozen=True)
class OptionType:
    """The type of an option: kinds of values that are tried in order, and bounds of numbers."""

    kinds: tuple[Any, ...]
    bounds: tuple[Bounds, ...] = ()

    @classmethod
    def of(cls, hint: Any, quantity: Any = None) -> Self:  # noqa: ANN401
        """Make one of a type hint; numbers are a quantity where `Annotated` names one."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            if names := next((m for m in inner if isinstance(m, NamedSet)), None):
                return cls((names,))
            quantity = next((q for q in QUANTITIES if q in inner), quantity)
            found = cls.of(inner[0], quantity)
            return cls(found.kinds, (*found.bounds, *(m for m in inner if type(m) is Bounds)))
        if origin in {typing.Union, types.UnionType}:
            members = [cls.of(one, quantity) for one in inner]
            bounds = tuple(b for one in members for b in one.bounds)
            return cls(tuple(k for one in members for k in one.kinds), bounds)
        return cls((quantity if quantity and hint in {int, float} else hint,))

    def __str__(self) -> str:
        return " or ".join(map(type_name, self.kinds))

    def parse(self, text: str) -> Any:  # noqa: ANN401
        """Read a text; the arguments of a ValueError are what it must be, and advice."""
        if types.NoneType in self.kinds and text.lower() == "none":
            return None
        return self._first(lambda kind: _parse(text, kind))

    def convert(self, value: object) -> Any:  # noqa: ANN401
        """Return a Python value as the field holds it; a ValueError as in `parse`."""
        return self._first(lambda kind: _convert(value, kind))

    def _first(self, read: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        """Return what the first kind makes of a value that takes it, if it is within bounds."""
        problems = []
        if len(self.kinds) == 1 and isinstance(self.kinds[0], NamedSet):
            return read(self.kinds[0])
        for kind in self.kinds:
            try:
                value = read(kind)
                break
            except ValueError as error:
                problems.append(str(error))
        else:
            raise ValueError(" or ".join(problems))
        for limit in self.bounds if isinstance(value, int | float) else ():
            if not limit.hold(value):
                near_by = f"; did you mean {value:g}% or {value / 100:g}?"
                advise = isinstance(value, Share) and limit.hold(value / 100)
                raise ValueError(str(limit), near_by if advise else "")
        return value


def _parse(text: str, kind: Any) -> Any:  # noqa: ANN401
    """Read a value of one type; a ValueError says what it must be."""
    if typing.get_origin(kind) is tuple:
        return _parse_list(text, typing.get_args(kind)[0])
    if text.startswith('"'):
        text = _unquote(text)
    if isinstance(kind, NamedSet):
        return kind.check(text)
    if kind is types.NoneType:
        raise ValueError(WANTED[kind])
    if typing.get_origin(kind) is Literal:
        known = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in known:
            raise ValueError("one of " + ", ".join(known))
        return known[text]
    if kind is bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise ValueError(WANTED[bool])
    if kind in {int, float}:
        return _number(text, kind, NUMERIC[kind])
    return kind.read(text) if kind in QUANTITIES else text


def _parse_list(text: str, kind: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Read `[a,b]`, or the older `a|b`."""
    if not LIST.fullmatch(text):
        plain = _unquote(text) if text.startswith('"') else text
        words = plain.split("|") if plain else []
    else:
        words = [_unquote(one) if one.startswith('"') else one for one in split_list(text)]
    return tuple(word if kind is str else _parse(word, kind) for word in words)


def split_list(text: str) -> list[str]:
    """Return the texts of the elements of a list `[a,b]`; a ValueError if it is none."""
    inner, found = text[1:-1].strip(), []
    while inner:
        if (element := ELEMENT.match(inner)) is None:
            raise ValueError("a list such as [a,b]")
        found.append(element[1])
        inner = inner[element.end() :]
    return found


def _convert(value: object, kind: Any) -> Any:  # noqa: ANN401
    """Return a Python value as one type; a ValueError says what it must be."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, NamedSet):
        return kind.check(str(value))
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(OptionType.of(inner[0]).convert(one) for one in value)
    if origin is Literal and value not in inner:
        raise ValueError("one of " + ", ".join(map(str, inner)))
    if kind in QUANTITIES and isinstance(value, str):
        return kind.read(value)
    if kind in NUMERIC:
        fits = isinstance(value, Integral if issubclass(kind, int) else Real)
        if fits and not isinstance(value, bool) and math.isfinite(value):  # type: ignore[arg-type]
            return kind(value)
    elif origin is not tuple and (kind not in WANTED or isinstance(value, kind)):
        return value
    raise ValueError({**NUMERIC, **WANTED}.get(kind, "a list"))


def format_value(value: object) -> str:
    """Print one value so that it parses back to an equal one."""
    if isinstance(value, tuple):
        words = [_quote(_plain(one), WORD) for one in value]
        alone = len(words) == 1 and WORD.fullmatch(words[0])
        return words[0] if alone else f"[{','.join(words)}]"
    return _plain(value) if value is None else _quote(_plain(value), BARE)


def _plain(value: object) -> str:
    """Print a value without quotes."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not isinstance(value, Duration):
        return repr(float(value))
    return str(value)


def _quote(text: str, pattern: re.Pattern[str]) -> str:
    if pattern.fullmatch(text) and text.lower() != "none":
        return text
    return json.dumps(text, ensure_ascii=False)


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        what = r"a text in which quotes are written \" and backslashes \\"
        raise ValueError(what) from None


def type_name(kind: Any) -> str:  # noqa: ANN401
    """Name a type as help shows it: `int`, `a|b|c`, `[text,...]`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, NamedSet):
        return "|".join(kind.names())
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return f"[{type_name(inner[0])},...]"
    names = {str: "text", types.NoneType: "none", **QUANTITIES}
    return str(names.get(kind, getattr(kind, "__name__", kind)))
