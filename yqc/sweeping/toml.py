"""A sweep as a TOML file.

    passes = ["int8", "int4,int8"]
    grid = ["int8{ranges=[relevance,mse]}"]
    calib_images = 64

    [[model]]
    path = "a.pt"
    data = "a.yaml"
    imgsz = 320

A key beside `passes` and `grid` is a setting of all models, one in `[[model]]` that of this model.
A model may have `passes` and `grid` of its own, in place of those above, and a `name`. Relative
paths are relative to the working directory, as in recipes.
"""

import tomllib
from pathlib import Path
from typing import Any

from yqc.errors import PipelineError, near
from yqc.pipeline.registry import Registry
from yqc.settings import SETTINGS, SettingError, Settings, choose
from yqc.sweeping.plan import Plan, plan_sweep

LISTS = ("passes", "grid")
OWN = ("path", "name", *LISTS)
SHARED = tuple(name for name in SETTINGS if name != "passes")


def read_plan(path: Path, base: Settings, registry: Registry) -> Plan:
    """Read the TOML file of a sweep; settings that it does not give are those of `base`.

    Raises:
        YqcError: it cannot be read, or something in it is wrong.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"cannot read the sweep {path}: {error}") from error
    models = found.pop("model", [])
    if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
        raise PipelineError(f"{path}: a model is a table, [[model]], with its path")
    try:
        _check_keys(found, (*LISTS, *SHARED), "a sweep")
        above, lists = _settings(found, base), {key: _texts(found, key) for key in LISTS}
        planned = []
        for model in models:
            _check_keys(model, (*OWN, *SHARED), "[[model]]")
            if not isinstance(model.get("path"), str):
                raise SettingError("[[model]]", "has no path")
            own = [_texts(model, key) if key in model else lists[key] for key in LISTS]
            name = model.get("name")
            if not (name is None or isinstance(name, str)):
                raise SettingError("name", f"must be a text, not {name!r}")
            planned.append((name, Path(model["path"]), _settings(model, above), own[0], own[1]))
        return plan_sweep(planned, registry)
    except PipelineError as error:
        raise type(error)(*_placed(error, path)) from error


def _placed(error: PipelineError, path: Path) -> tuple[str, ...]:
    """Return the arguments of an error with the file's name in front."""
    return (f"{path}:", str(error)) if isinstance(error, SettingError) else (f"{path}: {error}",)


def _check_keys(table: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in known:
            raise PipelineError(f"{what} has no key {key!r}{near(key, known)}")


def _settings(table: dict[str, Any], base: Settings) -> Settings:
    return choose(base, {key: value for key, value in table.items() if key in SHARED})


def _texts(table: dict[str, Any], key: str) -> list[str]:
    texts = table.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise SettingError(key, "must be a list of texts")
    return texts
