"""Pipelines: parse, print, expand recipes, check the order, and run with watchers."""

import copy
import inspect
import time
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from yqc.errors import OptionError, PassError, PipelineError
from yqc.pipeline.base import Context, Given, Pass, Recipe
from yqc.pipeline.grammar import Item, caret, split
from yqc.pipeline.options import build_options
from yqc.pipeline.order import Order, Planned
from yqc.pipeline.registry import Registry
from yqc.pipeline.state import TRACED
from yqc.pipeline.step import Step, Watcher
from yqc.report.parts import NodeNumbers, PassRecord, Skip

if TYPE_CHECKING:  # torch takes seconds to import, and parsing must not
    from torch import fx

DEPTH = 8
"""Recipes within recipes, at most: the built-in ones have two levels."""


@dataclass(frozen=True)
class Pipeline:
    """A sequence of passes and recipes, given as such or as text, or both: `[Prune(), "int8"]`.

    >>> str(Pipeline.parse("reparam, fold-bn{min-var=0.1}"))
    'reparam,fold-bn{min_var=0.1}'

    Raises:
        PipelineError: a word that is no pass, an option that does not exist, a value that does not
            fit; a caret shows where.
    """

    given: InitVar[Iterable[Pass | Recipe | str]]
    registry: Registry = field(default_factory=Registry.default, compare=False, repr=False)
    steps: tuple[Pass | Recipe, ...] = field(init=False)
    _typed: tuple[tuple[str, Item] | None, ...] = field(init=False, compare=False, repr=False)
    """The text that each step was read from, and its place in it."""

    def __post_init__(self, given: Iterable[Pass | Recipe | str]) -> None:
        steps, typed = list[Pass | Recipe](), list[tuple[str, Item] | None]()
        for one in given:
            if isinstance(one, Pass | Recipe):
                steps, typed = [*steps, one], [*typed, None]
            elif isinstance(one, str):
                items = split(one)
                steps += [self._build(one, item) for item in items]
                typed += [(one, item) for item in items]
            else:
                raise PipelineError(f"a pipeline is made of passes and text, not of {one!r}")
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "_typed", tuple(typed))

    def _build(self, text: str, item: Item) -> Pass | Recipe:
        try:
            kind = self.registry.load(item.name)
        except PipelineError as error:
            raise caret(str(error), text, item.at, len(item.name)) from error
        return build_options(kind, item, text)

    @classmethod
    def parse(cls, text: str, registry: Registry | None = None) -> "Pipeline":
        """Read a pipeline text.

        Raises:
            PipelineError: see the class.
        """
        return cls((text,), registry or Registry.default())

    @classmethod
    def of(
        cls,
        passes: "str | Pipeline | Pass | Recipe | Iterable[Pass | Recipe | str]",
        registry: Registry | None = None,
    ) -> "Pipeline":
        """Return pipeline text, passes or a pipeline as a pipeline; empty text has no passes.

        Raises:
            PipelineError: see the class.
        """
        if isinstance(passes, Pipeline):
            return passes
        if isinstance(passes, str | Pass | Recipe):
            passes = [passes] if passes else []
        return cls(passes, registry or Registry.default())

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))

    def expand(self, state: frozenset[str] = TRACED, given: Given | None = None) -> list[Pass]:
        """Replace recipes by what they stand for and check that the order is possible.

        `state` is what the graph is known to be. A step of a recipe is dropped where the graph has
        its result already, and where it needs to run once only and a later step does the same.

        Raises:
            PipelineError: a pass requires what nothing before it provides, or excludes what
                something before it provides; or every step of a recipe has its result already.
        """
        return [action for part in self.expand_each(state, given) for action in part]

    def expand_each(
        self,
        state: frozenset[str] = TRACED,
        given: Given | None = None,
        dropped: list[str] | None = None,
    ) -> list[list[Pass]]:
        """Do as `expand`, and return the passes of each step of the pipeline by themselves.

        What is dropped is added to `dropped`, a sentence each.
        """
        parts: list[list[Pass]] = [[] for _ in self.steps]
        planned, order = self._flatten_all(given or Given()), Order(self.registry, state)
        idle = dict[int, str]()
        for index, one in enumerate(planned):
            if why := order.why_provided(one):
                idle[one.place] = f"{one.action.name} finds {why}"
            elif later := one.find_later(planned[index + 1 :]):
                why = f"it runs once, and {later} comes later"
            else:
                order.add(one)
                parts[one.place].append(one.action)
                continue
            if dropped is not None:
                dropped.append(f"{one}: {why}")
        for place, why in idle.items():
            if not parts[place]:
                name = self.steps[place].name
                raise PipelineError(f"{name} would do nothing here: {why}; leave one of them out")
        return parts

    def _flatten_all(self, given: Given) -> list[Planned]:
        """List the passes of all steps.

        Raises:
            PipelineError: a recipe stands for what cannot be; the message names its option.
        """
        planned = list[Planned]()
        for place, (step, typed) in enumerate(zip(self.steps, self._typed, strict=True)):
            try:
                planned += [Planned(a, step, place) for a in self._flatten(step, given, depth=0)]
            except OptionError as error:
                if typed is not None:
                    raise typed[1].refuse(typed[0], error.problem) from error
                raise OptionError(f"{step.name}: {error.problem}", error.problem) from error
        return planned

    def _flatten(self, step: Pass | Recipe, given: Given, depth: int) -> Iterable[Pass]:
        if isinstance(step, Pass):
            yield step
        elif depth == DEPTH:
            raise PipelineError(f"recipe {step.name!r} stands for itself; it must end in passes")
        else:
            for inner in Pipeline.parse(_text_of(step, given), self.registry).steps:
                yield from self._flatten(inner, given, depth + 1)

    def run(
        self,
        gm: "fx.GraphModule",
        ctx: Context,
        watchers: Iterable[Watcher] = (),
        known: frozenset[str] = frozenset(),
        done: Sequence[Step] = (),
    ) -> list[Step]:
        """Run every pass on `gm`, in place, and return one record a pass, in order.

        Args:
            gm: the graph.
            ctx: what the passes are given, and where they record what they do.
            watchers: called before and after every pass.
            known: what the graph is known to be, beside what the tracer gives.
            done: steps of an interrupted run, after which `gm` is; only the others run.

        Raises:
            PipelineError: the order is impossible; nothing was run.
            PassError: a pass failed or broke a promise; the message names it and its position.
        """
        ctx.records.dropped.clear()
        parts = self.expand_each(TRACED | known, given_by(ctx), ctx.records.dropped)
        passes, watchers = [action for part in parts for action in part], tuple(watchers)
        steps = list(done)
        for watcher in watchers:
            watcher.begin_behind(steps)
            watcher.start(gm, ctx)
        printed: str | None = None
        with ctx.progress.task("passes", len(passes)) as advance:
            if steps:
                advance(len(steps))
            for index, action in enumerate(passes[len(steps) :], start=len(steps) + 1):
                later = (one.name for one in passes[index:])
                ctx.upcoming = tuple(name for name in later if name in action.reads_upcoming)
                record = PassRecord(name=action.name)
                step = Step(index, action, gm, ctx, copy.deepcopy(gm), record)
                printed = self._run_one(step, watchers, len(passes), printed)
                step.before = gm
                steps.append(step)
                advance(1)
        return steps

    def _run_one(
        self, step: Step, watchers: Sequence[Watcher], count: int, printed: str | None
    ) -> str:
        """Run one pass; `printed` is the fingerprint before it, if known. Returns that after it."""
        from yqc.graph.compare import fingerprint, graph_bytes  # noqa: PLC0415  # imports torch
        from yqc.graph.edit import tidy  # noqa: PLC0415
        from yqc.graph.history import record_history  # noqa: PLC0415

        ctx, gm, records = step.ctx, step.gm, step.ctx.records
        done = len(records.rewrites), len(records.skips), len(records.says), len(records.values)
        records.running = step.name
        began = time.perf_counter()
        try:
            for watcher in watchers:
                watcher.before(step)
            records.begin(step.name, gm.graph)
            with ctx.progress.task(step.name, 0):
                step.action.run(gm, ctx)
            tidy(gm)
            seconds, step.chosen = time.perf_counter() - began, records.chosen
            record_history(step.before, gm, step.name, records.rewrites[done[0] :])
            after = fingerprint(gm)
            step.record = PassRecord(
                name=step.name,
                seconds=seconds,
                rewrites=len(records.rewrites) - done[0],
                skips=tuple(Skip(node=node, why=why) for node, why in records.skips[done[1] :]),
                says=tuple(records.says[done[2] :]),
                values=tuple(
                    NodeNumbers(node=node, numbers=found)
                    for node, found in records.values[done[3] :]
                ),
                changed=after != (printed or fingerprint(step.before)),
                nodes_before=len(step.before.graph.nodes),
                nodes_after=len(gm.graph.nodes),
                weight_bytes_before=graph_bytes(step.before),
                weight_bytes_after=graph_bytes(gm),
            )
            for watcher in watchers:
                watcher.after(step)
        except Exception as error:
            notes = [note for w in watchers if (note := w.failed(step, error))]
            where = f"pass {step.index} of {count}, {step.action}"
            kind = "" if isinstance(error, PassError) else f"{type(error).__name__}: "
            reason = "; ".join([f"{kind}{error}", *notes])
            raise PassError(f"{where}: {reason}") from error
        finally:
            records.running = ""
        return after


def reproducible(pipeline: Pipeline, steps: Sequence[Step]) -> str:
    """Return the text of a pipeline that does again what was done.

    Where a pass has chosen options by itself, all passes are written out, with these options.
    """
    if all(step.chosen is None for step in steps):
        return str(pipeline)
    return ",".join(str(step.chosen or step.action) for step in steps)


def given_by(ctx: Context) -> Given:
    """Return what recipes go by in a context."""
    return Given(
        target=ctx.target,
        has_data=ctx.calibration is not None,
        can_train=bool(ctx.train) and ctx.original is not None,
    )


def _text_of(recipe: Recipe, given: Given) -> str:
    """Expand a recipe; those written for earlier versions take no argument."""
    takes = inspect.signature(recipe.expand).parameters
    return recipe.expand(given) if takes else recipe.expand()  # type: ignore[call-arg]
