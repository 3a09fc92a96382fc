"""The JSON schema of a recipe file."""

from dataclasses import fields
from typing import Any

from yqc.settings.origin import Plugin
from yqc.settings.settings import Settings, setting_helps, setting_types
from yqc.settings.values import describe

_HASHED = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "sha256": {"type": "string"}},
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of what a recipe file holds; every key may be left out."""
    from pydantic import Field, create_model  # noqa: PLC0415  # takes long, and --help must not

    keys: dict[str, Any] = {}
    for name, hint in setting_types().items():
        kind = str | None if describe(hint) == "a path" else hint  # names that are no UTF-8, too
        keys[name] = (kind, Field(getattr(Settings(), name), description=setting_helps()[name]))
    found: dict[str, Any] = create_model("Recipe", **keys).model_json_schema()
    origin = {
        "yqc": {"type": "string"},
        "input": _HASHED,
        "dataset": _HASHED,
        "target_file": _HASHED,
    }
    keys = {one.name: {"type": "string"} for one in fields(Plugin)}
    lists = {"load": _HASHED, "plugin": {"type": "object", "properties": keys}}
    found["properties"] |= origin
    found["properties"] |= {k: {"type": "array", "items": one} for k, one in lists.items()}
    return {**found, "additionalProperties": False}
