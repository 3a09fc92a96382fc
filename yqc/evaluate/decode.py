"""From a detector's output array to boxes: the three layouts of decoded YOLO heads.

    yolov5    [A, 5+nc]           centre x, centre y, width, height, objectness, class probabilities
    yolov8    [4+nc, A]           centre x, centre y, width, height, class probabilities
    end2end   [min(300, A), 6]    x1, y1, x2, y2, score, class, by falling score: already suppressed

Boxes are in pixels of the model's input, scores in 0..1.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from yqc.errors import CheckpointError
from yqc.evaluate.nms import Floats, Indices, nms

Layout = Literal["yolov5", "yolov8", "end2end"]

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
        """Those with at least this score."""
        return self._take(self.scores >= score)

    def _take(self, which: NDArray[np.bool_] | Indices) -> "Boxes":
        return Boxes(self.xyxy[which], self.scores[which], self.classes[which])


def layout_of(output: Floats, nc: int | None = None) -> Layout:
    """Tell the layout of one image's output by its shape, and where that leaves a doubt by its numbers.

    Args:
        output: the output for one image, without the batch axis.
        nc: the number of classes, if the file tells it.

    Raises:
        CheckpointError: it is none of the three.
    """
    shape = output.shape
    if len(shape) == 2 and shape[0]:  # noqa: PLR2004
        rows, columns = shape
        if columns == _ROW and rows <= _END2END_ROWS and _looks_final(output):
            return "end2end"
        by_rows, by_columns = rows == _CORNERS + (nc or 0), columns == _OBJECTNESS + (nc or 0)
        if by_rows != by_columns:
            return "yolov8" if by_rows else "yolov5"
        if _CORNERS < rows < columns:
            return "yolov8"
        if columns > _OBJECTNESS:
            return "yolov5"
    raise CheckpointError(
        f"its output of shape {list(shape)} for an image is not that of a decoded YOLO detector: "
        f"[4+classes, anchors], [anchors, 5+classes] or [detections, 6]."
    )


def classes_of(shape: tuple[int, ...], layout: Layout) -> int | None:
    """How many classes an output of this shape for one image scores; an end-to-end one does not tell.

    Raises:
        CheckpointError: the shape does not fit the layout.
    """
    rows, columns = shape if len(shape) == 2 else (0, 0)  # noqa: PLR2004
    if layout == "yolov8" and rows > _CORNERS:
        return rows - _CORNERS
    if layout == "yolov5" and columns > _OBJECTNESS:
        return columns - _OBJECTNESS
    if layout == "end2end" and columns == _ROW:
        return None
    raise CheckpointError(f"its output of shape {list(shape)} for an image is not of the {layout} layout.")


def detections(
    output: Floats, layout: Layout, *, conf: float = 0.001, iou: float = 0.65, top: int = 300
) -> Boxes:
    """The boxes that an output for one image stands for, at most `top`, by falling score.

    A box counts once for each class whose score is above `conf` (multi-label); boxes of one class suppress each
    other (`nms`); an end-to-end output is taken as it is. Scores that are no number and boxes that are not finite
    are no detections.
    """
    if layout == "end2end":
        boxes = _finite(_final(output, conf))
        return boxes._take(np.argsort(-boxes.scores, kind="stable")[:top])  # noqa: SLF001
    boxes = _finite(_yolov8(output, conf) if layout == "yolov8" else _yolov5(output, conf))
    return boxes._take(nms(boxes.xyxy, boxes.scores, boxes.classes, iou=iou, top=top))  # noqa: SLF001


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
    return boxes if fine.all() else boxes._take(fine)  # noqa: SLF001
