"""What of a compile is not yqc's own: passes, criteria, methods, schemes, targets of users."""

from collections.abc import Iterable

from yqc.job.keys import find_source
from yqc.models.graph_files import file_sha256
from yqc.pipeline.base import Pass, Recipe
from yqc.pipeline.options import chosen_names
from yqc.pipeline.registry import BUILTIN, Registry
from yqc.registered import TARGET_NAMES, Added
from yqc.settings import Plugin, Settings
from yqc.targets import find_target


def find_plugins(
    actions: Iterable[Pass | Recipe], registry: Registry, settings: Settings
) -> tuple[Plugin, ...]:
    """List what passes and recipes, their options and the target use that is not yqc's own."""
    found = dict[tuple[str, str], Plugin]()
    for one in actions:
        if not type(one).__module__.startswith(f"{BUILTIN}."):
            found[("pass", one.name)] = describe_pass(one, registry)
        for name, names in chosen_names(one):
            if (added := names.find(name)) is not None:
                found[(added.kind, name)] = describe_added(added)
    target = find_target(settings.target)
    if target.base is None and (added := TARGET_NAMES.find(target.name)) is not None:
        found[("target", target.name)] = describe_added(added)
    return tuple(found.values())


def describe_pass(one: Pass | Recipe, registry: Registry) -> Plugin:
    """Describe a pass that is not yqc's own."""
    known, module = registry.found.get(one.name), type(one).__module__
    path = find_source(type(one))
    origin = module if known is None else known.origin
    sha256 = "" if path is None else file_sha256(path)
    return Plugin("pass", one.name, origin, name_file(origin, module), sha256)


def describe_added(added: Added) -> Plugin:
    """Describe what a user registered."""
    file = name_file(added.origin, added.module)
    return Plugin(added.kind, added.name, added.origin, file, added.sha256)


def name_file(origin: str, module: str) -> str:
    """Name the file of a module: as it was loaded, or within its package."""
    return origin if origin.endswith(".py") else f"{module.replace('.', '/')}.py"
