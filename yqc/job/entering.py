"""Go on from a snapshot of an earlier compile, as if that one had not stopped behind its pass."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import fx

from yqc.data import Data
from yqc.errors import CheckpointError, DataError, EmitError, PipelineError, first_line
from yqc.graph.edit import replace_graph
from yqc.graph.serial import is_graph_file, read_info
from yqc.job.fitting import device_file
from yqc.job.float_export import is_quantized
from yqc.job.plugins import find_plugins
from yqc.models.graph_files import Snapshot
from yqc.models.load import LoadedModel
from yqc.models.source import AnyModel, Source, why_fixed
from yqc.pipeline.base import Context, Given, Pass
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.resume import unpack_run
from yqc.pipeline.step import Step
from yqc.progress import Progress
from yqc.settings import SETTINGS, HashedFile, Provenance, Settings, parse_recipe, write_recipe
from yqc.version import __version__


def find_origin(
    source: Source, data: Data | None, settings: Settings, pipeline: Pipeline
) -> Provenance:
    """Return what a compile reads and uses, with the hashes of that."""
    registry = pipeline.registry
    actions = [*pipeline.steps, *pipeline.expand(given=expected(settings))]
    return Provenance(
        version=__version__,
        model=HashedFile(source.path, source.sha256),
        data=None if data is None else HashedFile(str(data.source), data.sha256),
        loaded=tuple(HashedFile(*file) for file in registry.files),
        target_file=device_file(settings),
        plugins=find_plugins(actions, registry, settings),
    )


def expected(settings: Settings) -> Given:
    """Return what recipes go by as far as settings say."""
    has_data = settings.data is not None
    return Given(settings.target, has_data=has_data, can_train=has_data)


def describe_compile(
    source: Source, data: Data | None, settings: Settings, asked: Pipeline, fitted: Pipeline
) -> dict[str, Any]:
    """Return what a snapshot holds of its compile, plain JSON values.

    `fitted` is the pipeline that was asked for, with the exact rewrites that a device needs.
    """
    origin = find_origin(source, data, settings, asked)
    return {
        **source.info(),
        "kind": "snapshot",
        "input": {"path": source.path, "sha256": source.sha256},
        "recipe": write_recipe(replace(settings, passes=str(asked)), origin),
        "fitted": str(fitted),
    }


def note_changes(
    source: Source, data: Data | None, settings: Settings, pipeline: Pipeline, progress: Progress
) -> None:
    """Note what is other now than what a recipe was written for; the report has it, too."""
    for sentence in settings.written_for.changes(find_origin(source, data, settings, pipeline)):
        progress.note(sentence)


def enter(source: Source, settings: Settings) -> tuple[Source, Settings]:
    """Return a source and settings; those of a snapshot's compile hold where none are given.

    Raises:
        CheckpointError: the snapshot does not say how it was compiled.
    """
    if source.snapshot is None:
        return source, settings
    kept = read_settings(source.snapshot)
    values = {name: getattr(settings, name) for name in SETTINGS if name in settings.given}
    merged = replace(kept, **{"passes": settings.passes, **values})
    fixed = why_fixed(source.gm, source.strides) if merged.dynamic else ""
    return replace(source, fixed=fixed), merged


def read_settings(snapshot: Snapshot) -> Settings:
    """Return the settings of the compile that wrote a snapshot.

    Raises:
        CheckpointError: there are none, or they are malformed.
    """
    try:
        return parse_recipe(str(snapshot.info["recipe"]), Path(snapshot.path))
    except (KeyError, PipelineError) as error:
        raise CheckpointError(
            f"{snapshot.path} does not say how it was compiled ({first_line(error)})"
        ) from error


def continue_pipeline(
    snapshot: Snapshot | None, pipeline: Pipeline, settings: Settings
) -> Pipeline:
    """Return the whole pipeline: the passes that led to a snapshot, if any, and what follows.

    It is the one that was compiled if it comes to the same passes.

    Raises:
        CheckpointError: the snapshot does not say which passes led to it.
        PipelineError: one of them is not found, such as a file's that was loaded.
    """
    if snapshot is None:
        return pipeline
    registry, given = pipeline.registry, expected(settings)
    try:
        texts = [str(one["pass"]) for one in snapshot.info["steps"]]
        fitted = str(snapshot.info["fitted"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{snapshot.path} does not say which passes led to it ({error!r})"
        ) from error
    kept = read_settings(snapshot)
    try:
        whole = Pipeline([*texts, *pipeline.steps], registry)
        was = Pipeline.of(fitted, registry)
    except PipelineError as error:
        advice = kept.written_for.advise([sha256 for _, sha256 in registry.files])
        raise PipelineError(f"{snapshot.path}: {error}{advice}") from error
    if was.steps and whole.expand(given=given) == was.expand(given=given):
        return Pipeline.of(kept.passes, registry)
    return whole


def is_snapshot(model: AnyModel) -> bool:
    """Return whether a model is a snapshot of a compile, as far as its file says."""
    if isinstance(model, LoadedModel):
        return model.snapshot is not None
    if not isinstance(model, str | Path) or not is_graph_file(Path(model)):
        return False
    return read_info(Path(model)).get("kind") == "snapshot"


def start_behind(
    snapshot: Snapshot | None,
    gm: fx.GraphModule,
    ctx: Context,
    passes: list[Pass],
    *,
    exports: bool,
) -> list[Step]:
    """Put `gm` and the records where a snapshot, if any, stands; return the steps that led there.

    Raises:
        CheckpointError: the snapshot is malformed.
        EmitError: a float graph is to be exported, and the snapshot's is quantized.
    """
    if snapshot is None:
        return []
    if exports and is_quantized(snapshot.gm):
        raise EmitError(
            f"--emit pt2 saves the last float graph, and {snapshot.path} is quantized already; "
            "compile an earlier snapshot"
        )
    replace_graph(gm, copy.deepcopy(snapshot.gm))
    try:
        steps = unpack_run(snapshot.info, gm, ctx, passes)
    except (KeyError, TypeError, ValueError, DataError, PipelineError) as error:
        raise CheckpointError(
            f"{snapshot.path} does not say what its passes did ({error!r})"
        ) from error
    if steps:
        ctx.progress.note(f"{snapshot.path}: behind {', '.join(one.name for one in steps)}")
    return steps
