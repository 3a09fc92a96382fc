"""Sets of named things that users can add to.

A set has yqc's own names, those of entry points of installed packages, and those that a file of
`--load` or an imported module registered. Its names are known without importing what they stand
for.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from yqc.errors import PipelineError, near

V = TypeVar("V")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Added:
    """One thing that is not yqc's own."""

    kind: str
    """Such as `criterion`."""
    name: str
    origin: str
    """`acme-yqc 1.2`, or the path of a file."""
    module: str
    """The module that has it."""
    value: Any = None
    """None until its package is imported."""

    @property
    def file(self) -> Path | None:
        """The file of its module, where Python knows it."""
        found = getattr(sys.modules.get(self.module), "__file__", None)
        return Path(found) if found else None

    @property
    def sha256(self) -> str:
        """The hash of that file; empty where there is none."""
        file = self.file
        if file is None or not file.is_file():
            return ""
        return hashlib.sha256(file.read_bytes()).hexdigest()


class NamedSet:
    """Things of one kind by name, which users can add to.

    Args:
        kind: what one is called, and what several are.
        group: of entry points.
        options: where their names are written, such as `prune{criterion}`.
        own: names of yqc's own, which are not kept here.
    """

    def __init__(
        self, kind: str, kinds: str, *, group: str, options: tuple[str, ...], own: tuple[str, ...]
    ) -> None:
        self.kind, self.kinds, self.group, self.options, self.own = kind, kinds, group, options, own
        self._added: dict[str, Added] = {}

    def register(self, name: str, value: V, module: str | None = None) -> V:
        """Add a thing by name; `module` has it, by default the one in which it is defined.

        Raises:
            PipelineError: the name is taken, or is none.
        """
        if not NAME.fullmatch(name):
            raise PipelineError(f"{name!r} cannot name {self.kinds}: write small letters, my-one")
        module = module or str(getattr(value, "__module__", ""))
        file = getattr(sys.modules.get(module), "__file__", None) or module
        known = next((one for one in self.added() if one.name == name), None)
        if name in self.own:
            raise PipelineError(f"{name!r} is one of yqc's own {self.kinds}; choose another name")
        own_package = known is not None and _package(known.module) == _package(module)
        if known is not None and not own_package and known.origin != file:
            raise PipelineError(
                f"two {self.kinds} are named {name!r}: one from {known.origin} and one from "
                f"{file}; rename one of them"
            )
        origin = file if known is None else known.origin
        self._added[name] = Added(self.kind, name, origin, module, value)
        return value

    def added(self) -> Iterator[Added]:
        """Yield what is not yqc's own, by name; packages are not imported.

        Raises:
            PipelineError: two packages have the same name.
        """
        found = dict[str, Added]()
        for point in _entry_points(self.group, tuple(sys.path)):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            if point.name in found or point.name in self.own:
                first = found[point.name].origin if point.name in found else "yqc"
                raise PipelineError(
                    f"two {self.kinds} are named {point.name!r}: one from {first} and one from "
                    f"{origin}; rename one of them"
                )
            found[point.name] = Added(self.kind, point.name, origin, point.module)
        for name, one in sorted({**found, **self._added}.items()):
            yield one if name not in found else self._added.get(name, found[name])

    def names(self) -> list[str]:
        """List all names, yqc's own first."""
        return [*self.own, *(one.name for one in self.added())]

    def check(self, name: str) -> str:
        """Return a name that there is; a ValueError says which ones there are."""
        names = self.names()
        if name in names:
            return name
        hint = near(name, names)
        raise ValueError(f"one of {', '.join(names)}", hint)

    def find(self, name: str) -> Added | None:
        """Return what a user added under a name, imported; None for yqc's own.

        Raises:
            PipelineError: there is nothing of that name, or its package cannot be imported.
        """
        if name in self.own:
            return None
        found = next((one for one in self.added() if one.name == name), None)
        if found is None:
            raise PipelineError(f"there is no {self.kind} {name!r}{near(name, self.names())}")
        if found.value is None:
            self._import(found)
            found = self._added[name]
        return found

    def _import(self, found: Added) -> None:
        point = next(p for p in _entry_points(self.group, tuple(sys.path)) if p.name == found.name)
        try:
            value = getattr(importlib.import_module(point.module), point.attr)
        except Exception as error:  # whatever a package does when it is imported
            raise PipelineError(
                f"{self.kind} {found.name!r} of {found.origin} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if found.name not in self._added:  # its module has not registered it itself
            self.register(found.name, value, point.module)


def _package(module: str) -> str:
    return module.partition(".")[0]


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """List the entry points of packages on a path, which decides what is found."""
    del path
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))
