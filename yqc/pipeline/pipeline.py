"""Pipelines: parse, print, expand recipes, check the order, and run with watchers."""

import copy
import inspect
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from yqc.errors import PassError, PipelineError
from yqc.pipeline.base import Context, Given, Pass, Recipe
from yqc.pipeline.grammar import caret, split
from yqc.pipeline.options import build_options
from yqc.pipeline.registry import Registry
from yqc.pipeline.step import Step, Watcher
from yqc.report.parts import PassRecord, Skip

if TYPE_CHECKING:  # torch takes seconds to import, and parsing must not
    from torch import fx

TRACED = frozenset({"batch-norm", "float32"})
"""What a graph is known to be when it comes from the tracer."""
DEPTH = 8
_Origin: TypeAlias = tuple[Pass, Pass | Recipe]
"""A pass, and the step of the pipeline that it comes from."""


@dataclass(frozen=True)
class Pipeline:
    """A sequence of passes and recipes.

    >>> str(Pipeline.parse("reparam, fold-bn{min-var=0.1}"))
    'reparam,fold-bn{min_var=0.1}'
    """

    steps: Sequence[Pass | Recipe]
    registry: Registry = field(default_factory=Registry.default, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, registry: Registry | None = None) -> "Pipeline":
        """Read a pipeline text.

        Raises:
            PipelineError: a word that is no pass, an option that does not exist, a value that does
                not fit; a caret shows where.
        """
        registry = registry or Registry.default()
        steps: list[Pass | Recipe] = []
        for item in split(text):
            try:
                kind = registry.load(item.name)
            except PipelineError as error:
                raise caret(str(error), text, item.at, len(item.name)) from error
            steps.append(build_options(kind, item, text))
        return cls(tuple(steps), registry)

    @classmethod
    def of(
        cls, passes: "str | Pipeline | Sequence[Pass | Recipe]", registry: Registry | None = None
    ) -> "Pipeline":
        """Return pipeline text, passes or a pipeline as a pipeline; empty text has no passes.

        Raises:
            PipelineError: see `parse`.
        """
        if isinstance(passes, Pipeline):
            return passes
        if isinstance(passes, str):
            if passes:
                return cls.parse(passes, registry)
            passes = ()
        return cls(tuple(passes), registry or Registry.default())

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))

    def expand(self, state: frozenset[str] = TRACED, given: Given | None = None) -> list[Pass]:
        """Replace recipes by what they stand for and check that the order is possible.

        `state` is what the graph is known to be. A step of a recipe is dropped where the graph has
        its result already, and where it needs to run once only and a later step does the same.

        Raises:
            PipelineError: a pass requires what nothing before it provides.
        """
        return [action for part in self.expand_each(state, given) for action in part]

    def expand_each(
        self, state: frozenset[str] = TRACED, given: Given | None = None
    ) -> list[list[Pass]]:
        """Do as `expand`, and return the passes of each step of the pipeline by themselves."""
        parts: list[list[Pass]] = [[] for _ in self.steps]
        removed: dict[str, _Origin] = {}
        given = given or Given()
        steps = [
            (*found, step, part)
            for part, step in zip(parts, self.steps, strict=True)
            for found in self._flatten([step], given, depth=0)
        ]
        for index, (action, from_recipe, step, part) in enumerate(steps):
            later = {other.name for other, *_ in steps[index + 1 :]}
            is_provided = bool(action.provides) and action.provides <= state
            if from_recipe and (is_provided or (action.once and action.name in later)):
                continue
            missing = sorted(action.needs() - state)
            if missing:
                raise PipelineError(self._explain((action, step), missing[0], removed))
            removed |= dict.fromkeys(action.removes & state, (action, step))
            state = (state - action.removes) | action.provides
            part.append(action)
        return parts

    def _flatten(
        self, steps: Iterable[Pass | Recipe], given: Given, depth: int
    ) -> Iterable[tuple[Pass, bool]]:
        for step in steps:
            if isinstance(step, Pass):
                yield step, depth > 0
            elif depth == DEPTH:
                raise PipelineError(
                    f"recipe {step.name!r} stands for itself; it must end in passes"
                )
            else:
                inner = Pipeline.parse(_text_of(step, given), self.registry)
                yield from self._flatten(inner.steps, given, depth + 1)

    def _explain(self, origin: _Origin, missing: str, removed: dict[str, _Origin]) -> str:
        """Say why a pass cannot run here, and what to do."""
        needs = f"{_named(origin)} needs a graph that is {missing!r}"
        if missing in removed:
            other = removed[missing]
            first, second = (found[origin[1] is not other[1]].name for found in (origin, other))
            return f"{needs}, and {_named(other)} before it ends that; put {first} before {second}"
        makers = self.registry.makers(missing)
        advice = f"put {' or '.join(makers)} before it" if makers else "no pass provides that"
        return f"{needs}; {advice}"

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
        passes, watchers = self.expand(TRACED | known, given_by(ctx)), tuple(watchers)
        steps = list(done)
        for watcher in watchers:
            watcher.start(gm, ctx)
        printed: str | None = None
        with ctx.progress.task("passes", len(passes)) as advance:
            if steps:
                advance(len(steps))
            for index, action in enumerate(passes[len(steps) :], start=len(steps) + 1):
                ctx.upcoming = tuple(later.name for later in passes[index:])
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
        done = len(records.rewrites), len(records.skips), len(records.says)
        records.running = step.name
        began = time.perf_counter()
        try:
            for watcher in watchers:
                watcher.before(step)
            records.begin(step.name, gm.graph)
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


def _named(origin: _Origin) -> str:
    """Name a pass, and the recipe that it comes from."""
    action, step = origin
    return action.name if action.name == step.name else f"{action.name} (of {step.name})"


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
