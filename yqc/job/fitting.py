"""Fit a pipeline to the limits of a device's file, and list what is left beyond them.

What does not fit is found in the file that the float graph would become. For each limit that an
exact rewrite meets, that rewrite is tried on a copy of the graph, and put into the pipeline if it
finds something: behind all that removes channels or swaps activations, and before what quantizes.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from torch import fx

from yqc.emit import LOWEST_OPSET, emit
from yqc.errors import LoweringError
from yqc.linting import EXACT_ORDER, Misfit, list_misfits
from yqc.pipeline.base import Context, Given, Pass
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.state import State
from yqc.progress import Progress
from yqc.report import DeviceFit, Unfit
from yqc.settings import HashedFile, Settings
from yqc.targets import Target, find_target

USUAL_OPSET = 17
"""What files are written in that need no higher one; see `yqc.emit.emit`."""
NARROWED = frozenset({State.OBSERVED, State.INT8, State.PACKED, State.HALF})
"""States before which the rewrites stand."""


@dataclass(frozen=True)
class Fitted:
    """A pipeline with the exact rewrites that a device needs."""

    pipeline: Pipeline
    inserted: tuple[str, ...] = ()
    before: tuple[Misfit, ...] = ()
    """What of the float graph's file does not fit."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Why a rewrite leaves a node as it is, by the node's name."""


def fit_pipeline(
    pipeline: Pipeline, gm: fx.GraphModule, settings: Settings, progress: Progress
) -> Fitted:
    """Insert the exact rewrites that a device needs and the pipeline lacks.

    Returns the pipeline as it is for a target that is no device's file, and for a graph that only
    passes of a user make writable.
    """
    target = find_target(settings.target)
    if target.base is None:
        return Fitted(pipeline)
    graph = copy.deepcopy(gm)
    try:
        before = list_misfits(emit(graph, opset=choose_opset(settings), target=target.name), target)
    except LoweringError:
        return Fitted(pipeline)
    given = settings.data is not None
    parts = pipeline.expand_each(given=Given(target.name, has_data=given, can_train=given))
    present = {action.name for part in parts for action in part}
    remedies = {one.remedy for one in before if one.remedy.partition("{")[0] in EXACT_ORDER}
    wanted = sorted(remedies, key=lambda text: EXACT_ORDER.index(text.partition("{")[0]))
    inserted, refusals = list[str](), dict[str, str]()
    for text in wanted:
        ctx = Context(target=target.name)
        (action,) = Pipeline.parse(text, pipeline.registry).expand()
        action.run(graph, ctx)
        graph.recompile()
        refusals |= {node: f"{action.name} leaves it: {why}" for node, why in ctx.skips}
        if ctx.rewrites and action.name not in present:
            inserted.append(str(action))
    if inserted:
        progress.note(f"{target.name}: {','.join(inserted)} will run, for nodes that do not fit it")
    place = next((i for i, part in enumerate(parts) if any(map(narrows, part))), len(parts))
    steps = [*pipeline.steps[:place], *inserted, *pipeline.steps[place:]]
    fitted = Pipeline(steps, pipeline.registry) if inserted else pipeline
    return Fitted(fitted, tuple(inserted), tuple(before), refusals)


def narrows(action: Pass) -> bool:
    """Return whether a pass leaves tensors of other types, or marks them for that."""
    return bool(action.provides & NARROWED)


def choose_opset(settings: Settings) -> int | None:
    """Return the opset to write: the one asked for, or what a device takes; None: the usual one."""
    most = find_target(settings.target).limits.opset
    if settings.opset is None and most is not None and most < USUAL_OPSET:
        return max(most, LOWEST_OPSET)
    return settings.opset


def device_file(settings: Settings) -> HashedFile | None:
    """Return the device's file that a compile is for, and the hash of what was read of it."""
    target = find_target(settings.target)
    return None if target.base is None else HashedFile(target.name, target.sha256)


def describe_target(target: Target) -> dict[str, str]:
    """Return what the metadata of a file say of its target."""
    if target.base is None:
        return {"target": target.name}
    return {"target": target.base, "device": f"{Path(target.name).name} {target.sha256[:12]}"}


def check_fit(emitted: onnx.ModelProto, fitted: Fitted, settings: Settings) -> DeviceFit | None:
    """List what of a file does not fit a device; None for a target that is no device's file."""
    target = find_target(settings.target)
    if target.base is None:
        return None
    misfits = list_misfits(emitted, target)
    return DeviceFit(
        path=target.name,
        sha256=target.sha256,
        base=target.base,
        decode=target.decode,
        inserted=fitted.inserted,
        nodes=len(emitted.graph.node),
        unfit_before=sum(one.severity == "error" for one in fitted.before),
        unfit=tuple(as_unfit(one, fitted) for one in misfits if one.severity == "error"),
        slow_activations=sum(one.severity == "note" for one in misfits),
        swap=next((one.remedy for one in misfits if one.remedy.startswith("relu")), None),
    )


def as_unfit(misfit: Misfit, fitted: Fitted) -> Unfit:
    """Return a node that does not fit, as the report holds it."""
    refused = fitted.refusals.get(misfit.node)
    exact = misfit.remedy.partition("{")[0] in EXACT_ORDER
    return Unfit(
        node=misfit.node,
        op=misfit.op,
        limit=misfit.limit,
        what=misfit.what,
        remedy=None if exact and refused else misfit.remedy or None,
        fix=refused if exact and refused else misfit.fix,
    )
