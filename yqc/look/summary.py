"""Summaries of checkpoints and graph files, as `yqc inspect` prints them."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from yqc.errors import CheckpointError, ForbiddenGlobalError, UnknownBlockError
from yqc.graph.compare import macs
from yqc.graph.serial import is_graph_file
from yqc.models.load import LoadedModel, load
from yqc.models.source import Source, open_model
from yqc.models.survey import survey
from yqc.report import ModelSummary

OUTPUTS = {
    "yolov5": "[N, A, 5+nc]: cx cy w h, objectness, scores",
    "yolov8": "[N, 4+nc, A]: cx cy w h, scores",
    "end2end": "[N, min(max_det, A), 6]: x1 y1 x2 y2, score, class",
}
"""Form of `output0` by layout of the head."""


def summarize(model: Path, *, arch: Path | None = None) -> ModelSummary:
    """Summarize a checkpoint or a graph file without tracing it.

    A checkpoint with blocks that yqc does not know is summarized from what it records itself.

    Raises:
        CheckpointError: the file cannot be read, or holds no detector.
    """
    require_file(model)
    if is_graph_file(model):
        source = open_model(model)
        return _summary(model, source, params=source.params, macs=macs(source.gm))
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
        output=OUTPUTS.get(known.layout or ""),
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
