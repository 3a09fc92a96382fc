"""Accuracy of the file beside the float model's."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

from yqc.report.contract import Part
from yqc.report.parts.quotients import difference


@dataclass(frozen=True, kw_only=True)
class Precision(Part):
    """Average precision of what a task adds to boxes; None where no such object is labelled."""

    map: float | None
    """AP averaged over the overlaps 0.50 to 0.95 in steps of 0.05, and over classes."""
    map50: float | None
    """AP at an overlap of 0.50."""


Main = Literal["map", "mask.map", "keypoints.map", "rotated.map", "top1"]
"""The figure that counts for a task."""


@dataclass(frozen=True, kw_only=True)
class Scores(Part):
    """Accuracy as fractions of 1: COCO's average precision of boxes, and what the task adds.

    None where the images hold no such object, or the task has no such figure.
    """

    map: float | None
    """AP averaged over IoU 0.50 to 0.95 in steps of 0.05, and over classes."""
    map50: float | None
    """AP at IoU 0.50."""
    map75: float | None
    """AP at IoU 0.75."""
    small: float | None
    """`map` of objects under 32 x 32 square pixels."""
    medium: float | None
    """`map` of objects from 32 x 32 to 96 x 96 square pixels."""
    large: float | None
    """`map` of objects over 96 x 96 square pixels."""
    mask: Precision | None = None
    """Of the masks of segmentation."""
    keypoints: Precision | None = None
    """Of keypoints, the overlap being OKS."""
    rotated: Precision | None = None
    """Of oriented boxes, the overlap being ProbIoU (arXiv 2106.06072)."""
    top1: float | None = None
    """Share of images whose likeliest class is the labelled one."""
    top5: float | None = None
    """Share of images whose labelled class is among the five likeliest ones."""

    @classmethod
    def of(cls, scores: "Scores") -> Self:
        """Copy the numbers of scores that know more than these."""
        return cls(**{one.name: getattr(scores, one.name) for one in fields(Scores)})

    def figure(self, main: str) -> float | None:
        """Return the figure of a name such as `map` or `mask.map`."""
        part, _, name = main.rpartition(".")
        owner = getattr(self, part) if part else self
        found: float | None = None if owner is None else getattr(owner, name)
        return found


@dataclass(frozen=True, kw_only=True)
class Agreement(Part):
    """AP of a model's detections with the float model's detections as the ground truth."""

    ap50: float | None
    """AP at IoU 0.50."""
    map: float | None
    """AP averaged over IoU 0.50 to 0.95."""
    top1: float | None = None
    """Of classifiers: the share of images in which both find the same class likeliest."""


Baseline = Literal["measured", "kept"]
"""Where the figures of the float model come from."""


@dataclass(frozen=True, kw_only=True)
class OutputAgreement(Part):
    """How far the outputs of a compiled net are from the float one's, over all images."""

    sqnr_db: float | None
    """Power of the float outputs over that of the error, in decibels, of the output where it is
    lowest; None where nothing differs."""
    max_abs_error: float | None
    """Of all outputs."""


@dataclass(frozen=True, kw_only=True)
class ClassScore(Part):
    """The main figure of one class by both models: its AP, or for a classifier the share found."""

    name: str
    float_: float | None
    """None where no such object is labelled."""
    compiled: float | None


@dataclass(frozen=True, kw_only=True)
class Accuracy(Part):
    """Accuracy of the emitted file beside the float graph's, on the same images."""

    kind: Literal["map", "agreement", "none"]
    images: int
    baseline: Baseline | None = None
    """Whether the float model was evaluated by this compile, or by an earlier one of the same model
    and data; None where nothing was evaluated."""
    float_: Scores | None = None
    compiled: Scores | None = None
    drop: float | None = None
    """Of the main figure, float - compiled."""
    relative_drop: float | None = None
    """`drop` as a share of the float model's figure."""
    interval: tuple[float, float] | None = None
    """95 % interval of `relative_drop`, by paired bootstrap over the images."""
    task: str = "detect"
    main: Main | None = None
    """The figure that counts, by its name within `float` and `compiled`; None without labels."""
    agreement: Agreement | None = None
    outputs: OutputAgreement | None = None
    """Of a net that is no detector: kind `agreement`, and `agreement` has no figures."""
    classes: tuple[ClassScore, ...] = ()
    """The main figure of each class; empty without labels."""

    @classmethod
    def of_outputs(cls, *, images: int, sqnr_db: float | None, max_abs_error: float) -> Self:
        """Compare the outputs of two nets that are no detectors."""
        outputs = OutputAgreement(sqnr_db=sqnr_db, max_abs_error=max_abs_error)
        nothing = Agreement(ap50=None, map=None)
        return cls(kind="agreement", images=images, agreement=nothing, outputs=outputs)

    @classmethod
    def of_map(
        cls,
        *,
        images: int,
        float_: Scores,
        compiled: Scores,
        baseline: Baseline = "measured",
        task: str = "detect",
        main: Main = "map",
        interval: tuple[float, float] | None = None,
        classes: Sequence[ClassScore] = (),
    ) -> Self:
        """Compare two models on labelled images."""
        before, after = Scores.of(float_), Scores.of(compiled)
        figure = before.figure(main)
        drop = difference(figure, after.figure(main))
        return cls(
            kind="map",
            images=images,
            task=task,
            main=main,
            baseline=baseline,
            float_=before,
            compiled=after,
            drop=drop,
            relative_drop=drop / figure if drop is not None and figure else None,
            interval=interval,
            classes=tuple(classes),
        )

    @classmethod
    def of_agreement(
        cls,
        *,
        images: int,
        agreement: Agreement,
        baseline: Baseline = "measured",
        task: str = "detect",
    ) -> Self:
        """Compare two models on images without labels."""
        agreed = Agreement(ap50=agreement.ap50, map=agreement.map, top1=agreement.top1)
        return cls(kind="agreement", images=images, baseline=baseline, agreement=agreed, task=task)

    @classmethod
    def unmeasured(cls, task: str = "detect") -> Self:
        """Make the part of a report without measurements."""
        return cls(kind="none", images=0, task=task)
