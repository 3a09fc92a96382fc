"""The help of all commands as plain values, for editors and wrappers; made from the commands."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.models import OptionInfo

from yqc.report.contract import Json, to_plain
from yqc.settings import SETTINGS, Settings
from yqc.settings.settings import setting_types
from yqc.settings.values import describe

KINDS = {bool: "flag", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def describe_commands(app: typer.Typer, version: str) -> dict[str, Json]:
    """Return name, help, arguments and options of every command.

    An option has its flags, the kind of its value in words or its choices, its default and its
    help; the default of a setting is that of `Settings`.
    """
    commands: list[Json] = [
        {"name": one.name, "help": inspect.getdoc(one.callback), **_parameters(one.callback)}
        for one in app.registered_commands
        if one.callback is not None
    ]
    common = app.registered_callback
    shared = _parameters(common.callback) if common and common.callback else {}
    return {
        "name": "yqc",
        "version": version,
        "help": app.info.help,
        "options": shared.get("options", []),
        "commands": commands,
    }


def _parameters(function: Callable[..., object]) -> dict[str, Json]:
    """Describe the arguments and the options of a command."""
    found: dict[str, list[Json]] = {"arguments": [], "options": []}
    for one in inspect.signature(function).parameters.values():
        kind, info = typing.get_args(one.annotation)
        place = "options" if isinstance(info, OptionInfo) else "arguments"
        found[place].append(_describe(one, kind, info))
    return {**found}


def _describe(parameter: inspect.Parameter, kind: Any, info: Any) -> Json:  # noqa: ANN401  # types
    name, default = parameter.name, parameter.default
    inner = kind
    if isinstance(kind, types.UnionType):
        inner = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    several = typing.get_origin(inner) is list
    inner = typing.get_args(inner)[0] if several else inner
    choices = [one.value for one in inner] if issubclass(inner, Enum) else None
    words = "one of the choices" if choices else KINDS[inner]
    if default is None and name in SETTINGS:
        default, words = getattr(Settings(), name), describe(setting_types()[name])
    required = default is inspect.Parameter.empty
    declared = (info.default, *(info.param_decls or ()))  # typer takes the first for a default
    flags = [one for one in declared if isinstance(one, str) and one.startswith("-")]
    flags = flags or [f"--{name.replace('_', '-')}"]
    about: Mapping[str, object] = {
        "name": name,
        **({"flags": flags} if isinstance(info, OptionInfo) else {}),
        "kind": words,
        "choices": choices,
        "several": several,
        "required": required,
        "default": None if required else _plain(default),
        "help": info.help,
    }
    return to_plain(about)


def _plain(value: object) -> object:
    """Return a default as JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
