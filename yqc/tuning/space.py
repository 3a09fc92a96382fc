"""The pipelines that a search may try: passes by place, and values of their options.

As a TOML file:

    seeds = ["fp16", "int8", "prune{ratio=0.5 recover=0},recover{steps=100},int8"]

    [channels.prune]
    ratio = [0.3, 0.5, 0.7]
    recover = 0

A list holds values to choose from, any other value is fixed. Every place may also stay empty.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from yqc.errors import PipelineError, near
from yqc.pipeline.grammar import split
from yqc.pipeline.options import build_options, types_of
from yqc.pipeline.registry import Registry
from yqc.pipeline.space import PLACES, Place, Space
from yqc.pipeline.values import format_value
from yqc.settings.recipe import to_toml

NOTHING = "nothing"
"""The choice of a place that stays empty."""
PLAIN = "fuse"
"""The pipeline where all places are empty."""
MILD = 0.5
"""Share to prune in the first pipelines: most detectors recover from it in a short training."""
RICE = "rice{bits=4.0}"
"""The smallest weights that are tried first."""


class Suggests(Protocol):
    """Chooses values by name; a trial of Optuna does."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Choose one of several words."""
        ...

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Choose a whole number; near ones are alike."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """Passes that may stand in each place, with their options, and what is tried first."""

    passes: Mapping[Place, Mapping[str, Space]]
    seeds: tuple[str, ...]
    registry: Registry

    @classmethod
    def default(cls, registry: Registry, steps: Sequence[int], *, trains: bool) -> "SearchSpace":
        """Gather what the passes of a registry declare.

        Args:
            registry: the passes, plugins and those of `--load` among them.
            steps: lengths of trainings, the shortest first.
            trains: whether there are images to train on; otherwise nothing is pruned or swapped.
        """
        found: dict[Place, dict[str, Space]] = {place: {} for place in PLACES}
        for name in registry.found:
            if (space := registry.load(name).space()) is not None:
                found[space.place][name] = space
        if trains:
            found["training"] = {
                name: Space(one.place, {**one.options, "steps": [*steps]}, one.fixed)
                for name, one in found["training"].items()
            }
        else:
            found |= {"activations": {}, "channels": {}, "training": {}}
        return cls(found, _default_seeds(found, steps), registry)

    @classmethod
    def read(cls, path: Path, registry: Registry) -> "SearchSpace":
        """Read a TOML file.

        Raises:
            PipelineError: it cannot be read, or names places, passes or values that do not exist.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise PipelineError(f"cannot read the space {path}: {error}") from error
        seeds = tables.pop("seeds", [])
        if not isinstance(seeds, list) or not all(isinstance(one, str) for one in seeds):
            raise PipelineError(f"{path}: seeds must be a list of pipelines")
        found: dict[Place, dict[str, Space]] = {place: {} for place in PLACES}
        for place, table in tables.items():
            if place not in PLACES or not isinstance(table, dict):
                hint = near(place, PLACES) or f"; the places are {', '.join(PLACES)}"
                raise PipelineError(f"{path}: there is no place {place!r}{hint}")
            for name, options in table.items():
                found[place][name] = _read_pass(path, registry, place, name, options)
        space = cls(found, tuple(seeds), registry)
        for seed in seeds:
            try:
                space.params_of(seed)
            except PipelineError as error:
                raise PipelineError(f"{path}: the seed {seed!r}: {error}") from error
        return space

    def __str__(self) -> str:
        lines = ["seeds = [", *(f"  {to_toml(seed)}," for seed in self.seeds), "]"]
        for place, passes in self.passes.items():
            for name, space in passes.items():
                lines += ["", f"[{place}.{name}]"]
                lines += [f"{key} = {to_toml([*values])}" for key, values in space.options.items()]
                lines += [f"{key} = {to_toml(value)}" for key, value in space.fixed.items()]
        return "\n".join([*lines, ""])

    def suggest(self, trial: Suggests) -> str:
        """Return the pipeline that a trial chooses."""
        items: list[str] = []
        for place, passes in self.passes.items():
            if not passes or (place == "training" and not items):
                continue
            name = trial.suggest_categorical(place, [NOTHING, *passes])
            if name == NOTHING:
                continue
            space = passes[name]
            chosen = {
                option: values[trial.suggest_int(f"{name}.{option}", 0, len(values) - 1)]
                if len(values) > 1
                else values[0]
                for option, values in space.options.items()
            }
            items.append(self._item(name, {**space.fixed, **chosen}))
        return ",".join(items) or PLAIN

    def params_of(self, text: str) -> dict[str, Any]:
        """Return the choices that give a pipeline, by name, as `suggest` makes them.

        Raises:
            PipelineError: the pipeline is none, or not within the space.
        """
        found: dict[str, Any] = {}
        items = [] if text == PLAIN else split(text)
        named = {item.name: item for item in items}
        for place, passes in self.passes.items():
            name = next((one for one in named if one in passes), NOTHING)
            if passes and (place != "training" or found):
                found[place] = name
            if name == NOTHING:
                continue
            given = build_options(self.registry.load(name), named.pop(name), text)
            for option, values in passes[name].options.items():
                value = getattr(given, option)
                like = [i for i, one in enumerate(values) if _plain(one) == _plain(value)]
                if not like:
                    raise PipelineError(f"{name} has no {option}={value} within the space")
                if len(values) > 1:
                    found[f"{name}.{option}"] = like[0]
        if named:
            raise PipelineError(f"{', '.join(named)} is not within the space")
        chosen = {place: name for place, name in found.items() if place in PLACES}
        return found if any(name != NOTHING for name in chosen.values()) else {}

    def longer(self, text: str) -> str | None:
        """Return a pipeline with the next longer training; None if there is none."""
        items = split(text)
        for item in items:
            space = self.passes["training"].get(item.name)
            lengths = [] if space is None else [*space.options.get("steps", [])]
            given = build_options(self.registry.load(item.name), item, text)
            for shorter, longer in pairwise(lengths):
                if getattr(given, "steps", None) == shorter:
                    return text.replace(f"steps={shorter}", f"steps={longer}", 1)
        return None

    def prefix(self, text: str) -> str:
        """Return the part of a pipeline that takes long: trials that share it run in turn."""
        early = {name for place in PLACES[:3] for name in self.passes[place]}
        names = [str(one) for one in _items(text) if one.partition("{")[0] in early]
        return ",".join(names)

    def _item(self, name: str, options: Mapping[str, Any]) -> str:
        """Print a pass with options, defaults left out."""
        kind = self.registry.load(name)
        return str(kind(**{key: _value(one) for key, one in options.items()}))


def _items(text: str) -> list[str]:
    """Split a pipeline text into the texts of its items."""
    starts = [item.at for item in split(text)] + [len(text) + 1]
    return [text[a : b - 1].strip() for a, b in pairwise(starts)]


def _value(value: Any) -> Any:  # noqa: ANN401  # of any option
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> str:  # noqa: ANN401
    return format_value(_value(value))


def _default_seeds(
    found: Mapping[Place, Mapping[str, Space]], steps: Sequence[int]
) -> tuple[str, ...]:
    """List what is tried first, a round a line; each of two processes has half of the work.

    Trainings are as long as they may be behind strong pruning, which needs that most; what rounds
    the same pruned graph takes it from the store.
    """
    shares = sorted(found["channels"]["prune"].options["ratio"]) if found["channels"] else [MILD]
    short, long = (f"recover{{steps={n}}}" for n in (min(steps), max(steps)))
    mild = f"prune{{ratio={format_value(MILD)} recover=0}},{short}"
    less, more = (f"prune{{ratio={format_value(n)} recover=0}},{long}" for n in (shares * 2)[-2:])
    quick, relu = less.replace(" recover", " of=macs recover"), "relu{recover=0}"
    seeds = [
        *("fp16", "int8", "int4", f"{mild},int8"),
        *(f"{more},int4", f"{less},int4", f"{more},{RICE}", f"{less},{RICE}"),
        *(f"{more},int8", f"{less},int8", f"{mild},int4", "int4,int8"),
        *(f"{relu},{less},int8", f"{quick},int8", f"{relu},{short},int8", RICE),
    ]
    known = {name for passes in found.values() for name in passes}
    return tuple(text for text in seeds if {item.name for item in split(text)} <= known)


def _read_pass(path: Path, registry: Registry, place: Place, name: str, options: object) -> Space:
    """Read the table of one pass."""
    try:
        kind = registry.load(name)
    except PipelineError as error:
        raise PipelineError(f"{path}: [{place}.{name}]: {error}") from error
    if not isinstance(options, dict):
        raise PipelineError(f"{path}: [{place}.{name}] must be a table of options")
    lists = {key: value for key, value in options.items() if isinstance(value, list)}
    types = types_of(kind)
    for option, value in options.items():
        if option not in types:
            raise PipelineError(f"{path}: {name} has no option {option!r}{near(option, types)}")
        for one in value if isinstance(value, list) else [value]:
            try:
                types[option].convert(_value(one))
            except ValueError as error:
                raise PipelineError(
                    f"{path}: {name}: {option} must be {error.args[0]}, not {one!r}"
                ) from None
        if value == []:
            raise PipelineError(f"{path}: {name}: {option} has no values to choose from")
    fixed = {key: value for key, value in options.items() if key not in lists}
    return Space(place, lists, fixed)
