"""What a compile refuses before any work: devices, data, outputs that do not fit its settings."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from yqc.emit.embedding import Embedding
from yqc.errors import PipelineError
from yqc.job.outputs import Outputs
from yqc.pipeline.base import Given, Pass
from yqc.pipeline.order import check_end
from yqc.pipeline.pipeline import Pipeline
from yqc.settings import Settings

KINDS = ("onnx", "pt2")
"""Kinds of files that `--emit` can name."""
MOST_THREADS = 4096
"""Threads at most: more than any machine has cores; libraries fail without a reason at more."""


def check(
    settings: Settings, pipeline: Pipeline, files: Outputs, model: str | Path | nn.Module
) -> None:
    """Refuse what can be refused before the model is read.

    Raises:
        PipelineError: a wrong order of passes, no such device, no images for a pass that needs
            some, an unknown kind of file or embedding.
        OutputError: the outputs cannot be written.
    """
    given = settings.data is not None
    passes = pipeline.expand(given=Given(settings.target, has_data=given, can_train=given))
    check_end(passes)
    check_device(settings.device, passes)
    check_images(settings, passes)
    if (settings.threads or 1) > MOST_THREADS:
        raise PipelineError(f"--threads {settings.threads} is more than {MOST_THREADS}")
    emitted_kinds(settings.emit)
    Embedding.parse(settings.embed or "")
    named = [settings.data, settings.arch, *(path for path, _ in pipeline.registry.files)]
    named += [] if isinstance(model, nn.Module) else [str(model)]
    files.check(Path(name) for name in named if name)


def check_device(device: str, passes: Sequence[Pass]) -> None:
    """Raise a PipelineError unless there is a device, and a pass that can use it."""
    if device == "cpu":
        return
    if not any(each.trains for each in passes):
        raise PipelineError(
            f"no pass here can run on {device!r}: none of them trains; leave --device out"
        )
    kind, _, number = device.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind != "cuda" or (number and not number.isdecimal()):
        raise PipelineError(f"--device {device} is no device; write cpu, cuda, or cuda:1")
    if int(number or 0) >= count:
        raise PipelineError(
            f"there is no device {device!r} here ({count} found by torch); leave --device out"
        )


def check_images(settings: Settings, passes: Sequence[Pass]) -> None:
    """Raise a PipelineError unless passes that learn from images are given some."""
    learner = next((each for each in passes if each.needs_images), None)
    if learner is not None and settings.data is None:
        raise PipelineError(
            f"{learner.name} learns from images, and none are given: add --data with a data YAML, "
            "a COCO JSON, or a folder of images"
        )


def emitted_kinds(text: str | None) -> tuple[str, ...]:
    """Read the kinds of files to emit, such as `onnx,pt2`; None stands for `onnx`.

    Raises:
        PipelineError: a word is no kind of file, or `onnx` is missing.
    """
    kinds = tuple(word.strip() for word in (text or "onnx").split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise PipelineError(f"--emit knows onnx and pt2, not {unknown[0]!r}")
    if "onnx" not in kinds:
        raise PipelineError("--emit must name onnx, which all measurements are made on")
    return kinds
