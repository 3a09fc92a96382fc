"""View checkpoints, graph files, snapshots and ONNX files, before and after passes."""

import copy
from pathlib import Path

import onnx
from torch import fx

from yqc.emit import emit
from yqc.errors import CheckpointError, PipelineError
from yqc.graph.serial import is_graph_file, load_graph
from yqc.job.inputs import find_data, make_context, open_source
from yqc.look.fxview import of_graph
from yqc.look.onnxview import of_model, read_typed
from yqc.look.summary import require_file
from yqc.look.view import View
from yqc.models.source import AnyModel
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Registry
from yqc.pipeline.replay import action_needs
from yqc.progress import Progress, Silent
from yqc.settings import Settings


def look(model: AnyModel, settings: Settings | None = None, *, emitted: bool = False) -> View:
    """View a checkpoint (traced first), a graph file or snapshot, or an ONNX file.

    If `emitted`, it is what the graph becomes in ONNX, so that it compares with an ONNX file.

    Raises:
        CheckpointError: the file cannot be read.
        TraceError: the image size does not fit the model.
        LoweringError: `emitted`, and a node has no ONNX form.
    """
    settings = settings or Settings()
    path = find_file(model)
    if path is not None and path.suffix == ".onnx":
        if settings.imgsz or settings.head or settings.arch:
            raise PipelineError(
                f"{path} is an ONNX file, built already; leave --imgsz, --head and --arch out"
            )
        try:
            return of_model(read_typed(path), str(path))
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is malformed: {error!r}") from error
    if path is not None and is_graph_file(path):
        gm, name = load_graph(path)[0], str(path)
    else:
        source = open_source(model, settings)
        gm, name = source.gm, source.path
    if not emitted:
        return of_graph(gm, name)
    return of_model(onnx.shape_inference.infer_shapes(emit(gm)), name)


def find_file(model: AnyModel) -> Path | None:
    """Return the file that a model is given by, None for one from Python.

    Raises:
        CheckpointError: there is no such file.
    """
    if not isinstance(model, str | Path):
        return None
    require_file(Path(model))
    return Path(model)


def staged(
    model: AnyModel,
    passes: str,
    settings: Settings | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> View:
    """View what a model becomes under a pipeline. Nothing is written and nothing measured.

    Raises:
        YqcError: the model cannot be read, or the pipeline fails.
    """
    pipeline = Pipeline.parse(passes, registry) if passes else Pipeline(())
    gm, ctx, given = prepared(model, pipeline, settings, progress)
    if pipeline.steps:
        pipeline.run(gm, ctx, known=given)
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    return of_graph(gm, f"{name} under {pipeline}" if passes else name)


def prepared(
    model: AnyModel,
    pipeline: Pipeline,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> tuple[fx.GraphModule, Context, frozenset[str]]:
    """Return a model's graph, the context for passes, and what the graph is known to be.

    A snapshot is assumed to have every state that the pipeline requires.

    Raises:
        YqcError: the model or the data cannot be read.
    """
    settings, progress = settings or Settings(), progress or Silent()
    path = find_file(model)
    if path is not None and path.suffix == ".onnx":
        raise CheckpointError(f"{path} is an ONNX file; passes run on checkpoints and graph files")
    if path is not None and is_graph_file(path):
        gm, info, _ = load_graph(path)
        if info.get("kind") != "model":
            ctx = Context(seed=settings.seed, target=settings.target, progress=progress)
            return gm, ctx, action_needs(pipeline)
    source = open_source(model, settings)
    ctx = make_context(settings, source, find_data(settings, source), progress)
    return copy.deepcopy(source.gm), ctx, frozenset()
