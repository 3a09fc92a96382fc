"""The comparison of a file with its graph sees what it should see."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yqc.emit import Deviation, RoundTrip, emit, roundtrip, save
from yqc.emit.roundtrip import compare_outputs
from yqc.facts import OutputForm
from yqc.models.trace import trace

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RNG = np.random.default_rng(0)


class Scaled(nn.Module):
    """[N, 6, 64] in the v8 layout: four coordinates, two scores."""

    def __init__(self, box: float = 100.0, score: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.box, self.score = nn.Conv2d(3, 6, 1), box, score

    def forward(self, x: Tensor) -> Tensor:
        box, score = self.conv(x).flatten(2).split([4, 2], 1)
        return torch.cat([box.sigmoid() * self.box, score.sigmoid() * self.score], 1)


def test_the_same_graph_is_within() -> None:
    gm = trace(Scaled(), X)
    trip = roundtrip(gm, emit(gm), X, OutputForm("yolov8"))
    assert trip.within(boxes=1e-6, scores=1e-6)
    assert trip.plain.values == 0


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    gm = trace(Scaled(), X)
    save(emit(gm), tmp_path / "m.onnx")
    assert roundtrip(gm, tmp_path / "m.onnx", X, OutputForm("yolov8")).within()


@pytest.mark.parametrize(
    ("other", "boxes", "scores"),
    [(Scaled(box=101.0), 0.01, 0.0), (Scaled(score=0.98), 0.0, 0.02)],
)
def test_boxes_and_scores_are_told_apart(other: nn.Module, boxes: float, scores: float) -> None:
    trip = roundtrip(trace(Scaled(), X), emit(trace(other, X)), X, OutputForm("yolov8"))
    for deviation in (trip.plain, trip.optimised):
        assert deviation.boxes == pytest.approx(boxes, rel=0.2, abs=1e-6)
        assert deviation.scores == pytest.approx(scores, rel=0.5, abs=1e-6)
    assert not trip.within()


def test_without_a_layout_every_output_counts() -> None:
    class Both(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x * self.factor

    gm = trace(Both(3.0), X)
    assert roundtrip(gm, emit(gm), X).within(values=1e-6)
    trip = roundtrip(gm, emit(trace(Both(3.03), X)), X)
    assert trip.plain.values == pytest.approx(0.01, rel=1e-3)
    assert not trip.within()


class Mixing(nn.Module):
    """Right for one image; with several, each gets something of the others."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) * 0.5


def test_a_dynamic_file_must_keep_its_images_apart() -> None:
    gm = trace(Mixing(), X)
    assert roundtrip(gm, emit(gm), X).within()
    assert not roundtrip(gm, emit(gm, dynamic=True), X).within()
    gm = trace(Scaled(), X)
    assert roundtrip(gm, emit(gm, dynamic=True), X, OutputForm("yolov8")).within()


@pytest.mark.parametrize(
    "bad", [Deviation(boxes=2e-3), Deviation(scores=2e-3), Deviation(values=1)]
)
def test_either_run_can_be_out_of_tolerance(bad: Deviation) -> None:
    assert RoundTrip(Deviation(), Deviation()).within()
    assert not RoundTrip(bad, Deviation()).within()
    assert not RoundTrip(Deviation(), bad).within()
    assert RoundTrip(bad, bad).within(boxes=0.1, scores=0.1, values=2)


@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "end2end", None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_never_within(layout: Any, value: float) -> None:
    good = RNG.random((1, 6, 6)).astype(np.float32)
    bad = good.copy()
    bad[0, 2, 3] = value
    for want, got in ((good, bad), (bad, good), (bad, bad)):
        deviation = compare_outputs([want], [got], layout and OutputForm(layout))
        assert not RoundTrip(deviation, Deviation()).within(1e9, 1e9, 1e9)


def test_another_shape_is_never_within() -> None:
    deviation = compare_outputs([np.zeros((1, 6, 6))], [np.zeros((1, 6, 7))], OutputForm("yolov8"))
    assert not RoundTrip(deviation, deviation).within(1e9, 1e9, 1e9)


def rows() -> NDArray[np.float32]:
    """Ten detections [1, 10, 6] by falling score, the third and fourth nearly tied."""
    boxes = RNG.random((10, 4)) * 300
    scores = np.array([0.9, 0.8, 0.5, 0.499999, 0.4, 0.3, 0.2, 0.1, 0.05, 0.04])
    return np.column_stack([boxes, scores, np.arange(10) % 3])[None].astype(np.float32)


def test_rows_of_an_end_to_end_head_may_swap_at_a_tie() -> None:
    want = rows()
    got = want[:, [0, 1, 3, 2, 4, 5, 6, 7, 8, 9]]
    deviation = compare_outputs([want], [got], OutputForm("end2end"))
    assert deviation.boxes == 0
    assert deviation.scores < 1e-6


def test_the_last_row_may_be_another_one_with_the_same_score() -> None:
    want = rows()
    got = want.copy()
    got[0, 9, :4] += 50
    got[0, 9, 5] = 1
    assert compare_outputs([want], [got], OutputForm("end2end")) == Deviation()


def test_a_box_that_moved_is_seen_in_its_row() -> None:
    want = rows()
    got = want.copy()
    got[0, 2, 1] += 3
    largest = np.abs(want[..., :4]).max()
    assert compare_outputs([want], [got], OutputForm("end2end")).boxes == pytest.approx(
        3 / largest, rel=1e-3
    )


def test_a_class_that_changed_is_seen() -> None:
    want = rows()
    got = want.copy()
    got[0, 1, 5] = 2
    assert compare_outputs([want], [got], OutputForm("end2end")).boxes == math.inf


def test_a_row_that_stands_twice_is_no_match_for_two() -> None:
    want = rows()
    want[0, 3, 5] = want[0, 2, 5]
    got = want.copy()
    got[0, 3, :4] = got[0, 2, :4]
    assert compare_outputs([want], [got], OutputForm("end2end")).boxes > 0.01


def test_a_score_that_changed_is_seen() -> None:
    want = rows()
    got = want.copy()
    got[0, 5, 4] += 5e-4
    deviation = compare_outputs([want], [got], OutputForm("end2end"))
    assert deviation.scores == pytest.approx(5e-4, rel=1e-2)
    assert deviation.boxes == 0


POSE = OutputForm("end2end", 3, "pose", kpt_shape=(2, 3))
FORMS = [
    (OutputForm("classes", 6, "classify"), (2, 6), (1, 3), "scores"),
    (OutputForm("yolov8", 3, "segment", 4), (1, 11, 20), (0, 9, 5), "extra"),
    (OutputForm("yolov5", 3, "segment", 4), (1, 20, 12), (0, 5, 11), "extra"),
    (OutputForm("yolov8", 3, "obb"), (1, 8, 20), (0, 7, 5), "extra"),
    (OutputForm("yolov8", 3, "pose", kpt_shape=(2, 3)), (1, 13, 20), (0, 7, 5), "boxes"),
    (OutputForm("yolov8", 3, "pose", kpt_shape=(2, 3)), (1, 13, 20), (0, 9, 5), "scores"),
    (POSE, (1, 5, 12), (0, 1, 10), "boxes"),
    (POSE, (1, 5, 12), (0, 1, 11), "scores"),
    (OutputForm("end2end", 3, "obb"), (1, 5, 7), (0, 1, 6), "extra"),
]


@pytest.mark.parametrize(("form", "shape", "place", "kind"), FORMS)
def test_every_number_counts_in_its_own_unit(
    form: OutputForm, shape: tuple[int, ...], place: Any, kind: str
) -> None:
    want = RNG.random(shape)
    if form.layout == "end2end":
        want[..., 4], want[..., 5] = np.linspace(0.9, 0.1, shape[1]), 1
    got = want.copy()
    got[place] += 0.25
    if form.layout == "end2end":
        got = got[:, ::-1]  # rows are a set
    maps = [RNG.random((1, 4, 3, 3))] if form.coefficients else []
    found = compare_outputs([want, *maps], [got, *maps], form)
    assert {name for name, value in vars(found).items() if value > 1e-12} == {kind}
    if kind != "boxes":
        assert getattr(found, kind) == pytest.approx(0.25)
    assert compare_outputs([want, *maps], [want, *maps], form) == Deviation()


def test_prototypes_count_as_a_share_of_the_largest() -> None:
    rows, maps = RNG.random((1, 11, 20)), RNG.random((1, 4, 3, 3))
    maps[0, 0, 0, 0] = 10.0
    other = maps.copy()
    other[0, 1, 1, 1] += 1.0
    found = compare_outputs([rows, maps], [rows, other], OutputForm("yolov8", 3, "segment", 4))
    assert found.extra == pytest.approx(0.1)
    assert (found.boxes, found.scores) == (0, 0)
