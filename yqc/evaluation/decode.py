"""Turn a detector's output array into boxes, for the three layouts of decoded YOLO heads.

    yolov5    [A, 5+nc]           centre x, centre y, width, height, objectness, class probabilities
    yolov8    [4+nc, A]           centre x, centre y, width, height, class probabilities
    end2end   [min(300, A), 6]    x1, y1, x2, y2, score, class, by falling score: already suppressed

Boxes are in pixels of the model's input, scores in 0..1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yqc.errors import CheckpointError
from yqc.evaluation.nms import Floats, Indices, nms
from yqc.facts import Layout, OutputForm

_CORNERS, _OBJECTNESS, _ROW = 4, 5, 6
_END2END_ROWS = 300


@dataclass(frozen=True)
class Boxes:
    """Detections in one image, by falling score."""

    xyxy: Floats
    """float32 [n, 4], left, top, right, bottom in pixels."""
    scores: Floats
    """float32 [n]."""
    classes: Indices
    """[n], from 0."""

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Boxes":
        """Return the boxes with at least this score."""
        return self.select(self.scores >= score)

    def select(self, which: NDArray[np.bool_] | Indices) -> "Boxes":
        """Return the boxes that a mask or a list of indices selects."""
        return Boxes(self.xyxy[which], self.scores[which], self.classes[which])


def head_of(output: Floats, known: OutputForm | None = None, nc: int | None = None) -> OutputForm:
    """Find the layout of an output, [1, ...], by its shape, and where that is ambiguous by numbers.

    The form, or the number of classes, is given where it is known.

    Raises:
        CheckpointError: the output is of none of the three layouts, or not of the known one.
    """
    layout = known and known.layout
    rows, columns = output.shape[1:] if output.ndim == 3 else (0, 0)  # noqa: PLR2004
    match layout or _guess_layout(output, rows, columns, nc or 0):
        case "yolov8" if rows > _CORNERS:
            return OutputForm("yolov8", rows - _CORNERS)
        case "yolov5" if columns > _OBJECTNESS:
            return OutputForm("yolov5", columns - _OBJECTNESS)
        case "end2end" if columns == _ROW:
            return OutputForm("end2end", nc)
    raise CheckpointError(
        f"its output of shape {list(output.shape)} is not that of a decoded "
        f"{layout or 'YOLO'} detector: [N, 4+classes, anchors], [N, anchors, 5+classes] "
        f"or [N, detections, 6] for a head that is end-to-end."
    )


def _guess_layout(output: Floats, rows: int, columns: int, nc: int) -> Layout:
    if columns == _ROW and rows <= _END2END_ROWS and _looks_final(output[0]):
        return "end2end"
    by_rows, by_columns = rows == _CORNERS + nc, columns == _OBJECTNESS + nc
    if by_rows != by_columns:
        return "yolov8" if by_rows else "yolov5"
    return "yolov8" if rows < columns else "yolov5"


def detections(
    output: Floats, form: OutputForm, *, conf: float = 0.001, iou: float = 0.65, top: int = 300
) -> Boxes:
    """Return the boxes of an output for one image, at most `top`, by falling score.

    A box counts once for each class whose score is above `conf` (multi-label); boxes of one class
    suppress each other (`nms`); an end-to-end output is taken as it is. Scores that are no number
    and boxes that are not finite are no detections.
    """
    if form.layout == "end2end":
        boxes = _finite(_final(output, conf))
        return boxes.select(np.argsort(-boxes.scores, kind="stable")[:top])
    boxes = _finite(_yolov8(output, conf) if form.layout == "yolov8" else _yolov5(output, conf))
    return boxes.select(nms(boxes.xyxy, boxes.scores, boxes.classes, iou=iou, top=top))


def _looks_final(output: Floats) -> bool:
    scores, classes = output[:, 4], output[:, 5]
    return bool((np.diff(scores) <= 1e-6).all() and (classes == np.round(classes)).all())  # noqa: PLR2004


def _final(output: Floats, conf: float) -> Boxes:
    rows = output[output[:, 4] > conf]
    return Boxes(rows[:, :4], rows[:, 4], np.nan_to_num(rows[:, 5]).astype(np.intp))


def _yolov5(output: Floats, conf: float) -> Boxes:
    rows = output[output[:, 4] > conf]  # Probabilities are at most 1, so the others cannot pass.
    scores = rows[:, _OBJECTNESS:] * rows[:, 4:5]
    row, cls = np.nonzero(scores > conf)
    return Boxes(_corners(rows[row, :4]), scores[row, cls], cls)


def _yolov8(output: Floats, conf: float) -> Boxes:
    scores = output[_CORNERS:]
    cls, column = np.nonzero(scores > conf)
    return Boxes(_corners(output[:_CORNERS].T[column]), scores[cls, column], cls)


def _corners(xywh: Floats) -> Floats:
    centre, half = xywh[:, :2], xywh[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _finite(boxes: Boxes) -> Boxes:
    fine = np.isfinite(boxes.xyxy).all(1) & np.isfinite(boxes.scores)
    return boxes if fine.all() else boxes.select(fine)
