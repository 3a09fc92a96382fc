"""Compile a detector: a model in; ONNX, a recipe and a measured report out."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from torch import fx, nn

from yqc import report as rp
from yqc.emit import save
from yqc.emit.embedding import embed
from yqc.job.checks import check, emitted_kinds
from yqc.job.float_export import LastFloat, save_exported
from yqc.job.inputs import find_data, make_context, open_source, torch_threads
from yqc.job.measure import Measured, measure_against
from yqc.job.outputs import Outputs
from yqc.job.page import PageInputs, make_page
from yqc.job.reporting import Compiled, make_report
from yqc.job.verification import verify_file
from yqc.job.work import open_work
from yqc.pipeline.base import Context, Pass, Recipe
from yqc.pipeline.pipeline import Pipeline, given_by
from yqc.pipeline.registry import Registry
from yqc.pipeline.resume import Stages
from yqc.pipeline.step import Watcher
from yqc.pipeline.watchers import Reproducer, Snapshots, Verify
from yqc.progress import Progress, Silent
from yqc.settings import Choices, Settings, choose


@dataclass(frozen=True)
class Result:
    """What a compile made."""

    report: rp.Report
    gm: fx.GraphModule
    """The rewritten graph, as it was emitted."""
    original: fx.GraphModule
    """The float graph as it was traced."""
    context: Context
    files: Outputs


def compile(  # noqa: A001  # what it does; called as yqc.compile
    model: str | Path | nn.Module,
    passes: str | Pipeline | Sequence[Pass | Recipe | str] = "",
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
    watchers: Iterable[Watcher] = (),
    progress: Progress | None = None,
    **choices: Unpack[Choices],
) -> Result:
    """Compile a detector: trace it, rewrite its graph, emit ONNX, measure what that did.

    Args:
        model: a YOLO checkpoint or graph file, or a traceable module that takes float32 [N,C,H,W]
            in 0..1; three channels are RGB.
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
        watchers: further watchers of the passes.
        progress: where long work is shown.
        choices: single fields of the settings: `data`, `images`, `single_class`, `strict`,
            `imgsz`, `head`, `arch`, `calib_images`, `target`, `device`, `seed`, `dynamic`,
            `opset`, `emit`, `embed`, `threads`.

    Returns:
        The report, both graphs, and the paths of what was written.

    Raises:
        YqcError: whatever failed, in one sentence; nothing was written, older files are untouched.
    """
    settings, progress = choose(settings, choices), progress or Silent()
    pipeline = Pipeline.of(passes or settings.passes, registry)
    settings = replace(settings, passes=str(pipeline))
    files = Outputs(Path(output) if output else default_output(model, pipeline))
    check(settings, pipeline, files, model)

    with torch_threads(settings.threads) as threads:
        settings = replace(settings, threads=threads)
        source = open_source(model, settings)
        data = find_data(settings, source)
        ctx = make_context(settings, source, data, progress)
        expanded = pipeline.expand(given=given_by(ctx))
        ctx.cache = work = open_work(
            files, source, data, settings, pipeline, expanded, ctx, resume=resume
        )
        gm, last_float = copy.deepcopy(source.gm), LastFloat(pipeline)
        exports = "pt2" in emitted_kinds(settings.emit)
        stages = Stages(work, lambda: not exports or last_float.is_now)
        own = _watchers(files, verify=verify, save_temps=save_temps)
        observers = [*own, *([last_float] if exports else []), *watchers, stages]
        steps = pipeline.run(gm, ctx, observers, done=stages.restore(gm, ctx, expanded))
        compiled = Compiled(source, data, settings, pipeline, ctx, gm, steps)

        emitted = compiled.emit()
        with files.staged() as stage:
            save(emitted, stage.onnx)
            example, layout = ctx.example_for(gm), source.layout
            verified = verify_file(gm, source.gm, stage.onnx, example, layout, strict=verify)
            measured = Measured()
            if evaluate:
                measuring = source, stage.onnx, data, settings, progress
                measured = measure_against(*measuring, work=work, latency=latency)
            if str(compiled.embedding):  # what was measured is what stands within it
                emitted = embed(emitted, compiled.embedding, layout)
                save(emitted, stage.onnx)
            report = make_report(
                compiled, emitted, stage.onnx, verified, measured, sensitivity=sensitivity
            )
            stage.report.write_text(report.to_json(), encoding="utf-8")
            stage.recipe.write_text(compiled.recipe, encoding="utf-8", errors="replace")
            if exports:
                save_exported(last_float.gm, stage.exported)
            if html:
                shown = PageInputs(source, gm, example, measured.evidence)
                page = make_page(shown, report, compiled.recipe)
                stage.page.write_text(page, encoding="utf-8", errors="replace")
        work.delete()
        return Result(report, gm, source.gm, ctx, files)


def default_output(model: str | Path | nn.Module, pipeline: Pipeline) -> Path:
    """Name the ONNX file after the model and its passes, options left out."""
    stem = type(model).__name__ if isinstance(model, nn.Module) else Path(model).stem
    return Path("-".join([stem, *(step.name for step in pipeline.steps)]) + ".onnx")


def _watchers(files: Outputs, *, verify: bool, save_temps: Path | None) -> list[Watcher]:
    """List what watches the passes of every compile."""
    found: list[Watcher] = [Verify()] if verify else []
    found += [Snapshots(save_temps)] if save_temps else []
    return [*found, Reproducer(files.reproducer)]
