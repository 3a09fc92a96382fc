"""Read what `dill` writes in ways of its own: types by name, modules, attributes, classes by value.

Functions and their code come out as empty `Inert` objects. A global that is reached through an
attribute of a module is an `Inert` "dill.global" that holds its path; it is checked against the
allow-list when something is made of it.
"""

from collections.abc import Callable
from typing import TypeAlias

from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named

Build: TypeAlias = Callable[[tuple[object, ...], Allowance], object]

CONTAINERS = frozenset({"set", "frozenset", "list", "tuple", "dict", "bytes", "bytearray"})
"""Containers that dill names in its own way."""
GLOBAL = "dill.global"
EMPTY = ("_create_function", "_create_code", "_create_cell", "_create_namedtuple", "_setitems")
"""Functions of dill whose arguments are code, or what code refers to, itself at times."""


def load_type(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `_load_type(name)`: a container of Python's, or some type of its library."""
    match args:
        case (str(name),) if name in CONTAINERS:
            return Named(f"builtins.{name}")
        case ("MethodType",):
            return Named("types.MethodType")
        case (str(),):
            return Inert("dill._dill._load_type", args)
    raise MalformedError("it names a type through dill by something that is no text")


def import_module(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `_import_module(name)`, without importing it."""
    match args:
        case (str(name), *_):
            return Inert(GLOBAL, (name,))
    raise MalformedError("it names a module through dill by something that is no text")


def get_attribute(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `_get_attr(owner, name)`, a module's, a class's or an object's."""
    match args:
        case (Inert(class_path=class_path, args=(str(path),)), str(name)) if class_path == GLOBAL:
            return Inert(GLOBAL, (f"{path}.{name}",))
        case (Named(path), str(name)):
            return Inert(GLOBAL, (f"{path}.{name}",))
        case (Inert(), str(name)):
            return Inert("builtins.getattr", (name,))
    raise MalformedError("it takes an attribute through dill of something that is no object")


def create_type(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `_create_type(metaclass, name, bases, attributes)`: a class stored by value."""
    match args:
        case (_, str(name), tuple(), dict() as attributes):
            home = attributes.get("__module__")
            return Inert(GLOBAL, (f"{home if isinstance(home, str) else '__main__'}.{name}",))
    raise MalformedError("it makes a class through dill of unknown parts")


def set_attribute(args: tuple[object, ...], _: Allowance) -> object:
    """Stand for `setattr(class, "__qualname__", name)`, which changes nothing here."""
    match args:
        case (Inert(class_path=class_path), str(), _) if class_path.startswith("dill."):
            return None
    raise MalformedError("it sets an attribute of something that dill did not make")


def leave_empty(path: str) -> Build:
    """Make a builder that drops what it is given."""
    return lambda _args, _allowance: Inert(path)


BUILDERS: dict[str, Build] = {
    f"dill.{home}.{name}": build
    for home in ("_dill", "dill")
    for name, build in {
        "_load_type": load_type,
        "_import_module": import_module,
        "_get_attr": get_attribute,
        "_create_type": create_type,
        **{name: leave_empty(f"dill._dill.{name}") for name in EMPTY},
    }.items()
}
"""Builders for the functions of dill, by the modules that releases had them in."""
