"""Finding passes, which imports none of them, and loading the ones that are named.

Passes come from three places: the built-in table (`PASSES` of the package `yqc_passes`), the
entry-point group `yqc.passes` of installed packages, and files given by `--load`.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import zlib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from yqc.errors import PipelineError, near
from yqc.pipeline.base import Pass, Recipe

GROUP = "yqc.passes"
BUILTIN = "yqc_passes"

_FIRST_LINE = re.compile(r"""(?:\s|#.*\n)*[rRuU]?("{3}|'{3}|"|')\s*(.*?)(?:\1|\n|\Z)""")
"""The first line of a module's docstring; parsing the modules takes a third of the listing."""

PassType: TypeAlias = type[Pass] | type[Recipe]


@dataclass(frozen=True)
class Found:
    """A pass that exists somewhere and need not be imported yet."""

    name: str
    target: str
    """`package.module:Class`"""
    origin: str
    """`yqc_passes`, `acme-yqc 1.2`, or the path of a file."""

    def summary(self) -> str:
        """Return the first line of the module's docstring, read from its source."""
        found = _FIRST_LINE.match(self._text)
        return found[2].removeprefix(f"{self.name}:").strip() if found else ""

    @property
    def is_recipe(self) -> bool:
        """Whether its class says in its source that it is a `Recipe`; it is not imported."""
        name = re.escape(self.target.partition(":")[2])
        bases = re.search(rf"^class {name}\(([^)]*)\)", self._text, re.MULTILINE)
        return bases is not None and re.search(r"\bRecipe\b", bases[1]) is not None

    @functools.cached_property
    def _text(self) -> str:
        """The source of its module, empty where that cannot be read."""
        path = source(self.target.partition(":")[0])
        try:
            return "" if path is None else path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""


def source(module: str) -> Path | None:
    """Locate the source file of a module without importing it or its package."""
    if module in sys.modules:
        known = sys.modules[module].__file__
        return Path(known) if known else None
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return Path(spec.origin) if spec and spec.origin else None
    bases = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]
    paths = (path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py"))
    return next(filter(Path.is_file, paths), None)


@dataclass
class Registry:
    """The passes that can be named in a pipeline."""

    found: dict[str, Found] = field(default_factory=dict)
    loaded: dict[str, PassType] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)
    """Path and SHA-256 of the Python files that were loaded, in order."""

    @classmethod
    def default(cls) -> "Registry":
        """Find the built-in passes and those of installed packages. Imports none of them."""
        registry = cls()
        table: dict[str, str] = importlib.import_module(BUILTIN).PASSES
        for name, target in table.items():
            registry.add(Found(name, target, BUILTIN))
        for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            registry.add(Found(point.name, point.value, origin))
        return registry

    def add(self, found: Found) -> None:
        """Add a pass by name.

        Raises:
            PipelineError: the name is taken; the message names both places.
        """
        other = self.found.get(found.name)
        if other is not None and other != found:
            raise PipelineError(
                f"two passes are named {found.name!r}: one from {other.origin} ({other.target}) "
                f"and one from {found.origin} ({found.target}); rename one of them"
            )
        self.found[found.name] = found

    def load_file(self, path: Path) -> list[str]:
        """Run a Python file and add the passes and recipes that it defines; return their names.

        Raises:
            PipelineError: the file cannot be run, or a name is taken.
        """
        if not os.path.isfile(path):  # noqa: PTH113  # False for a name that no file can have
            raise PipelineError(f"cannot load {path}: it is not a Python file")
        name = f"yqc_loaded_{path.stem}_{zlib.crc32(os.fsencode(path.resolve())):08x}"
        spec = importlib.util.spec_from_file_location(name, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise PipelineError(f"cannot load {path}: it is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            source = path.read_bytes()
            exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102  # as asked for
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise PipelineError(f"cannot load {path}: {type(error).__name__}: {error}") from error
        self.files.append((str(path), hashlib.sha256(source).hexdigest()))
        added = []
        for cls in vars(module).values():
            if _is_pass(cls) and cls.__module__ == name:
                self.add(Found(cls.name, f"{name}:{cls.__name__}", str(path)))
                self.loaded[cls.name] = cls
                added.append(cls.name)
        return added

    def load(self, name: str) -> PassType:
        """Import the pass or recipe of that name.

        Raises:
            PipelineError: nothing has that name, or its module cannot be imported.
        """
        if name in self.loaded:
            return self.loaded[name]
        found = self.found.get(name)
        if found is None:
            hint = near(name, self.found) or "; `yqc passes` lists what there is"
            raise PipelineError(f"unknown pass {name!r}{hint}")
        module, _, attribute = found.target.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a package does when it is imported
            raise PipelineError(
                f"pass {name!r} of {found.origin} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not _is_pass(cls) or cls.name != name:
            raise PipelineError(f"{found.target} of {found.origin} is not a pass named {name!r}")
        self.loaded[name] = cls
        return cls  # type: ignore[no-any-return]

    def makers(self, state: str) -> list[str]:
        """Name the passes that provide `state`. What cannot be imported is left out."""
        found: list[str] = []
        for name in self.found:
            with contextlib.suppress(PipelineError):
                kind = self.load(name)
                if issubclass(kind, Pass) and state in kind.provides:
                    found.append(name)
        return found


def _is_pass(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, (Pass, Recipe)) and hasattr(cls, "name")
