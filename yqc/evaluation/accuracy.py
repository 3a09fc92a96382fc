"""Compute the accuracy of a model, and the agreement of two, by the measure of their task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from yqc.data import Annotations, Split, Unreadable, advise
from yqc.data.labels import KEYPOINT_AREA
from yqc.errors import DataError
from yqc.evaluation.bootstrap import AveragePrecision, HitRate, Resampled
from yqc.evaluation.detect import Detections, detect
from yqc.evaluation.judges import IOUS, MAIN, OVERLAPS, compare, list_entries, precision_of
from yqc.evaluation.masks import drop_empty
from yqc.evaluation.runner import Runner
from yqc.facts import OutputForm
from yqc.progress import Progress
from yqc.report.parts import Agreement, Main, Precision, Scores

COCO_FIGURES = ("map", "map50", "map75", "small", "medium", "large")
"""The first of pycocotools' summary, and of `Scores`."""


@dataclass(frozen=True, kw_only=True)
class DetectorAccuracy(Scores):
    """The figures of one model, and what they were computed from."""

    images: int
    """How many images were read."""
    detections: Detections = field(repr=False, compare=False)
    """What was found, kept for `agreement`."""
    main: Main = "map"
    """The figure that counts."""
    curve: tuple[float, ...] = field(default=(), repr=False, compare=False)
    """Precision at the recalls 0, 0.01, .. 1 and IoU 0.50, mean over classes; none of classes."""
    by_class: tuple[float | None, ...] = field(default=(), repr=False, compare=False)
    """The main figure of every class, in the order of the categories."""
    judged: COCOeval | HitRate = field(repr=False, compare=False)
    """What the main figure was counted from."""

    @cached_property
    def resampled(self) -> Resampled:
        """The main figure, to be counted anew on draws of the images."""
        if isinstance(self.judged, HitRate):
            return self.judged
        return AveragePrecision.of(self.judged)

    @property
    def main_figure(self) -> float | None:
        """The value of the figure that counts."""
        return self.figure(self.main)

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

    What counts is what the task adds to boxes; boxes, where nothing but these is labelled.

    Raises:
        DataError: the model scores another number of classes than the annotations have.
    """
    _check_classes(found, len(truth["categories"]))
    if found.head.task == "classify":
        return _classification(found, truth)
    overlap = OVERLAPS.get(found.head.task, "bbox")
    if overlap == "segm" and truth["annotations"] and not _is_outlined(truth):
        overlap = "bbox"
    by_id = {i + 1: boxes for i, boxes in found.boxes.items()}
    scores: dict[str, Any] = dict.fromkeys(COCO_FIGURES)
    judge = None
    if overlap != "rotated":  # There is no upright box to compare.
        judge = compare(truth, by_id, found.head)
        scores = _scores(judge)
    if judge is None or overlap != "bbox":
        judge = compare(truth, by_id, found.head, overlap)
        part = MAIN[overlap].partition(".")[0]
        figures = precision_of(judge)
        scores[part] = Precision(map=_mean(figures), map50=_mean(figures[0]))
    curve, by_class = _details(judge)
    return DetectorAccuracy(
        **scores,
        images=len(found.boxes),
        detections=found,
        main=MAIN[overlap],
        curve=curve,
        by_class=by_class,
        judged=judge,
    )


def _classification(found: Detections, truth: Annotations) -> DetectorAccuracy:
    """Compare the likeliest classes of images with the labelled ones."""
    labels = {one["image_id"] - 1: one["category_id"] - 1 for one in truth["annotations"]}
    ranks = {i: boxes.classes.tolist() for i, boxes in found.boxes.items() if i in labels}
    first = {i: labels[i] in classes[:1] for i, classes in ranks.items()}
    among = [labels[i] in classes for i, classes in ranks.items()]
    own: list[list[bool]] = [[] for _ in truth["categories"]]
    for i, hit in first.items():
        own[labels[i]].append(hit)
    none: dict[str, Any] = dict.fromkeys(COCO_FIGURES)
    return DetectorAccuracy(
        **none,
        top1=_share([*first.values()]),
        top5=_share(among),
        images=len(found.boxes),
        detections=found,
        main="top1",
        by_class=tuple(map(_share, own)),
        judged=HitRate(tuple(first), np.array([*first.values()], np.bool_)),
    )


def agreement(reference: Detections, other: Detections, *, conf: float = 0.25) -> DetectorAgreement:
    """Compare what two models found in the same split; this needs no labels.

    Masks, keypoints or oriented boxes are compared where the task has them; of classifiers, the
    likeliest class of each image. An object whose mask has no pixel is none, on either side.

    Args:
        reference: its detections with a score of at least `conf` stand for the truth.
        other: all its detections are the predictions.
        conf: the confidence at which YOLO's own tools show detections. At half of it, more and
            less certain detections count as the truth; at double, only the plainest ones.
    """
    images = len(reference.boxes.keys() & other.boxes.keys())
    if reference.head.task == "classify":
        equal = _equal_classes(reference, other)
        return DetectorAgreement(ap50=None, map=None, top1=equal, images=images)
    precision = _agreed(reference, other, conf, IOUS)
    return DetectorAgreement(ap50=_mean(precision[0]), map=_mean(precision), images=images)


def agreement50(reference: Detections, other: Detections, *, conf: float = 0.25) -> float | None:
    """Return how far two models agree in one number: `ap50` of `agreement`, of classifiers `top1`.

    The other nine IoU thresholds are not computed.
    """
    if reference.head.task == "classify":
        return _equal_classes(reference, other)
    return _mean(_agreed(reference, other, conf, IOUS[:1]))


def _equal_classes(reference: Detections, other: Detections) -> float | None:
    images = reference.boxes.keys() & other.boxes.keys()
    sides = ([one.boxes[i].classes[:1].tolist() for i in images] for one in (reference, other))
    return _share([a == b for a, b in zip(*sides, strict=True)])


def _agreed(
    reference: Detections, other: Detections, conf: float, ious: Sequence[float]
) -> "np.ma.MaskedArray[Any, Any]":
    """Return precision by IoU, recall, class, size and number; masked where nothing is measured."""
    form = reference.head
    overlap = OVERLAPS.get(form.task, "bbox")
    images = sorted(reference.boxes.keys() & other.boxes.keys())
    found = {n: drop_empty(other.boxes[i]) for n, i in enumerate(images, 1)}
    entries: list[Any] = [
        {"image_id": n, "iscrowd": 0, **entry}
        for n, i in enumerate(images, 1)
        for entry in list_entries(drop_empty(reference.boxes[i].above(conf)), form, overlap)
    ]
    for number, entry in enumerate(entries, 1):
        entry["id"] = number
        if overlap == "keypoints":
            entry["area"] *= KEYPOINT_AREA
    nc = max((entry["category_id"] for entry in entries), default=1)
    truth: Annotations = {
        "images": [{"id": n, "file_name": str(i)} for n, i in enumerate(images, 1)],
        "annotations": entries,
        "categories": [{"id": c, "name": str(c)} for c in range(1, nc + 1)],
    }
    return precision_of(compare(truth, found, form, overlap, ious))


def _is_outlined(truth: Annotations) -> bool:
    return any("segmentation" in one for one in truth["annotations"])


def _check_classes(found: Detections, nc: int) -> None:
    scored = found.head.nc
    if scored is None:  # Only an end-to-end head hides it; then what it found must at least fit.
        used = (int(boxes.classes.max()) + 1 for boxes in found.boxes.values() if len(boxes))
        scored = max(nc, *used, 0)
    if scored != nc:
        raise DataError(
            f"the model predicts {scored} classes but the data has {nc}; {advise(scored)}."
        )


def _scores(judge: COCOeval) -> dict[str, float | None]:
    """Return the figures of boxes; pycocotools writes -1 where there is nothing to measure."""
    values = (None if value < 0 else float(value) for value in judge.stats[: len(COCO_FIGURES)])
    return dict(zip(COCO_FIGURES, values, strict=True))


def _mean(precision: "np.ma.MaskedArray[Any, Any]") -> float | None:
    """Return the mean of what was measured, None if nothing was."""
    return float(precision.mean()) if precision.count() else None


def _share(hits: Sequence[bool]) -> float | None:
    """Return which share is true, None of nothing."""
    return sum(hits) / len(hits) if hits else None


def _details(judge: COCOeval) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """Return precision by recall at IoU 0.5, and AP by class; None without such objects."""
    measured = precision_of(judge)[:, :, :, 0, -1]  # IoU, recall, class
    curve = measured[0].mean(axis=-1).filled(0)
    by_class = measured.mean(axis=(0, 1))
    return tuple(map(float, curve)), tuple(
        None if value is np.ma.masked else float(value) for value in by_class
    )
