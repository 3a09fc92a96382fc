"""Find what a model's outputs are, by their shapes, their numbers and what its file says."""

from collections.abc import Sequence
from typing import NamedTuple

from yqc.errors import CheckpointError
from yqc.evaluation.boxes import Floats
from yqc.facts import Layout, OutputForm, Task
from yqc.runtime import guess_layout

_CORNERS, _OBJECTNESS, _ROW = 4, 5, 6
_CLASSES, _BOXES, _PROTOTYPES = 2, 3, 4
"""Dimensions of an output of probabilities, of detections, of prototypes."""


class Hints(NamedTuple):
    """What a file's metadata, or a data set, says of a model's outputs."""

    task: Task | None = None
    nc: int | None = None
    kpt_shape: tuple[int, int] | None = None
    layout: Layout | None = None


def sort_outputs(outputs: Sequence[Floats]) -> tuple[Floats, ...]:
    """Return the outputs that are read: probabilities, or detections and then prototypes, if any.

    Exports of YOLOv5 and YOLOv7 may have further ones, of five dimensions, which are left out.
    """
    first = next((one for one in outputs if one.ndim in (_CLASSES, _BOXES)), outputs[0])
    others = [one for one in outputs if one.ndim == _PROTOTYPES and one is not first]
    return (first, *others) if len(others) == 1 else (first,)


def find_form(
    outputs: Sequence[Floats], known: OutputForm | None = None, hints: Hints | None = None
) -> OutputForm:
    """Find the form of outputs, [1, ...] each.

    The form is given where it is known; else the task is what the hints say, or what the number of
    outputs and their dimensions show: two are those of segmentation.

    Raises:
        CheckpointError: the outputs are of no decoded YOLO model, or not of the known form.
    """
    first, *others = outputs
    hints = hints or Hints()
    task = (
        known.task if known else hints.task or guess_task([one.ndim for one in outputs]) or "detect"
    )
    if task == "classify":
        if first.ndim != _CLASSES:
            raise CheckpointError(
                f"its output of shape {list(first.shape)} is not that of a classifier, "
                "[N, classes]."
            )
        return OutputForm("classes", first.shape[1], "classify")
    if task == "segment" and not others:
        raise CheckpointError("it has one output, and segmentation has two: boxes and prototypes.")
    if task == "pose" and not (known or hints.kpt_shape):
        raise CheckpointError("it is for keypoints, and its metadata lack kpt_shape.")
    coefficients = others[0].shape[1] if task == "segment" else 0
    kpt_shape = (known.kpt_shape if known else hints.kpt_shape) if task == "pose" else None
    form = OutputForm("yolov8", None, task, coefficients, kpt_shape)
    layout, nc = (known.layout, known.nc) if known else (hints.layout, hints.nc)
    return _find_layout(first, form, layout, nc or hints.nc)


def guess_task(ranks: Sequence[int]) -> Task | None:
    """Return the task that the dimensions of the outputs show; None for boxes of any kind."""
    if ranks[0] == _CLASSES:
        return "classify"
    return "segment" if len(ranks) > 1 else None


def _find_layout(
    output: Floats, form: OutputForm, layout: Layout | None, nc: int | None
) -> OutputForm:
    """Return a form with its layout, and the number of classes that the output's shape shows."""
    rows, columns = output.shape[1:] if output.ndim == _BOXES else (0, 0)
    extra = form.extra
    found = layout or guess_layout(output, nc or 0, extra)
    task = form.task
    match found:
        case "yolov8" if rows > _CORNERS + extra:
            classes = rows - _CORNERS - extra
        case "yolov5" if columns > _OBJECTNESS + extra:
            classes = columns - _OBJECTNESS - extra
        case "end2end" if columns == _ROW + extra:
            return OutputForm("end2end", nc, task, form.coefficients, form.kpt_shape)
        case _:
            more = f"+{extra}" if extra else ""
            raise CheckpointError(
                f"its output of shape {list(output.shape)} is not that of a decoded "
                f"{layout or 'YOLO'} detector: [N, 4+classes{more}, anchors], "
                f"[N, anchors, 5+classes{more}] or [N, detections, {_ROW + extra}] for a head that "
                "is end-to-end."
            )
    return OutputForm(found, classes, task, form.coefficients, form.kpt_shape)
