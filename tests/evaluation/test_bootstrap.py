"""Intervals over images: counting again equals pycocotools on drawn images, and they cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yqc.evaluation.accuracy import accuracy
from yqc.evaluation.bootstrap import (
    AveragePrecision,
    ClassMatches,
    HitRate,
    drop_interval,
    figure_interval,
)
from yqc.evaluation.boxes import Boxes
from yqc.evaluation.detect import Detections
from yqc.facts import OutputForm

IMAGES, CLASSES = 6, 2
RECALLS = np.linspace(0, 1, 101)


def scene(seed: int) -> tuple[dict[int, list[list[float]]], dict[int, Boxes]]:
    """Objects as class, x, y, w, h in each image, and detections near some of them."""
    random = np.random.default_rng(seed)
    truth: dict[int, list[list[float]]] = {}
    found = {}
    for image in range(IMAGES):
        count = int(random.integers(1, 4))
        corners = random.uniform(0, 300, (count, 2))
        sizes = random.uniform(20, 120, (count, 2))
        classes = random.integers(0, CLASSES, count)
        truth[image] = np.column_stack([classes, corners, sizes]).tolist()
        moved = corners + random.normal(0, 8, corners.shape)
        false = random.uniform(0, 300, (2, 2))
        first = np.concatenate([moved, false])
        xyxy = np.column_stack([first, first + np.concatenate([sizes, np.full((2, 2), 50)])])
        found[image] = Boxes(
            xyxy.astype(np.float32),
            random.uniform(0.01, 1, count + 2).astype(np.float32),
            np.concatenate([classes, random.integers(0, CLASSES, 2)]),
            np.zeros((count + 2, 0), np.float32),
            size=(640, 480),
        )
    return truth, found


def judge(
    truth: dict[int, list[list[float]]], found: dict[int, Boxes], drawn: list[int]
) -> tuple[float | None, AveragePrecision]:
    """The mAP on images as they were drawn, each a new image, and its matches."""
    objects = [(n, thing) for n, image in enumerate(drawn, 1) for thing in truth[image]]
    annotations = [
        {
            "id": i,
            "image_id": n,
            "category_id": int(cls) + 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
        }
        for i, (n, (cls, x, y, w, h)) in enumerate(objects, 1)
    ]
    images = [{"id": n, "file_name": str(n)} for n in range(1, len(drawn) + 1)]
    categories = [{"id": c + 1, "name": str(c)} for c in range(CLASSES)]
    boxes = {n: found[image] for n, image in enumerate(drawn)}
    measured = accuracy(
        Detections(boxes, OutputForm("yolov8", CLASSES), (), 0.0, 0.0),
        {"images": images, "annotations": annotations, "categories": categories},  # type: ignore[typeddict-item]
    )
    figure = measured.resampled
    assert isinstance(figure, AveragePrecision)
    return measured.map, figure


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, IMAGES - 1), min_size=6, max_size=6))
def test_counting_again_equals_pycocotools_on_the_drawn_images(seed: int, drawn: list[int]) -> None:
    truth, found = scene(seed)
    _, figure = judge(truth, found, [*range(IMAGES)])
    counts = np.bincount(drawn, minlength=IMAGES)[None]
    expected, _ = judge(truth, found, sorted(drawn))
    assert expected is not None
    assert figure.figures(counts)[0] == pytest.approx(expected, abs=1e-6)


def simulated(random: np.random.Generator, images: int) -> list[AveragePrecision]:
    """Two models on the same images, some of which are hard for both."""
    hard, objects = random.normal(0, 1, images), random.poisson(3, images)
    models = []
    for skill in (1.5, 1.2):
        chance = np.repeat(1 / (1 + np.exp(hard - skill)), objects)
        found = random.random(len(chance)) < chance
        false = random.poisson(1.0, images)
        image = np.concatenate([np.repeat(np.arange(images), n) for n in (objects, false)])
        kept = np.concatenate([found, np.ones(false.sum(), np.bool_)])
        hit = np.concatenate([found, np.zeros(false.sum(), np.bool_)])
        score = np.where(hit, random.beta(4, 2, len(hit)), random.beta(2, 4, len(hit)))
        order = np.argsort(-score[kept])
        hits = hit[kept][order][None]
        matches = ClassMatches(image[kept][order], hits, ~hits, objects)
        models.append(AveragePrecision(tuple(range(images)), (matches,), RECALLS))
    return models


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    large = simulated(np.random.default_rng(1), 200_000)
    before, after = (one.figures(np.ones((1, 200_000), np.int64))[0] for one in large)
    truth, covered, trials = 1 - after / before, 0, 300
    for seed in range(trials):
        pair = simulated(np.random.default_rng(5000 + seed), 128)
        low, high = drop_interval(*pair, seed=seed, draws=300) or (1.0, 0.0)
        covered += low <= truth <= high
    assert 0.93 <= covered / trials <= 0.97


def test_the_interval_of_a_share_is_that_of_a_binomial() -> None:
    hits = np.arange(400) % 5 != 0
    low, high = figure_interval(HitRate(tuple(range(400)), hits)) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.006)


def test_equal_models_lose_nothing_for_certain() -> None:
    one = simulated(np.random.default_rng(3), 32)[0]
    assert drop_interval(one, one) == (0.0, 0.0)


def test_other_images_have_no_interval() -> None:
    first, second = simulated(np.random.default_rng(3), 32)
    other = AveragePrecision(tuple(range(1, 33)), second.classes, RECALLS)
    assert drop_interval(first, other) is None
    nothing = HitRate((), np.array([], np.bool_))
    assert figure_interval(nothing) in {None, (0.0, 0.0)}
