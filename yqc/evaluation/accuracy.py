"""Compute COCO average precision of a detector (Lin et al. 2014) with pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yqc.data import Annotations, Object, Split, Unreadable, advise, annotate
from yqc.errors import DataError
from yqc.evaluation.boxes import Boxes
from yqc.evaluation.detect import Detections, detect
from yqc.evaluation.runner import Runner
from yqc.facts import OutputForm
from yqc.progress import Progress
from yqc.report.parts import Agreement, Scores

IOUS = tuple(0.5 + 0.05 * i for i in range(10))
"""Intersections over union that COCO averages over."""


@dataclass(frozen=True, kw_only=True)
class DetectorAccuracy(Scores):
    """COCO average precision of one detector, and what it was computed from."""

    images: int
    """How many images were read."""
    detections: Detections = field(repr=False, compare=False)
    """What was found, kept for `agreement`."""
    curve: tuple[float, ...] = field(default=(), repr=False, compare=False)
    """Precision at the recalls 0, 0.01, .. 1 and IoU 0.50, mean over classes."""
    by_class: tuple[float | None, ...] = field(default=(), repr=False, compare=False)
    """`map` of every class, in the order of the categories."""

    @property
    def skipped(self) -> tuple[Unreadable, ...]:
        """The images that could not be read; they count neither way."""
        return self.detections.skipped

    @property
    def seconds_total(self) -> float:
        """Wall time of reading, running, decoding and suppression; not of pycocotools."""
        return self.detections.seconds_total

    @property
    def seconds_session(self) -> float:
        """Wall time within the model's runs."""
        return self.detections.seconds_session


@dataclass(frozen=True, kw_only=True)
class DetectorAgreement(Agreement):
    """How far a detector finds what a reference finds; None where the reference finds nothing."""

    images: int
    """How many images both have read."""


def evaluate(
    model: Path | Runner,
    split: Split,
    *,
    imgsz: tuple[int, int] | None = None,
    form: OutputForm | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DetectorAccuracy:
    """Measure a detector on the annotated images of a split; arguments as in `detect`.

    Raises:
        CheckpointError: the model is no decoded YOLO detector, or cannot be run at this size.
        DataError: the split has no annotations or no readable image, or other classes than the
            model.
    """
    truth = split.annotations
    if truth is None:
        raise DataError(
            f"the {split.name} images have no labels, so accuracy cannot be measured on them; "
            f"only the agreement of two models can."
        )
    found = detect(
        model,
        split,
        imgsz=imgsz,
        form=form,
        nc=len(truth["categories"]),
        threads=threads,
        progress=progress,
    )
    return accuracy(found, truth)


def accuracy(found: Detections, truth: Annotations) -> DetectorAccuracy:
    """Compare what was found with the annotations of the same split.

    Raises:
        DataError: the model scores another number of classes than the annotations have.
    """
    _check_classes(found, len(truth["categories"]))
    judge = _judge(truth, {i + 1: boxes for i, boxes in found.boxes.items()})
    curve, by_class = _details(judge)
    return DetectorAccuracy(
        **_scores(judge), images=len(found.boxes), detections=found, curve=curve, by_class=by_class
    )


def agreement(reference: Detections, other: Detections, *, conf: float = 0.25) -> DetectorAgreement:
    """Compare what two models found in the same split; this needs no labels.

    Args:
        reference: its detections with a score of at least `conf` stand for the truth.
        other: all its detections are the predictions.
        conf: the confidence at which YOLO's own tools show detections. At half of it, more and
            less certain detections count as the truth; at double, only the plainest ones.
    """
    precision = _agreed(reference, other, conf, IOUS)
    images = len(reference.boxes.keys() & other.boxes.keys())
    return DetectorAgreement(ap50=_mean(precision[0]), map=_mean(precision), images=images)


def agreement50(reference: Detections, other: Detections, *, conf: float = 0.25) -> float | None:
    """Return `agreement(...).ap50` alone, without computing the other nine IoU thresholds."""
    return _mean(_agreed(reference, other, conf, IOUS[:1]))


def _agreed(
    reference: Detections, other: Detections, conf: float, ious: Sequence[float]
) -> "np.ma.MaskedArray[Any, Any]":
    """Return precision by IoU, recall, class, size and number; masked where nothing is measured."""
    images = sorted(reference.boxes.keys() & other.boxes.keys())
    sure = [_objects(reference.boxes[i].above(conf)) for i in images]
    nc = 1 + max((thing.cls for things in sure for thing in things), default=0)
    truth = annotate([str(i) for i in images], sure, [str(c) for c in range(nc)])
    judge = _judge(truth, {n: other.boxes[i] for n, i in enumerate(images, 1)}, ious)
    return np.ma.masked_less(np.asarray(judge.eval["precision"]), 0)


def _check_classes(found: Detections, nc: int) -> None:
    scored = found.head.nc
    if scored is None:  # Only an end-to-end head hides it; then what it found must at least fit.
        used = (int(boxes.classes.max()) + 1 for boxes in found.boxes.values() if len(boxes))
        scored = max(nc, *used, 0)
    if scored != nc:
        raise DataError(
            f"the model predicts {scored} classes but the data has {nc}; {advise(scored)}."
        )


def _objects(boxes: Boxes) -> list[Object]:
    return [
        Object(cls, (x1, y1, x2 - x1, y2 - y1), (x2 - x1) * (y2 - y1))
        for cls, (x1, y1, x2, y2) in zip(boxes.classes.tolist(), boxes.xyxy.tolist(), strict=True)
    ]


def _judge(
    truth: Annotations, found: Mapping[int, Boxes], ious: Sequence[float] | None = None
) -> COCOeval:
    """Compare what was found in images, by their ids, with the truth, in pycocotools.

    Where `ious` are given, `eval` holds the precisions at these for objects of all sizes, and there
    is no summary; the other sizes and IoUs take most of the time.
    """
    results = annotate([""] * len(found), [_objects(boxes) for boxes in found.values()], [])
    predicted: dict[str, Any] = {**truth, "annotations": results["annotations"]}
    ids = list(found)
    scores = [score for boxes in found.values() for score in boxes.scores.tolist()]
    for entry, score in zip(predicted["annotations"], scores, strict=True):
        entry.update(image_id=ids[entry["image_id"] - 1], score=score)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does.
        judge = COCOeval(_coco(truth), _coco(predicted), "bbox")
        judge.params.imgIds = ids
        if ious is not None:
            judge.params.iouThrs = np.asarray(ious)
            judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
            judge.params.maxDets = judge.params.maxDets[-1:]
        judge.evaluate()
        judge.accumulate()
        if ious is None:
            judge.summarize()
    return judge


def _scores(judge: COCOeval) -> dict[str, float | None]:
    """Return the fields of `Scores`; pycocotools writes -1 where there is nothing to measure."""
    names = (one.name for one in fields(Scores))
    values = (None if value < 0 else float(value) for value in judge.stats[:6])
    return dict(zip(names, values, strict=True))


def _mean(precision: "np.ma.MaskedArray[Any, Any]") -> float | None:
    """Return the mean of what was measured, None if nothing was."""
    return float(precision.mean()) if precision.count() else None


def _details(judge: COCOeval) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """Return precision by recall at IoU 0.5, and AP by class; None without such objects."""
    precision = np.asarray(judge.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class
    measured = np.ma.masked_less(precision, 0)
    curve = measured[0].mean(axis=-1).filled(0)
    by_class = measured.mean(axis=(0, 1))
    return tuple(map(float, curve)), tuple(
        None if value is np.ma.masked else float(value) for value in by_class
    )


def _coco(annotations: Mapping[str, Any]) -> COCO:
    coco = COCO()
    objects = [dict(entry) for entry in annotations["annotations"]]  # It marks them as it goes.
    coco.dataset = {**annotations, "annotations": objects}
    coco.createIndex()
    return coco
