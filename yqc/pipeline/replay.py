"""Running a reproducer: the pass that failed, on the graph that it failed on."""

from pathlib import Path

from yqc.errors import CheckpointError, PassError, PipelineError
from yqc.graph.serial import load_graph
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Registry
from yqc.pipeline.watchers import Verify


def replay(path: Path, registry: Registry) -> str:
    """Run the pass that a reproducer holds, and say in a sentence that it works now.

    Raises:
        CheckpointError: the file is no reproducer.
        PassError: the pass still fails.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    gm, info, more = load_graph(path)
    if info.get("kind") != "reproducer" or "target" not in info:
        raise CheckpointError(f"{path} is no reproducer; a failing compile names the one it wrote")
    try:
        pipeline = Pipeline.parse(str(info["pass"]), registry)
    except PipelineError as error:
        files = [str(name) for name, _ in info.get("loaded", [])]
        advice = "".join(f" --load {name}" for name in files)
        if not files:
            raise
        raise PipelineError(f"{error}\nrun it with: yqc replay {path}{advice}") from error
    action = pipeline.steps[0]
    ctx = Context(example=more.get("example"), seed=int(info["seed"]), target=info["target"])
    try:
        alone = Pipeline(pipeline.steps, registry)
        steps = alone.run(gm, ctx, [Verify()], known=action_needs(alone))
    except PassError as error:
        raise PassError(f"{error}; the first failure was {info['error']}") from error
    return (
        f"{action} works on this graph now: {steps[-1].record.rewrites} rewrites, "
        f"{len(steps[-1].record.skips)} skips (it failed with {info['error']})"
    )


def action_needs(pipeline: Pipeline) -> frozenset[str]:
    """Return what the passes of a pipeline require: a reproducer's graph has it."""
    return frozenset[str]().union(*(s.needs() for s in pipeline.steps if hasattr(s, "needs")))
