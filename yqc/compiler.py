"""The whole job: a model in; ONNX, a recipe and a measured report out."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from torch import fx, nn

import yqc
from yqc import report as rp
from yqc.emit import emit, layer_bytes, roundtrip, save, size_parts, weight_bytes, yolo_metadata
from yqc.emit.embedding import Embedding, embed
from yqc.evaluation import count_cores
from yqc.graph.compare import macs, parameter_count
from yqc.job.float_export import LastFloat, save_exported
from yqc.job.inputs import (
    check_device,
    check_images,
    emitted_kinds,
    find_data,
    foreseen_given,
    make_context,
    open_cache,
)
from yqc.job.layers import list_layers, rounds_activations
from yqc.job.measure import Measured, measure
from yqc.job.outputs import Outputs
from yqc.job.page import PageInputs, make_page
from yqc.job.sensitivity import costs
from yqc.models.source import Source, open_model
from yqc.pipeline.base import Context, Pass, Recipe
from yqc.pipeline.pipeline import Pipeline, Step, given_by, reproducible
from yqc.pipeline.registry import Registry
from yqc.pipeline.resume import Stages
from yqc.pipeline.watchers import Reproducer, Snapshots, Verify, Watcher
from yqc.progress import Progress, Silent
from yqc.settings import Choices, Settings, choose, write_recipe


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
    passes: str | Pipeline | Sequence[Pass | Recipe] = "",
    *,
    output: str | Path | None = None,
    settings: Settings | None = None,
    registry: Registry | None = None,
    evaluate: bool = True,
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
        model: a YOLO checkpoint or graph file, or a traceable module that takes float32 [N,3,H,W],
            RGB in 0..1.
        passes: pipeline text, a `Pipeline`, or passes; empty emits the graph as it was traced.
        output: path of the ONNX file; the report and the recipe are written next to it. By default
            named after the model and the passes, in the working directory.
        settings: image size, data, seed and whatever else decides the result, as a recipe file
            holds it; its own `passes` are used where `passes` is empty.
        registry: where names of passes are looked up.
        evaluate: whether to measure accuracy and latency.
        verify: whether to compare the graph's outputs before and after every pass.
        save_temps: a folder that gets the graph after every pass.
        sensitivity: whether to rank the layers by what quantizing each alone costs.
        html: whether to write the report as a page, too.
        resume: go on where an interrupted compile of the same input, settings and passes stopped.
        watchers: further watchers of the passes.
        progress: where long work is shown.
        choices: single fields of the settings: `data`, `images`, `single_class`, `strict`,
            `imgsz`, `head`, `arch`, `calib_images`, `target`, `device`, `seed`, `dynamic`,
            `opset`, `emit`.

    Returns:
        The report, both graphs, and the paths of what was written.

    Raises:
        YqcError: whatever failed, in one sentence; nothing was written, older files are untouched.
    """
    settings, progress = choose(settings, choices), progress or Silent()
    pipeline = _pipeline(passes or settings.passes, registry)
    settings = replace(settings, passes=str(pipeline))
    expanded = pipeline.expand(given=foreseen_given(settings))
    check_device(settings.device, expanded)
    check_images(settings, expanded)
    kinds = emitted_kinds(settings.emit)
    around = Embedding.parse(settings.embed or "")
    files = Outputs(Path(output) if output else _default_output(model, pipeline))
    files.check()
    source = open_model(
        model if isinstance(model, nn.Module) else Path(model),
        imgsz=settings.imgsz,
        head=settings.head,  # type: ignore[arg-type]  # the loader says what it may be
        arch=Path(settings.arch) if settings.arch else None,
    )
    data = find_data(settings, source)
    original, gm = source.gm, copy.deepcopy(source.gm)
    ctx = make_context(settings, source, data, progress)
    expanded = pipeline.expand(given=given_by(ctx))
    cache = open_cache(files.cache, settings, expanded, source, data, resume=resume)
    ctx.cache = cache
    looking: list[Watcher] = [Verify()] if verify else []
    looking += [Snapshots(save_temps)] if save_temps else []
    last_float = LastFloat(pipeline)
    looking += [last_float] if "pt2" in kinds else []
    looking += [*watchers, Reproducer(files.reproducer)]
    stages = Stages(cache, lambda: "pt2" not in kinds or last_float.is_now)
    steps = pipeline.run(gm, ctx, looking, stages=stages)

    text = reproducible(pipeline, steps)
    metadata = _metadata(source, text)
    emitted = emit(
        gm,
        metadata=metadata,
        opset=settings.opset,
        dynamic=settings.dynamic,
        target=settings.target,
    )
    with files.staged() as stage:
        save(emitted, stage.onnx)
        trip = roundtrip(gm, stage.onnx, ctx.example_for(gm), source.layout)
        measured = Measured(rp.Accuracy.unmeasured(), None)
        if evaluate and source.layout is not None:
            plain = stage.onnx.with_name("float.onnx")
            save(emit(original, opset=settings.opset), plain)
            measured = measure(
                plain,
                stage.onnx,
                data,
                imgsz=source.imgsz,
                layout=source.layout,
                threads=count_cores(),
                progress=progress,
            )
            plain.unlink()
        if str(around):  # what was measured is what stands within it
            emitted = embed(emitted, around, source.layout)
            save(emitted, stage.onnx)
        report = rp.Report(
            yqc=yqc.__version__,
            input=_input(source),
            pipeline=rp.PipelineText(text=str(pipeline), expanded=",".join(map(str, expanded))),
            passes=tuple(map(_record, steps)),
            size=rp.Size.measured(
                params_before=source.params,
                params_after=parameter_count(gm),
                weight_bytes=weight_bytes(emitted),
                file_bytes=stage.onnx.stat().st_size,
                parts=rp.SizeParts(**size_parts(emitted)),
            ),
            compute=rp.Compute(macs_before=macs(original), macs_after=macs(gm)),
            accuracy=measured.accuracy,
            verification=rp.Verification.of(trip, rounds=rounds_activations(gm)),
            latency=measured.latency,
            layers=list_layers(gm, layer_bytes(emitted)),
            warnings=(*source.warnings, *ctx.warnings, *measured.warnings),
            environment=rp.Environment.here(threads=count_cores(), seed=settings.seed),
            sensitivity=costs(source, ctx) if sensitivity else None,
        )
        stage.report.write_text(report.to_json(), encoding="utf-8")
        if "pt2" in kinds:
            save_exported(last_float.gm, stage.exported)
        recipe = write_recipe(
            replace(settings, passes=text), yqc.__version__, source.path, source.sha256
        )
        stage.recipe.write_text(recipe, encoding="utf-8")
        if html:
            shown = PageInputs(source, gm, ctx.example_for(gm), measured.evidence)
            stage.page.write_text(make_page(shown, report, recipe), encoding="utf-8")
    cache.delete()
    return Result(report, gm, original, ctx, files)


def _pipeline(
    passes: str | Pipeline | Sequence[Pass | Recipe], registry: Registry | None
) -> Pipeline:
    if isinstance(passes, Pipeline):
        return passes
    if isinstance(passes, str):
        return Pipeline.parse(passes, registry) if passes else Pipeline(())
    return Pipeline(tuple(passes))


def _default_output(model: str | Path | nn.Module, pipeline: Pipeline) -> Path:
    stem = type(model).__name__ if isinstance(model, nn.Module) else Path(model).stem
    return Path("-".join([stem, *(step.name for step in pipeline.steps)]) + ".onnx")


def _metadata(source: Source, pipeline: str) -> dict[str, str]:
    own = {"version": yqc.__version__, "pipeline": pipeline, "input_sha256": source.sha256}
    if not source.is_detector:
        return {f"yqc.{key}": value for key, value in own.items()}
    return yolo_metadata(
        source.names, source.strides, source.imgsz, batch=1, task=source.task, **own
    )


def _input(source: Source) -> rp.ModelInput:
    return rp.ModelInput(
        path=source.path,
        sha256=source.sha256,
        params=source.params,
        facts=source.facts,
    )


def _record(step: Step) -> rp.PassRecord:
    return rp.PassRecord(
        name=step.name,
        seconds=step.seconds,
        rewrites=step.rewrites,
        skips=tuple(rp.Skip(node=node, why=why) for node, why in step.skips),
        changed=step.changed,
        nodes_before=step.nodes_before,
        nodes_after=step.nodes_after,
        weight_bytes_before=step.weight_bytes_before,
        weight_bytes_after=step.weight_bytes_after,
        max_abs_error=step.max_abs_error,
        sqnr_db=step.sqnr_db,
    )
