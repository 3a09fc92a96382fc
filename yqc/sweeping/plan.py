"""What a sweep runs: models, each with its settings and pipelines, checked before any work."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yqc.errors import CheckpointError
from yqc.job.checks import check_passes
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Registry
from yqc.settings import SettingError, Settings
from yqc.sweeping.grid import expand_grid

UNPORTABLE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
"""What some file systems do not take in names."""
LONGEST = 150
"""Letters of a file's name before its endings; file systems take 255 bytes."""


@dataclass(frozen=True)
class PlannedModel:
    """A model, its settings, and what it is compiled with."""

    name: str
    """Of the folder of its files."""
    path: Path
    settings: Settings
    pipelines: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All that a sweep runs."""

    models: tuple[PlannedModel, ...]
    registry: Registry

    @property
    def cells(self) -> list[tuple[PlannedModel, str, str]]:
        """Each model with each of its pipelines, and the name of the files: `MODEL/PASSES`."""
        return [
            (model, passes, f"{model.name}/{stem}")
            for model in self.models
            for passes, stem in zip(model.pipelines, name_files(model.pipelines), strict=True)
        ]


def plan_sweep(
    models: Sequence[tuple[str | None, Path, Settings, Sequence[str], Sequence[str]]],
    registry: Registry,
) -> Plan:
    """Check what is to be run.

    Args:
        models: for each a name (by default that of its file), its path, settings, pipelines, and
            grids.
        registry: where names of passes are looked up.

    Raises:
        YqcError: a pipeline is wrong or does not fit the settings, a file is missing, two models
            have one name, or there is nothing to run.
    """
    planned: dict[str, PlannedModel] = {}
    for name, path, settings, passes, grids in models:
        made = PlannedModel(
            name or path.stem, path, settings, list_pipelines(passes, grids, settings, registry)
        )
        if not path.exists():
            raise CheckpointError(f"there is no file {path}")
        if UNPORTABLE.search(made.name) or made.name.startswith(".") or not made.name.strip():
            raise SettingError("name", f"must be that of a folder, not {made.name!r}")
        if other := planned.get(made.name):
            raise SettingError(
                "name",
                f"is {made.name!r} for two models, {other.path} and {path}; give each its own in a "
                "TOML file, name = ...",
            )
        planned[made.name] = made
    if not planned:
        raise SettingError("model", "is missing: give models, or a TOML file with [[model]]")
    return Plan(tuple(planned.values()), registry)


def list_pipelines(
    passes: Iterable[str], grids: Iterable[str], settings: Settings, registry: Registry
) -> tuple[str, ...]:
    """Return pipelines in the form that they print in, each once; those of the grids too.

    Raises:
        PipelineError: one of them is wrong, or does not fit the settings; or there is none.
    """
    texts = [*passes, *(text for grid in grids for text in expand_grid(grid))]
    found: dict[str, None] = {}
    for text in texts:
        pipeline = Pipeline.of(text, registry)
        check_passes(replace(settings, passes=text), pipeline)
        found[str(pipeline)] = None
    if not found:
        raise SettingError("--passes", "or --grid is missing: give a pipeline, or several")
    return tuple(found)


def name_files(pipelines: Sequence[str]) -> list[str]:
    """Return a file name for each pipeline: its text, as far as file systems take it."""
    plain = [UNPORTABLE.sub("_", text)[:LONGEST].strip(" .") or "none" for text in pipelines]
    taken = Counter(name.casefold() for name in plain)
    return [
        name
        if name == text and taken[name.casefold()] == 1
        else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        for name, text in zip(plain, pipelines, strict=True)
    ]
