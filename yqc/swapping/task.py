"""One swap under way: what can be swapped, trials of it, and the choice of what stays.

With a limit on what the agreement with the float model may lose, the activations whose swap alone
does most damage stay, as few as the limit needs; their number is found by bisection.
"""

import copy
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from typing import cast

import torch
from torch import Tensor, fx

from yqc.errors import PassError
from yqc.graph import channels_last
from yqc.graph.compare import fingerprint
from yqc.graph.memory import batched
from yqc.graph.metadata import Swapped
from yqc.graph.noise import accepts_batch
from yqc.pipeline import format_value
from yqc.pipeline.base import JUDGES, Context
from yqc.swapping.forms import FORMS
from yqc.swapping.kept import KeptRecords
from yqc.swapping.options import SwapOptions
from yqc.swapping.positions import UnitRelevance, draw_positions, measure_units
from yqc.swapping.units import SwapUnit, find_shifted, find_unit, is_activation
from yqc.swapping.walk import SwapWalk, count_live_bytes, find_function
from yqc.swapping.write_back import put_activation, write_layer
from yqc.training.teacher import fold_batch_norms

MEMORY = 2_500_000_000
"""Bytes that the values of both graphs may take at most; larger graphs are fitted on fewer images.
Half of it halves their number for YOLOv7 at 640 px; double takes 8 GB there."""
LEAST = 8
"""Images of a fit at least, however large the graph."""
SEARCH = 6
"""Trials of `max_drop` at most: they tell 64 activations apart."""


@dataclass(frozen=True)
class SwapTrial:
    """A graph whose activations were swapped, but for some."""

    walk: SwapWalk
    kept: frozenset[str]
    """Activations that stayed, by the names of their nodes."""
    agreement: float | None
    """With the float model, AP50; None where it was not measured."""


@dataclass
class SwapTask:
    """Swaps the activations of a graph, which itself changes only by `adopt`."""

    gm: fx.GraphModule
    ctx: Context
    options: SwapOptions
    refused: list[tuple[fx.Node, str]] = field(default_factory=list)
    """Nodes of activations that stay, and why."""
    units: list[SwapUnit] = field(default_factory=list)
    """Activations to swap, with the layers before them."""

    def __post_init__(self) -> None:
        self.form = FORMS[self.options.to]
        self.teacher = fold_batch_norms(self.gm)
        names = {node.name: node for node in self.gm.graph.nodes}
        asked = False
        for node in self.teacher.graph.nodes:
            if not is_activation(self.teacher, node, self.form):
                continue
            unit = find_unit(self.teacher, node)
            path = str(node.target)
            paths = (path,) if isinstance(unit, str) else (path, unit.path)
            if self.options.only and not matches_path(paths, self.options.only):
                continue
            asked = True
            if matches_path(paths, self.options.keep):
                unit = "asked to keep it"
            if isinstance(unit, str):
                self.refused.append((names[node.name], unit))
            else:
                self.units.append(unit)
        if self.options.only and not asked:
            raise PassError(
                f"only={format_value(self.options.only)} matches no activation that could be "
                "swapped; `yqc explain swap-activation MODEL` lists them"
            )

    @cached_property
    def images(self) -> list[Tensor]:
        """The images of the fit, float32 [1, C, H, W] each: others than agreement is judged on.

        Raises:
            PassError: there are none.
        """
        if self.ctx.calibration is None:
            raise PassError("there are no images to fit activations on; give some with --data")
        most = max(LEAST, MEMORY // max(1, count_live_bytes(self.teacher)))
        count = min(self.options.images, most)
        found = list(islice(self.ctx.calibration(), JUDGES + count))
        return found[max(0, min(JUDGES, len(found) - count)) :]

    @cached_property
    def relevance(self) -> dict[str, UnitRelevance]:
        """Relevance of the positions of all units, by the names of their nodes."""
        every = [*self.units, *find_shifted(self.teacher, self.units)]
        images = self.images
        with (
            channels_last(self.teacher),
            self.ctx.progress.task("measuring relevance", len(images)) as advance,
        ):
            kept, seed = self.keep_records("relevance"), self.ctx.seed
            return measure_units(self.teacher, every, images, self.ctx.form, seed, kept, advance)

    @cached_property
    def damage(self) -> dict[str, float]:
        """Damage of swapping each activation alone, by the names of their nodes."""
        with torch.no_grad():
            return {
                str(u.activation): self.relevance[u.node].damage(
                    self.form, find_function(self.teacher, str(u.activation)), u
                )
                for u in self.units
            }

    def run(self, kept: Collection[str] = (), *, judged: bool = True) -> SwapTrial:
        """Swap all activations but some, on a copy; measure the agreement if it is to be judged."""
        units = [replace(u, activation=None) if u.activation in kept else u for u in self.units]
        every = {u.node: u for u in (*units, *find_shifted(self.teacher, units))}
        rng = torch.Generator().manual_seed(self.ctx.seed)
        positions = {n: draw_positions(self.relevance[n].positions, rng) for n in every}
        student = copy.deepcopy(self.teacher)
        for unit in units:
            if unit.activation is not None:
                put_activation(student, unit.activation, self.form)
        records = self.keep_records(f"trial {sorted(map(str, kept))}")
        walk = SwapWalk(
            self.teacher, student, self.form, every, positions, records, self.options.refit
        )
        task = self.ctx.progress.task("swapping activations", len(every))
        with channels_last(self.teacher, student), task as advance, torch.no_grad():
            walk.run(self.batches(), advance)
        student.recompile()
        agreement = self.ctx.agreement(student) if judged and self.ctx.agreement else None
        return SwapTrial(walk, frozenset(kept), agreement)

    def keep_records(self, of: str) -> KeptRecords:
        """Open what is kept of a part of the work."""
        if self.ctx.cache is None:
            return KeptRecords(None, "")
        digest = hashlib.blake2b(f"{self.hash} {self.options} {of}".encode(), digest_size=8)
        return KeptRecords(self.ctx.cache, f"swap-{digest.hexdigest()}")

    @cached_property
    def hash(self) -> str:
        """A hash of the graph, to name what is kept of its work."""
        return fingerprint(self.teacher)

    def batches(self) -> list[Tensor]:
        """Join the images to batches, if the graph takes more than one image."""
        if not accepts_batch(self.teacher, 2, tuple(self.images[0].shape)):
            return self.images
        return batched(self.teacher, self.images)

    def search(self, least: float) -> SwapTrial:
        """Find the fewest activations to keep with which the agreement is at least `least`."""
        order = sorted(self.damage, key=lambda name: -self.damage[name])
        best = self.run()
        low, high = 0, len(order)  # so many kept are too few, and enough
        if best.agreement is None or best.agreement >= least:
            return best
        found: SwapTrial | None = None
        for _ in range(SEARCH):
            middle = (low + high) // 2
            if middle in {low, high}:
                break
            trial = self.run(order[:middle])
            if cast("float", trial.agreement) >= least:
                high, found = middle, trial
            else:
                low = middle
        return found or self.run(order)

    def adopt(self, trial: SwapTrial) -> None:
        """Write a trial's weights and activations into the graph, and mark what was swapped."""
        walk = trial.walk
        nodes = {node.name: node for node in self.gm.graph.nodes}
        for name, moments in walk.moments.items():
            layers = walk.units[name].layers
            for layer in layers:
                write_layer(self.gm, walk.student, layer, moments if len(layers) == 1 else None)
        for found in walk.fits.values():
            unit, node = found.unit, nodes[str(found.unit.activation)]
            was = name_activation(self.gm, node)
            put_activation(self.gm, node.name, self.form)
            Swapped(
                layer=unit.path,
                was=was,
                now=self.form.name,
                error=found.error,
                damage=self.damage[node.name],
                refitted=found.refitted,
                **{k: find_spread(getattr(found.fit, k)) for k in "abm"},
            ).put(node)
        self.gm.recompile()


def matches_path(paths: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """Return whether one of some paths matches one of some patterns."""
    return any(fnmatch(path, pattern) for path in paths for pattern in patterns)


def name_activation(gm: fx.GraphModule, node: fx.Node) -> str:
    """Name what an activation's node calls."""
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def find_spread(values: Tensor) -> tuple[float, float, float]:
    """Return the smallest, the mean and the largest of some values."""
    return float(values.min()), float(values.mean()), float(values.max())
