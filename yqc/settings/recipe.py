"""Recipe files: TOML that `--config` runs again.

    yqc = "0.1.0"
    passes = "fold-bn"
    imgsz = [640, 640]
    ...
    [input]
    path = "model.pt"
    sha256 = "..."

    [dataset]
    path = "data.yaml"
    sha256 = "..."

    [target_file]
    path = "my-npu.toml"
    sha256 = "..."

    [[load]]
    path = "my_pass.py"
    sha256 = "..."

    [[plugin]]
    kind = "pass"
    name = "my-pass"
    origin = "my_pass.py"
    file = "my_pass.py"
    sha256 = "..."

The tables say what the recipe was written for; a compile of something else says so. A recipe cannot
load Python.
"""

import json
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from yqc.errors import PipelineError, near
from yqc.settings.origin import HashedFile, Plugin, Provenance
from yqc.settings.settings import SETTINGS, Settings
from yqc.settings.values import SettingError

LARGEST = 16 << 20
"""Bytes of a recipe file. Plans of 4-bit weights take some 100 kB; half or double of the bound
changes nothing but the memory that a file of another kind takes before it is refused."""
DEEP = 100
"""Dots in a key at most; the time that tomllib takes grows with their square."""
ORIGINS = ("input", "dataset", "target_file", "load", "plugin")
"""The tables of a recipe file that say what it was written for."""


def write_recipe(settings: Settings, origin: Provenance) -> str:
    """Return the TOML text that repeats a compile, with what it was written for."""
    lines = [f"yqc = {to_toml(origin.version)}"]
    for name in SETTINGS:
        value = getattr(settings, name)
        if value is not None:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{name} = {to_toml(plain)}")
    tables = [
        ("[input]", origin.model),
        ("[dataset]", origin.data),
        ("[target_file]", origin.target_file),
    ]
    tables += [("[[load]]", file) for file in origin.loaded]
    for head, file in tables:
        if file is not None:
            lines += ["", head, f"path = {to_toml(file.path)}", f"sha256 = {to_toml(file.sha256)}"]
    for one in origin.plugins:
        lines += ["", "[[plugin]]", *(f"{key} = {to_toml(v)}" for key, v in vars(one).items())]
    return "\n".join([*lines, ""])


def to_toml(value: object) -> str:
    """Write a plain value: TOML's are JSON's, but for one character that must be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_recipe(path: Path) -> Settings:
    """Read a recipe file. Relative paths in it are relative to the working directory.

    Raises:
        PipelineError: the file cannot be read, or holds a key or value that does not belong there.
    """
    try:
        text = _read_short(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read the recipe {path}: {error}") from error
    return parse_recipe(text, path)


def parse_recipe(text: str, path: Path) -> Settings:
    """Read the text of a recipe, which stands in a file; see `read_recipe`."""
    try:
        found = tomllib.loads(_refuse_depth(text))
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read the recipe {path}: {error}") from error
    except RecursionError as error:
        raise PipelineError(f"cannot read the recipe {path}: it is nested too deeply") from error
    values: dict[str, Any] = {}
    for key, value in found.items():
        if key == "yqc" or (key in ORIGINS and isinstance(value, dict | list)):
            continue
        if key not in SETTINGS:
            raise PipelineError(f"{path}: a recipe has no key {key!r}{near(key, SETTINGS)}")
        values[key] = value
    origin = _provenance(found)
    try:
        return Settings(**values, written_for=origin, given=frozenset(values))
    except SettingError as error:
        advice = origin.advise() if "target" in values else ""
        raise PipelineError(f"{path}: {error}{advice}") from error


def _read_short(path: Path) -> str:
    """Return the text of a regular file of at most `LARGEST` bytes; else raise an OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no file")
    if status.st_size > LARGEST:
        raise OSError(f"it has more than {LARGEST >> 20} MiB")
    return path.read_text(encoding="utf-8")


def _refuse_depth(text: str) -> str:
    """Return a text of TOML whose keys are not nested deeply; else raise an OSError."""
    keys = (line.partition("=")[0] for line in text.splitlines())
    if any(key.count(".") > DEEP and not {*key} & {*"\"'"} for key in keys):
        raise OSError("it is nested too deeply")
    return text


def _provenance(found: Mapping[str, Any]) -> Provenance:
    """Read what a recipe was written for; what is missing or malformed counts as not recorded."""
    loaded, plugins = found.get("load"), found.get("plugin")
    plugins = plugins if isinstance(plugins, list) else []
    return Provenance(
        version=str(found.get("yqc", "")),
        model=_hashed(found.get("input")),
        data=_hashed(found.get("dataset")),
        target_file=_hashed(found.get("target_file")),
        loaded=tuple(filter(None, map(_hashed, loaded if isinstance(loaded, list) else ()))),
        plugins=tuple(_plugin(one) for one in plugins if isinstance(one, dict)),
    )


def _plugin(table: Mapping[str, Any]) -> Plugin:
    return Plugin(**{one.name: str(table.get(one.name, "")) for one in fields(Plugin)})


def _hashed(table: object) -> HashedFile | None:
    if not isinstance(table, dict) or not table.get("sha256"):
        return None
    return HashedFile(str(table.get("path", "")), str(table["sha256"]))
