"""Turn a model's output arrays into boxes, for the layouts of decoded YOLO heads.

    yolov5    [A, 5+nc+E]         centre x, centre y, width, height, objectness, class probabilities
    yolov8    [4+nc+E, A]         centre x, centre y, width, height, class probabilities
    end2end   [min(300, A), 6+E]  x1, y1, x2, y2, score, class, by falling score: already
                                  suppressed; of oriented boxes centre and size, not corners
    classes   [nc]                probabilities

E numbers follow: mask coefficients, keypoints or an angle (`OutputForm.extra`). Boxes are in pixels
of the model's input, scores in 0..1.
"""

from typing import NamedTuple

import numpy as np

from yqc.evaluation.boxes import Boxes, Floats, Indices
from yqc.evaluation.nms import nms
from yqc.evaluation.rotated import fast_nms
from yqc.facts import OutputForm, Task

__all__ = ["LIMITS", "Boxes", "Limits", "detections"]

_CORNERS, _OBJECTNESS, _ROW = 4, 5, 6
_BEST = 5
"""Classes that are kept of a classifier's: top-5 accuracy needs no more."""


class Limits(NamedTuple):
    """What counts as found: the lowest score, and the overlap above which a lower score goes."""

    conf: float
    iou: float


LIMITS: dict[Task, Limits] = {
    "detect": Limits(0.001, 0.65),
    "segment": Limits(0.001, 0.7),
    "pose": Limits(0.001, 0.7),
    "obb": Limits(0.01, 0.7),
    "classify": Limits(0.0, 0.0),
}
"""As the projects validate: YOLOv5 and YOLOv7 with an IoU of 0.65, Ultralytics its other tasks with
0.7, and oriented boxes at 0.01 to save memory. A higher confidence cuts the curve of precision and
lowers the mAP."""


def detections(
    output: Floats,
    form: OutputForm,
    *,
    conf: float | None = None,
    iou: float | None = None,
    top: int = 300,
) -> Boxes:
    """Return the boxes of an output for one image, at most `top`, by falling score.

    A box counts once for each class whose score is above `conf` (multi-label); boxes of one class
    suppress each other (`nms`, of oriented boxes `fast_nms`); an end-to-end output is taken as it
    is. Scores that are no number and boxes that are not finite are no detections. `conf` and `iou`
    are by default those of the task (`LIMITS`).
    """
    if form.layout == "classes":
        return _likeliest(output)
    usual = LIMITS[form.task]
    conf, iou = (usual.conf if conf is None else conf), (usual.iou if iou is None else iou)
    if form.layout == "end2end":
        boxes = _finite(_final(output, conf, turned=form.task == "obb"))
        return boxes.select(np.argsort(-boxes.scores, kind="stable")[:top])
    read = _yolov8 if form.layout == "yolov8" else _yolov5
    boxes = _finite(read(output, conf, form.extra))
    if form.task == "obb":
        kept = fast_nms(boxes.rotated, boxes.scores, boxes.classes, iou=iou, top=top)
    else:
        kept = nms(boxes.xyxy, boxes.scores, boxes.classes, iou=iou, top=top)
    return boxes.select(kept)


def _likeliest(output: Floats) -> Boxes:
    """Return the likeliest classes; none where a probability is no number."""
    best: Indices = np.argsort(-output, kind="stable")[:_BEST]
    if not np.isfinite(output).all():
        best = best[:0]
    return Boxes(np.zeros((len(best), 4), np.float32), output[best], best)


def _final(output: Floats, conf: float, *, turned: bool) -> Boxes:
    rows = output[output[:, 4] > conf]
    box = _corners(rows[:, :4]) if turned else rows[:, :4]
    return Boxes(box, rows[:, 4], np.nan_to_num(rows[:, 5]).astype(np.intp), rows[:, _ROW:])


def _yolov5(output: Floats, conf: float, extra: int) -> Boxes:
    rows = output[output[:, 4] > conf]  # Probabilities are at most 1, so the others cannot pass.
    end = rows.shape[1] - extra
    scores = rows[:, _OBJECTNESS:end] * rows[:, 4:5]
    row, cls = np.nonzero(scores > conf)
    return Boxes(_corners(rows[row, :4]), scores[row, cls], cls, rows[row, end:])


def _yolov8(output: Floats, conf: float, extra: int) -> Boxes:
    end = len(output) - extra
    scores = output[_CORNERS:end]
    cls, column = np.nonzero(scores > conf)
    return Boxes(
        _corners(output[:_CORNERS].T[column]), scores[cls, column], cls, output[end:].T[column]
    )


def _corners(xywh: Floats) -> Floats:
    centre, half = xywh[:, :2], xywh[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _finite(boxes: Boxes) -> Boxes:
    fine = np.isfinite(boxes.xyxy).all(1) & np.isfinite(boxes.scores)
    fine &= np.isfinite(boxes.extra).all(1)
    return boxes if fine.all() else boxes.select(fine)
