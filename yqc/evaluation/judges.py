"""Average precision by pycocotools, the overlap being that of boxes, masks, keypoints or rotation.

COCO's own protocol (Lin et al. 2014) is for boxes, with its sizes of objects. Of masks, keypoints
and oriented boxes all sizes count together, and 300 detections an image.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yqc.data import Annotations
from yqc.evaluation.boxes import Boxes
from yqc.evaluation.rotated import overlaps
from yqc.facts import OutputForm, Task
from yqc.report.parts import Main
from yqc.runtime import Doubles

Overlap = Literal["bbox", "segm", "keypoints", "rotated"]
"""How two objects are compared; the first three are pycocotools' own."""

IOUS = tuple(0.5 + 0.05 * i for i in range(10))
"""Overlaps that COCO averages over."""
MOST = 300
"""Detections of an image that count, as many as are found."""
PEOPLE = 17
"""Keypoints of COCO's people, whose sigmas were measured; of others each has 1 / K, as Ultralytics
validates."""
OVERLAPS: dict[Task, Overlap] = {"segment": "segm", "pose": "keypoints", "obb": "rotated"}
"""What counts for a task; boxes for the others."""
MAIN: dict[Overlap, Main] = {
    "bbox": "map",
    "segm": "mask.map",
    "keypoints": "keypoints.map",
    "rotated": "rotated.map",
}


class RotatedJudge(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """COCO's protocol on oriented boxes, which objects have under `rotated`."""

    def computeIoU(self, imgId: int, catId: int) -> Doubles | list[float]:  # noqa: N802, N803
        """Return the overlaps of what was found, by falling score, with the truth."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        best = sorted(found, key=lambda one: -one["score"])[: self.params.maxDets[-1]]
        if not truth or not best:
            return []
        sides = (np.array([one["rotated"] for one in side]) for side in (best, truth))
        return overlaps(*sides)


def compare(
    truth: Annotations,
    found: Mapping[int, Boxes],
    form: OutputForm,
    overlap: Overlap = "bbox",
    ious: Sequence[float] | None = None,
) -> COCOeval:
    """Compare what was found in images, by their ids, with the truth.

    Args:
        truth: the objects of the images.
        found: what a model of this form found.
        form: says what `extra` of the boxes are.
        overlap: how two objects are compared.
        ious: the overlaps at which one counts as found. For boxes None means COCO's own protocol,
            with a summary in `stats`; the other sizes and overlaps take most of the time.
    """
    predicted: dict[str, Any] = {
        **truth,
        "annotations": [
            {"id": 0, "image_id": image, "iscrowd": 0, **entry}
            for image, boxes in found.items()
            for entry in list_entries(boxes, form, overlap)
        ],
    }
    for number, entry in enumerate(predicted["annotations"], 1):
        entry["id"] = number
    kind = RotatedJudge if overlap == "rotated" else COCOeval
    own = "bbox" if overlap == "rotated" else overlap
    summary = ious is None and overlap == "bbox"
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does.
        judge = kind(_coco(truth, overlap, form), _coco(predicted, overlap, form), own)
        judge.params.imgIds = list(found)
        if not summary:
            _count_all_sizes(judge, overlap, ious or IOUS)
        if overlap == "keypoints" and (count := _keypoints(form)) != PEOPLE:
            judge.params.kpt_oks_sigmas = np.full(count, 1 / count)
        judge.evaluate()
        judge.accumulate()
        if summary:
            judge.summarize()
    return judge


def _count_all_sizes(judge: COCOeval, overlap: Overlap, ious: Sequence[float]) -> None:
    params = judge.params
    params.iouThrs = np.asarray(ious)
    params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
    params.maxDets = params.maxDets[-1:] if overlap == "bbox" else [MOST]


def precision_of(judge: COCOeval) -> "np.ma.MaskedArray[Any, Any]":
    """Return precision by IoU, recall, class, size and number; masked where nothing is measured."""
    return np.ma.masked_less(np.asarray(judge.eval["precision"]), 0)


def list_entries(boxes: Boxes, form: OutputForm, overlap: Overlap) -> list[dict[str, Any]]:
    """Return what was found in an image as COCO results, with what the overlap is taken of."""
    found: list[dict[str, Any]] = [
        {
            "category_id": cls + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "score": score,
        }
        for cls, (x1, y1, x2, y2), score in zip(
            boxes.classes.tolist(), boxes.xyxy.tolist(), boxes.scores.tolist(), strict=True
        )
    ]
    for entry, shape in zip(found, _list_shapes(boxes, form, overlap), strict=True):
        entry.update(shape)
    return found


def _list_shapes(boxes: Boxes, form: OutputForm, overlap: Overlap) -> list[dict[str, Any]]:
    """Return what each object has beside its box, as COCO's annotations have it."""
    if overlap == "segm":
        width, height = boxes.size
        return [{"segmentation": {"size": [height, width], "counts": mask}} for mask in boxes.masks]
    if overlap == "rotated":
        return [{"rotated": one} for one in boxes.rotated.tolist()]
    if overlap == "keypoints" and form.kpt_shape:
        points = boxes.extra.reshape(len(boxes), *form.kpt_shape)
        flags = _visible(points)
        rows = np.concatenate([points[..., :2], flags[..., None]], 2).tolist()
        count = form.kpt_shape[0]
        return [{"keypoints": [*chain(*row)], "num_keypoints": count} for row in rows]
    return [{} for _ in range(len(boxes))]


def _visible(points: Any) -> Any:  # noqa: ANN401  # arrays of any float
    """Return 2 for each keypoint [n, K] that its model calls visible, all of an object without."""
    flags = np.full(points.shape[:2], 2.0)
    if points.shape[2] > 2:  # noqa: PLR2004  # x, y, visibility
        hidden = points[..., 2] < 0.5  # noqa: PLR2004
        flags[hidden & ~hidden.all(1, keepdims=True)] = 0.0
    return flags


def _keypoints(form: OutputForm) -> int:
    return form.kpt_shape[0] if form.kpt_shape else 0


def _coco(annotations: Mapping[str, Any], overlap: Overlap, form: OutputForm) -> COCO:
    coco = COCO()
    objects = [dict(entry) for entry in annotations["annotations"]]  # It marks them as it goes.
    images = annotations["images"]
    if overlap == "segm":  # pycocotools looks for the size, also where a mask has its own
        images = [{**image, "height": 0, "width": 0} for image in images]
    if overlap == "keypoints":
        unlabelled = {"keypoints": [0.0] * (3 * _keypoints(form)), "num_keypoints": 0}
        objects = [{**unlabelled, **entry} for entry in objects]
    coco.dataset = {**annotations, "images": images, "annotations": objects}
    coco.createIndex()
    return coco
