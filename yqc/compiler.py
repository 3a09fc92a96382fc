"""Compile a detector: a model in; ONNX, a recipe and a measured report out."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Group, RenderableType
from torch import fx

from yqc import report as rp
from yqc.data import KeptImages
from yqc.emit import save
from yqc.emit.embedding import embed
from yqc.errors import DataError
from yqc.job.checks import check, check_budget, require_budget
from yqc.job.entering import (
    continue_pipeline,
    describe_compile,
    is_snapshot,
    note_changes,
    start_behind,
)
from yqc.job.fitting import fit_pipeline
from yqc.job.float_export import LastFloat, save_exported
from yqc.job.foreseen import Foresight
from yqc.job.inputs import find_data, make_context, open_for, torch_threads
from yqc.job.measure import Measured, measure_against
from yqc.job.outputs import Outputs
from yqc.job.page import PageInputs, make_page
from yqc.job.reporting import Compiled, make_report
from yqc.job.verification import verify_sizes
from yqc.job.work import Work, open_work
from yqc.models.load import LoadedModel
from yqc.models.source import AnyModel
from yqc.pipeline.base import Context, Pass, Recipe
from yqc.pipeline.pipeline import Pipeline, given_by
from yqc.pipeline.prefixes import Prefixes
from yqc.pipeline.registry import Registry
from yqc.pipeline.resume import Stages
from yqc.pipeline.step import Watcher
from yqc.pipeline.watchers import Reproducer, Snapshots, Verify
from yqc.progress import Progress, Silent
from yqc.report.contract import Json
from yqc.settings import SETTINGS, Budget, Settings, choose, with_choices
from yqc.tuning import Front, SearchSpace, count_held_out, make_question, tune
from yqc.workers import RayWorkers

Passes: TypeAlias = str | Pipeline | Sequence[Pass | Recipe | str]
"""Pipeline text, a `Pipeline`, or passes and recipes."""


@dataclass(frozen=True)
class Result(rp.Shown):
    """What a compile made; it prints as its report and the files that were written."""

    report: rp.Report
    gm: fx.GraphModule
    """The rewritten graph, as it was emitted."""
    original: fx.GraphModule
    """The float graph as it was traced."""
    context: Context
    files: Outputs

    written: tuple[Path, ...]
    """The files that were written, the ONNX file first."""

    def files_table(self) -> RenderableType:
        """List the files that were written, and how big they are."""
        files = [rp.WrittenFile(path=str(p), bytes=p.stat().st_size) for p in self.written]
        return rp.written_files(files)

    def to_dict(self) -> Json:
        """Return the report as its JSON file holds it."""
        return self.report.to_dict()


@rp.render.register
def result_page(result: Result) -> RenderableType:
    """Show the report, and the files that were written."""
    return Group(result.report, "", result.files_table())


class Session:
    """A model and its data, opened once, that can be compiled many times.

    The compiles share the traced model, the data set, calibration images, and what is kept of the
    float model; each has a context, records and a report of its own.

    Args:
        model: a YOLO checkpoint or graph file, what `yqc.load` returned (its module may have been
            changed since), or a traceable module that takes float32 [N,C,H,W] in 0..1; three
            channels are RGB.
        settings: image size, data, seed and whatever else decides results, as a recipe holds it.
        registry: where names of passes are looked up.
        progress: where long work is shown.
        choices: any of the settings by name; see `Settings`.

    Raises:
        YqcError: a setting is wrong, or model or data cannot be read.
    """

    @with_choices(*SETTINGS)
    def __init__(
        self,
        model: AnyModel,
        *,
        settings: Settings | None = None,
        registry: Registry | None = None,
        progress: Progress | None = None,
        **choices: Any,  # noqa: ANN401  # checked by Settings
    ) -> None:
        self.model, self.registry, self.progress = model, registry, progress or Silent()
        settings = choose(settings, choices)
        opening = self.progress.task("opening model and data", 0)
        with opening, torch_threads(settings.threads) as threads:
            self.source, self.settings = open_for(model, replace(settings, threads=threads))
            self.data = find_data(self.settings, self.source)
        self.kept, self.prefixes = KeptImages(), Prefixes()

    def choosing(self) -> "Session":
        """Return the session of a search's trials: its evaluation images are those held out."""
        other = copy.copy(self)
        other.data = self.data and self.data.choosing()
        other.progress = Silent()
        return other

    def tune(
        self,
        budget: Budget | None = None,
        *,
        space: SearchSpace | Path | None = None,
        threads_per_trial: int = 1,
        cluster: RayWorkers | None = None,
        **asked: Any,  # noqa: ANN401  # checked by make_question
    ) -> Front:
        """Search the smallest or fastest files within a budget; see `yqc.tune`.

        Raises:
            YqcError: the data has too few images, or something cannot be read or written.
        """
        question = make_question(budget, target=self.settings.target, **asked)
        if self.data is None:
            raise DataError("a search needs data to choose by; give --data")
        held_out = self.settings.held_out or count_held_out(self.data)
        settings = replace(self.settings, held_out=held_out, threads=threads_per_trial)
        session = Session(
            self.model, settings=settings, registry=self.registry, progress=self.progress
        )
        opening = open_choosing if isinstance(self.model, str | Path) else None
        return tune(session, question, opening=opening, space=space, cluster=cluster)

    def compile(
        self,
        passes: Passes = "",
        *,
        output: str | Path | None = None,
        evaluate: bool = True,
        latency: bool = True,
        verify: bool = True,
        save_temps: Path | None = None,
        sensitivity: bool = False,
        html: bool = True,
        resume: bool = False,
        max_drop: str | float | None = None,
        watchers: Iterable[Watcher] = (),
    ) -> Result:
        """Rewrite the model's graph, emit ONNX, measure what that did; see `yqc.compile`.

        Raises:
            YqcError: what failed, in one sentence; nothing was written, older files are untouched.
            BudgetError: the accuracy drops by more than `max_drop`.
        """
        budget = Budget(max_drop=max_drop)
        source, progress, watchers = self.source, self.progress, tuple(watchers)
        data = self.data if evaluate or self.data is None else self.data.without_evaluation()
        pipeline = Pipeline.of(passes or self.settings.passes, self.registry)
        files = Outputs(Path(output) if output else default_output(self.model, pipeline))
        pipeline = continue_pipeline(source.snapshot, pipeline, self.settings)
        settings = replace(self.settings, passes=str(pipeline))
        check(settings, pipeline, files, self.model, source)
        check_budget(budget, settings, evaluate=evaluate)
        fitted = fit_pipeline(pipeline, source.gm, settings, progress)
        about = describe_compile(source, data, settings, pipeline, fitted.pipeline)
        pipeline = fitted.pipeline
        note_changes(source, data, settings, pipeline, progress)

        with torch_threads(settings.threads):
            ctx = make_context(settings, source, data, progress, kept=self.kept, pipeline=pipeline)
            expanded = pipeline.expand(given=given_by(ctx))
            ctx.cache = work = open_work(
                files, source, data, settings, pipeline, expanded, ctx, resume=resume, verify=verify
            )
            gm, last_float = copy.deepcopy(source.gm), LastFloat(pipeline)
            exports = "pt2" in (settings.emit or "")
            stages = Stages(work, expanded, lambda: not exports or last_float.is_now)
            loaded = pipeline.registry.files
            own = _watchers(files, about, loaded, verify=verify, save_temps=save_temps)
            own.append(Foresight(expanded, data, settings, evaluate=evaluate, latency=latency))
            observers = [*own, *([last_float] if exports else []), *watchers, stages]
            every = bool(exports or save_temps or watchers)  # these want to see every pass
            done = start_behind(source.snapshot, gm, ctx, expanded, exports=exports)
            if not done and (resume or not every):
                done = stages.restore(gm, ctx)
            if not (done or every):
                done = self.prefixes.restore(gm, ctx, expanded)
            steps = pipeline.run(gm, ctx, [*observers, self.prefixes], done=done)
            compiled = Compiled(source, data, settings, pipeline, ctx, gm, steps, fitted)

            how = Writing(evaluate, latency, verify, sensitivity, html, budget)
            written = write_files(compiled, files, work, how, last_float.gm if exports else None)
            return Result(written.report, gm, source.gm, ctx, files, written.paths)


def open_choosing(model: AnyModel, **choices: Any) -> Session:  # noqa: ANN401  # as of Session
    """Open the session of a search's trials, in a process of its own."""
    return Session(model, **choices).choosing()


@dataclass(frozen=True)
class Writing:
    """What is measured and written behind the passes; see `compile`."""

    evaluate: bool
    latency: bool
    verify: bool
    sensitivity: bool
    html: bool
    budget: Budget


@dataclass(frozen=True)
class Written:
    """What `write_files` made."""

    report: rp.Report
    paths: tuple[Path, ...]


def write_files(
    compiled: Compiled, files: Outputs, work: Work, how: Writing, exported: fx.GraphModule | None
) -> Written:
    """Emit a graph behind its passes, verify and measure the file, and write what goes beside it.

    All files appear together or none does; `exported` is a float graph to save, too.
    """
    source, data, settings, ctx = compiled.source, compiled.data, compiled.settings, compiled.ctx
    emitted, made = compiled.emit(), [files.onnx, files.report, files.recipe]
    with files.staged() as stage:
        example, form = ctx.example_for(compiled.gm), compiled.written_form
        with ctx.progress.task("writing the file", 0):
            save(emitted, stage.onnx)
            verified = verify_sizes(compiled.graphs, stage.onnx, example, form, strict=how.verify)
        measured = Measured(rp.Accuracy.unmeasured(source.task))
        if how.evaluate and not verified.not_run:
            measuring = source, stage.onnx, data, settings, ctx.progress
            measured = measure_against(*measuring, work=work, latency=how.latency)
        require_budget(how.budget, measured.accuracy)
        if compiled.embedding:  # what was measured is what stands within it
            emitted = embed(emitted, compiled.embedding, form)
            save(emitted, stage.onnx)
        with ctx.progress.task("writing the report", 0):
            report = make_report(
                compiled, emitted, stage.onnx, verified, measured, sensitivity=how.sensitivity
            )
            stage.report.write_text(report.to_json(), encoding="utf-8", newline="\n")
            stage.recipe.write_text(
                compiled.recipe, encoding="utf-8", newline="\n", errors="replace"
            )
            if exported is not None:
                save_exported(exported, stage.exported)
                made.append(files.exported)
            if how.html:
                shown = PageInputs(source, compiled.gm, example, measured.evidence)
                page = make_page(shown, report, compiled.recipe)
                stage.page.write_text(page, encoding="utf-8", newline="\n", errors="replace")
                made.insert(3, files.page)
    work.delete()
    return Written(report, tuple(made))


@with_choices(*SETTINGS)
def compile(  # noqa: A001  # what it does; called as yqc.compile
    model: AnyModel,
    passes: Passes = "",
    *,
    output: str | Path | None = None,
    settings: Settings | None = None,
    registry: Registry | None = None,
    evaluate: bool = True,
    latency: bool = True,
    verify: bool = True,
    save_temps: Path | None = None,
    sensitivity: bool = False,
    html: bool = True,
    resume: bool = False,
    max_drop: str | float | None = None,
    watchers: Iterable[Watcher] = (),
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> Result:
    """Compile a detector: trace it, rewrite its graph, emit ONNX, measure what that did.

    Args:
        model: a YOLO checkpoint or graph file, what `yqc.load` returned (its module may have been
            changed since), or a traceable module that takes float32 [N,C,H,W] in 0..1; three
            channels are RGB.
        passes: pipeline text, a `Pipeline`, or passes and texts; empty emits the graph as it was
            traced.
        output: path of the ONNX file; the report and the recipe are written next to it. By default
            named after the model and the passes, in the working directory.
        settings: image size, data, seed and whatever else decides the result, as a recipe file
            holds it; its own `passes` are used where `passes` is empty.
        registry: where names of passes are looked up.
        evaluate: whether to measure accuracy and latency.
        latency: whether to measure latency, in the target's runtime.
        verify: whether to compare the graph's outputs before and after every pass, and to refuse a
            file that differs from its graph; otherwise that is a warning.
        save_temps: a folder that gets the graph after every pass.
        sensitivity: whether to rank the layers by what quantizing each alone costs.
        html: whether to write the report as a page, too.
        resume: go on where an interrupted compile of the same input, settings and passes stopped.
        max_drop: largest loss of the task's main figure, such as "1%" of the float model's, or
            0.005; nothing is written where more is lost.
        watchers: further watchers of the passes.
        progress: where long work is shown.
        choices: any of the settings by name; see `Settings`.

    Returns:
        The report, both graphs, and the paths of what was written.

    Raises:
        YqcError: whatever failed, in one sentence; nothing was written, older files are untouched.
        BudgetError: the accuracy drops by more than `max_drop`.
    """
    settings = choose(settings, choices)
    pipeline = Pipeline.of(passes or settings.passes, registry)
    files = Outputs(Path(output) if output else default_output(model, pipeline))
    check_budget(Budget(max_drop=max_drop), settings, evaluate=evaluate)
    if not is_snapshot(model):  # which says itself which passes ran before
        check(settings, pipeline, files, model)
    session = Session(model, settings=settings, registry=registry, progress=progress)
    return session.compile(
        pipeline,
        output=files.onnx,
        evaluate=evaluate,
        latency=latency,
        verify=verify,
        save_temps=save_temps,
        sensitivity=sensitivity,
        html=html,
        resume=resume,
        max_drop=max_drop,
        watchers=watchers,
    )


def default_output(model: AnyModel, pipeline: Pipeline) -> Path:
    """Name the ONNX file after the model and its passes, options left out."""
    if isinstance(model, LoadedModel):
        model = model.path
    stem = Path(model).stem if isinstance(model, str | Path) else type(model).__name__
    return Path("-".join([stem, *(step.name for step in pipeline.steps)]) + ".onnx")


def _watchers(
    files: Outputs,
    about: dict[str, Any],
    loaded: Sequence[tuple[str, str]],
    *,
    verify: bool,
    save_temps: Path | None,
) -> list[Watcher]:
    """List what watches the passes of every compile; `about` is what snapshots hold of it."""
    found: list[Watcher] = [Verify()] if verify else []
    found += [Snapshots(save_temps, about)] if save_temps else []
    return [*found, Reproducer(files.reproducer, loaded)]
