"""Settings given by name: as arguments of Python functions, or as texts of the command line."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

from yqc.errors import near
from yqc.settings.settings import SETTINGS, Settings, setting_types
from yqc.settings.values import SettingError, check_value

MODEL = ("imgsz", "head", "arch")
"""The settings of what reads a model."""
DATA = ("data", "images", "single_class", "strict")
"""Those of what reads a data set, too."""
FunctionType = TypeVar("FunctionType", bound=Callable[..., Any])


def choose(base: Settings | None, choices: Mapping[str, Any]) -> Settings:
    """Return `base`, or the defaults, with settings replaced by name.

    Raises:
        SettingError: there is no such setting, or a value is not allowed.
    """
    for name in choices:
        if name not in SETTINGS:
            raise SettingError(name, f"is no argument{near(name, SETTINGS)}")
    base = base or Settings()
    return replace(base, **choices, given=base.given | choices.keys())


def read_text(name: str, text: str) -> object:
    """Read a setting as the command line writes it, such as `640` for `imgsz`.

    Raises:
        SettingError: the value is not allowed; its name is that of the option.
    """
    option = f"--{name.replace('_', '-')}"
    return check_value(option, setting_types()[name], text, text=True)


def with_choices(*names: str) -> Callable[[FunctionType], FunctionType]:
    """Let a function take these settings as its `**choices`, and no other arguments.

    Python shows them one by one among the arguments of the function.
    """

    def decorate(function: FunctionType) -> FunctionType:
        signature, types = inspect.signature(function), setting_types()
        own = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        defaults = {one.name: one.default for one in fields(Settings)}
        shared = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=types[name]
            )
            for name in names
            if name not in own
        ]

        @functools.wraps(function)
        def checked(*given: Any, **choices: Any) -> Any:  # noqa: ANN401  # as the function has it
            for name in choices:
                if name not in own and name not in names:
                    hint = near(name, [*own, *names])
                    raise SettingError(name, f"is no argument of {function.__name__}{hint}")
            return function(*given, **choices)

        checked.__signature__ = signature.replace(parameters=[*own.values(), *shared])  # type: ignore[attr-defined]
        return cast(FunctionType, checked)

    return decorate
