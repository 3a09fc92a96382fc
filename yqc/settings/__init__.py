"""Settings of a compile: the one source of each, and the recipe file that repeats a compile.

`values`    what a setting may be: words for it, its usual forms, the check
`settings`  the settings, a field each: type, check, default and help
`choices`   settings given by name: as Python arguments, or as texts
`origin`    what a recipe was written for
`recipe`    recipe files
`budget`    what a user can spend: loss, bytes, milliseconds
`schema`    the JSON schema of a recipe file
"""

from yqc.settings.budget import Budget, Drop
from yqc.settings.choices import DATA, MODEL, choose, read_text, with_choices
from yqc.settings.origin import HashedFile, Plugin, Provenance
from yqc.settings.recipe import parse_recipe, read_recipe, write_recipe
from yqc.settings.schema import recipe_schema
from yqc.settings.settings import SETTINGS, Settings
from yqc.settings.values import SettingError

__all__ = [
    "DATA",
    "MODEL",
    "SETTINGS",
    "Budget",
    "Drop",
    "HashedFile",
    "Plugin",
    "Provenance",
    "SettingError",
    "Settings",
    "choose",
    "parse_recipe",
    "read_recipe",
    "read_text",
    "recipe_schema",
    "with_choices",
    "write_recipe",
]
