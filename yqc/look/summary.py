"""Summaries of checkpoints and graph files, as `yqc inspect` prints them."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from yqc.errors import CheckpointError, ForbiddenGlobalError, UnknownBlockError
from yqc.facts import OutputForm
from yqc.graph.compare import macs, parameter_count
from yqc.graph.serial import is_graph_file
from yqc.models.load import LoadedModel, load
from yqc.models.source import Source, open_model
from yqc.models.survey import survey
from yqc.report import ModelSummary

OUTPUTS = {
    "yolov5": "[N, A, 5+nc{extra}]: cx cy w h, objectness, scores",
    "yolov8": "[N, 4+nc{extra}, A]: cx cy w h, scores",
    "end2end": "[N, min(max_det, A), 6{extra}]: {box}, score, class",
    "classes": "[N, nc]: probabilities",
}
"""Form of `output0` by layout of the head."""


def describe_outputs(form: OutputForm | None) -> str | None:
    """Say what the outputs are: the first one's dimensions and numbers, prototypes of masks."""
    if form is None:
        return None
    box = "cx cy w h" if form.task == "obb" else "x1 y1 x2 y2"
    said = OUTPUTS[form.layout].format(extra=f"+{form.extra}" if form.extra else "", box=box)
    if form.coefficients:
        return f"{said}, mask coefficients; prototypes [N, {form.coefficients}, H/4, W/4]"
    if form.kpt_shape is not None:
        keypoints, numbers = form.kpt_shape
        return f"{said}, {keypoints} keypoints of {'x y visibility' if numbers > 2 else 'x y'}"  # noqa: PLR2004
    return f"{said}, angle" if form.task == "obb" else said


def summarize(model: Path, *, arch: Path | None = None) -> ModelSummary:
    """Summarize a checkpoint or a graph file without tracing it.

    A checkpoint with blocks that yqc does not know is summarized from what it records itself.

    Raises:
        CheckpointError: the file cannot be read, or holds no detector.
    """
    require_file(model)
    if is_graph_file(model):
        source = open_model(model)
        gm = source.gm if source.snapshot is None else source.snapshot.gm
        return _summary(model, source, params=parameter_count(gm), macs=macs(gm))
    try:
        loaded = load(model, arch=arch)
    except (UnknownBlockError, ForbiddenGlobalError):
        found = survey(model)
        if not found.unknown:
            raise
        return ModelSummary(
            path=str(model),
            sha256=found.sha256,
            bytes=model.stat().st_size,
            facts=found.facts,
            blocks=found.blocks,
            unknown=found.unknown,
            advice=found.advice,
        )
    params = sum(p.numel() for p in loaded.module.parameters())
    return _summary(model, loaded, params=params, macs=_count_macs(loaded), blocks=loaded.blocks)


def _summary(
    path: Path,
    known: Source | LoadedModel,
    *,
    params: int,
    macs: int,
    blocks: Mapping[str, int] | None = None,
) -> ModelSummary:
    return ModelSummary(
        path=str(path),
        sha256=known.sha256,
        bytes=path.stat().st_size,
        facts=known.facts,
        params=params,
        macs=macs,
        output=describe_outputs(known.form),
        blocks=blocks or {},
        warnings=known.warnings,
    )


def _count_macs(loaded: LoadedModel) -> int:
    """Count multiply-accumulates for one image, on tensors without contents."""
    high, wide = loaded.facts.size
    counter = FlopCounterMode(display=False)
    step = max(loaded.strides, default=1)
    example = torch.zeros(
        1, loaded.channels, -(-high // step) * step, -(-wide // step) * step, device="meta"
    )
    with counter, torch.no_grad(), torch.device("meta"):
        loaded.module.to("meta")(example)
    return int(counter.get_total_flops()) // 2


def require_file(path: Path) -> None:
    """Raise a CheckpointError if there is no such file."""
    if not os.path.isfile(path):  # noqa: PTH113  # False for a name that no file can have
        raise CheckpointError(f"there is no file {path}")
