"""List the passes without importing them, and describe one in full."""

import inspect
import sys
from dataclasses import replace

from yqc.pipeline.base import Given, Recipe
from yqc.pipeline.options import list_options, sets_of
from yqc.pipeline.registry import Registry
from yqc.registered import SETS
from yqc.report import AddedName, OptionHelp, PassHelp, PassList, PassListing


def listings(registry: Registry) -> PassList:
    """List every pass by name, with what it does and where it comes from."""
    by_name = sorted(registry.found.values(), key=lambda found: found.name)
    added = list_added()
    return PassList(
        tuple(
            PassListing(
                name=f.name,
                doc=f.summary(),
                origin=f.origin,
                recipe=f.is_recipe,
                added=tuple(added.get(f.name, ())),
            )
            for f in by_name
        ),
        targets=tuple(added.get("", ())),
    )


def list_added() -> dict[str, list[AddedName]]:
    """List the names that users registered by the pass that takes them; targets under ""."""
    found: dict[str, list[AddedName]] = {}
    for names in SETS:
        for option in names.options:
            owner, _, field = option.removesuffix("}").rpartition("{")
            rows = [AddedName(field, one.name, one.origin) for one in names.added()]
            found.setdefault(owner, []).extend(rows)
    return found


def describe_pass(registry: Registry, name: str) -> PassHelp:
    """Describe one pass: its docstring, options, and what it needs and gives.

    Raises:
        PipelineError: nothing has that name.
    """
    kind = registry.load(name)
    doc = inspect.getdoc(sys.modules[kind.__module__]) or inspect.getdoc(kind) or ""
    sets = sets_of(kind)
    options = tuple(
        OptionHelp(
            name=o.name,
            type=o.type,
            default=o.default,
            doc=o.doc,
            added=tuple(
                AddedName(o.name, one.name, one.origin)
                for one in (sets[o.name].added() if o.name in sets else ())
            ),
        )
        for o in list_options(kind)
    )
    about = PassHelp(name=name, origin=registry.found[name].origin, doc=doc, options=options)
    if issubclass(kind, Recipe):
        return replace(about, expands_to=kind().expand(Given(has_data=True, can_train=True)))
    requires, excludes, provides = map(sorted, (kind.requires, kind.excludes, kind.provides))
    return replace(
        about, requires=tuple(requires), excludes=tuple(excludes), provides=tuple(provides)
    )
