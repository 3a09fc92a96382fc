"""Options: the `key=value` of an item of pipeline text to and from fields of a frozen dataclass.

Given in Python, fields are held to the same types and bounds. What a pass prints of itself names
only what differs from the defaults, and parses back to an equal pass.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from yqc.errors import OptionError, PipelineError, near
from yqc.pipeline.grammar import Item, caret
from yqc.pipeline.values import OptionType, format_value
from yqc.registered import NamedSet

T = TypeVar("T")
REQUIRED = dataclasses.MISSING
"""The default of an option that has none."""


@dataclass(frozen=True)
class Option:
    """One option of a pass, as help shows it."""

    name: str
    type: str
    default: str
    doc: str


_TYPES: dict[type, dict[str, OptionType]] = {}


def types_of(cls: type) -> dict[str, OptionType]:
    """Return the options of a dataclass by name, in order; type hints are resolved once."""
    if cls not in _TYPES:
        hints = typing.get_type_hints(cls, include_extras=True)
        _TYPES[cls] = {f.name: OptionType.of(hints[f.name]) for f in dataclasses.fields(cls)}
    return _TYPES[cls]


def sets_of(cls: type) -> dict[str, NamedSet]:
    """Return the options whose value is a name that users can register, and the set of each."""
    firsts = {name: kind.kinds[0] for name, kind in types_of(cls).items()}
    return {name: kind for name, kind in firsts.items() if isinstance(kind, NamedSet)}


def chosen_names(options: object) -> list[tuple[str, NamedSet]]:
    """List the values of such options, and the set of each."""
    sets = sets_of(type(options)).items()
    return [(str(getattr(options, name)), names) for name, names in sets]


def check_options(options: object, name: str) -> None:
    """Hold the fields of a frozen dataclass to their types and bounds; convert what has a form.

    Raises:
        OptionError: a value does not fit; the message names `name`, the option and what it must be.
    """
    for option, kind in types_of(type(options)).items():
        value = getattr(options, option)
        try:
            object.__setattr__(options, option, kind.convert(value))
        except ValueError as error:
            raise OptionError(f"{name}: {_misfit(option, error, repr(value))}") from None


def _misfit(option: str, error: ValueError, shown: str) -> str:
    """Say what an option must be, and what it was."""
    must, *advice = error.args
    return f"{option} must be {must}, not {shown}{''.join(advice)}"


def build_options(cls: type[T], item: Item, text: str) -> T:
    """Make an instance of the dataclass `cls` from an item of `text`.

    Raises:
        OptionError: an unknown or repeated option, or a value that does not fit; a caret shows
            where.
    """
    known, values = types_of(cls), dict[str, Any]()
    for setting in item.settings:
        if setting.name not in known:
            hint = near(setting.name, known) or f"; it has: {', '.join(known) or 'no options'}"
            message = f"{item.name} has no option {setting.key!r}{hint}"
            raise caret(message, text, setting.key_at, len(setting.key))
        if setting.name in values:
            raise caret(f"{setting.key!r} is given twice", text, setting.key_at, len(setting.key))
        try:
            values[setting.name] = known[setting.name].parse(setting.value)
        except ValueError as error:
            raise item.refuse(text, _misfit(setting.key, error, setting.value)) from None
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values and _default(field) is REQUIRED:
            message = f"{item.name} needs a value for its option {field.name!r}"
            raise caret(message, text, item.at, len(item.name))
    try:
        return cls(**values)
    except (ValueError, PipelineError) as error:
        raise item.refuse(text, str(error).removeprefix(f"{item.name}: ")) from None


def format_item(name: str, options: object) -> str:
    """Print a dataclass as options text: its name, and the fields that differ from the default."""
    changed = [
        f"{f.name}={format_value(getattr(options, f.name))}"
        for f in dataclasses.fields(options)  # type: ignore[arg-type]
        if getattr(options, f.name) != _default(f)
    ]
    return f"{name}{{{' '.join(changed)}}}" if changed else name


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _print_default(field: "dataclasses.Field[Any]") -> str:
    default = _default(field)
    return "required" if default is REQUIRED else format_value(default)


def list_options(cls: type) -> list[Option]:
    """List the options of a dataclass: name, type, default, and the docstring line below each."""
    docs = field_docs(cls)
    return [
        Option(f.name, str(kind), _print_default(f), docs.get(f.name, ""))
        for f, kind in zip(dataclasses.fields(cls), types_of(cls).values(), strict=True)
    ]


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
