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

from yqc.evaluation.boxes import Boxes, Floats
from yqc.facts import OutputForm, Task
from yqc.runtime import choose_rows, likeliest

__all__ = ["LIMITS", "Boxes", "Limits", "detections"]


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
        return Boxes(*likeliest(output))
    usual = LIMITS[form.task]
    conf, iou = (usual.conf if conf is None else conf), (usual.iou if iou is None else iou)
    return Boxes(*choose_rows(output, form, conf=conf, iou=iou, top=top))
