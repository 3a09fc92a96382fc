"""The shapes example: the loss, the model, training that can go on, and the committed detector."""

import importlib
import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yqc.data import scenes
from yqc.errors import CheckpointError
from yqc.models.source import open_model
from yqc.models.trace import trace
from yqc.progress import Silent

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"
MODULES = ("batches", "loss", "model", "train")


@pytest.fixture(scope="module", autouse=True)
def example() -> Iterator[None]:
    """The example's scripts import each other as scripts do, by their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        yield
    for name in MODULES:
        sys.modules.pop(name, None)


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


# The loss


def test_complete_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2], [1, 2, 5, 9]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 4], [1, 2, 5, 9]])
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    want = [
        1 / 7 - 2 / 18,  # same aspect: centres apart by (1, 1), hull 3 x 3
        1 / 3 - 2 / 32 - aspect**2 / (1 - 1 / 3 + aspect),
        1.0,
    ]
    torch.testing.assert_close(script("loss").complete_iou(a, b), torch.tensor(want))


def test_distribution_focal_by_hand() -> None:
    logits = torch.tensor([0.1, 0.6, 0.2, 0.1]).log() + 3.0
    got = script("loss").distribution_focal(logits, torch.tensor(1.25))
    assert got.item() == pytest.approx(-(0.75 * math.log(0.6) + 0.25 * math.log(0.2)))


def test_distribution_focal_clamps_to_the_last_bin() -> None:
    got = script("loss").distribution_focal(torch.zeros(4), torch.tensor(9.0))
    assert got.item() == pytest.approx(math.log(4))


def four_points(scores: list[float], first: float | None = None) -> tuple[Any, Any]:
    """Points 8 pixels apart whose boxes reach 8 to each side, and two objects.

    Object 0 is point 0's box exactly; object 1, [0, 0, 16, 24], holds all four points and overlaps
    their boxes by 144/496 (points 0 and 1) and 192/448 (points 2 and 3). `scores` are those of both
    classes at each point; `first`, if given, is that of object 0's class at point 0.
    """
    loss = script("loss")
    sure = torch.tensor([0.0, 60.0, 0.0]).expand(1, 4, 4, 3)  # one stride, with certainty
    chance = torch.tensor(scores)[None, :, None].repeat(1, 1, 2)
    if first is not None:
        chance[0, 0, 0] = first
    points = torch.tensor([[4.0, 4], [12, 4], [4, 12], [12, 12]])
    boxes = torch.tensor([[[-4.0, -4, 12, 12], [0, 0, 16, 24], [0, 0, 160, 160]]])
    return (
        loss.Answers(sure, chance.logit(), points, torch.full((4,), 8.0)),
        loss.Objects(torch.tensor([[0, 1, 0]]), boxes, torch.tensor([[True, True, False]])),
    )


def test_assigns_points_by_hand() -> None:
    owner, quality = script("loss").assign(*four_points([0.5, 0.5, 0.5, 0.5]))
    assert owner.tolist() == [[0, 1, 1, 1]]  # Both want point 0; it covers object 0 best.
    low, best = 144 / 496, 192 / 448
    want = torch.tensor([[1.0, best * (low / best) ** 6, best, best]])
    torch.testing.assert_close(quality, want, rtol=1e-4, atol=1e-6)


def test_a_wanted_point_goes_by_overlap_not_by_score() -> None:
    answer, objects = four_points([0.5, 0.5, 0.5, 0.5], first=1e-9)
    owner, quality = script("loss").assign(answer, objects)
    assert owner.tolist() == [[0, 1, 1, 1]]
    assert quality[0, 0].item() == pytest.approx(1.0, rel=1e-4)


def test_an_object_takes_only_its_best_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script("loss"), "CANDIDATES", 2)
    owner, quality = script("loss").assign(*four_points([0.5, 0.5, 0.5, 0.5]))
    assert owner.tolist() == [[0, -1, 1, 1]]
    assert quality[0, 1] == 0


def test_the_score_weighs_in_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script("loss"), "CANDIDATES", 1)
    owner, quality = script("loss").assign(*four_points([0.5, 0.9, 1e-4, 1e-4]))
    assert owner.tolist() == [[0, 1, -1, -1]]
    assert quality[0, 1].item() == pytest.approx(144 / 496, rel=1e-4)


def test_a_picture_without_objects_only_teaches_silence() -> None:
    answer, objects = four_points([0.5, 0.5, 0.5, 0.5])
    nothing = script("loss").Objects(
        objects.classes, objects.boxes, torch.zeros_like(objects.there)
    )
    losses = script("loss").detection_loss(answer, nothing)
    assert losses["box"] == losses["spread"] == 0
    # Eight scores of one half, each costing log 2.
    want = script("loss").CLASS_GAIN * 8 * math.log(2)
    assert losses["class"].item() == pytest.approx(want, rel=1e-5)


# The model and its training


def net() -> Any:
    torch.manual_seed(1)
    module = script("model").ShapesNet(len(scenes.NAMES))
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.get_buffer("running_mean"), 0, 0.1)
    return module.eval()


def test_the_loss_reads_boxes_as_the_graph_decodes_them() -> None:
    module, x = net(), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    answer = script("loss").answers(module.raw(x), script("model").STRIDES)
    low, high = answer.boxes().chunk(2, -1)
    want = torch.cat(((low + high) / 2, high - low, answer.classes.sigmoid()), -1)
    torch.testing.assert_close(module(x), want.transpose(1, 2), atol=1e-4, rtol=1e-5)


def test_the_model_is_small_and_traceable() -> None:
    module = net()
    assert 4 * sum(t.numel() for t in module.state_dict().values()) < 920_000
    graph, x = trace(module, torch.zeros(1, 3, 160, 160)), torch.rand(1, 3, 160, 160)
    torch.testing.assert_close(graph(x), module(x))
    assert graph(x).shape == (1, 4 + len(scenes.NAMES), 20**2 + 10**2 + 5**2)


def pictures(count: int, folder: Path) -> Any:
    return script("batches").drawn(count, 0, folder, Silent())


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_turning_takes_the_boxes_along(quarters: int, mirror: bool) -> None:
    pixels = np.zeros((1, 160, 160, 3), np.uint8)
    pixels[0, 20:50, 100:111] = 255
    boxes = np.array([[[100, 20, 111, 50]]], np.float32)
    one = script("batches").Pictures(pixels, np.zeros((1, 1), np.int64), boxes)
    script("batches").turn(one, 0, quarters=quarters, mirror=mirror)
    rows, columns = np.nonzero(one.pixels[0, ..., 0])
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert one.boxes[0, 0].tolist() == found
    assert (found == [100, 20, 111, 50]) == (not quarters and not mirror)


def test_batches_are_the_same_under_a_seed_and_hold_each_picture_once(tmp_path: Path) -> None:
    some = pictures(9, tmp_path)
    runs = [list(script("batches").varied(some, 4, seed)) for seed in (3, 3, 4)]
    assert [len(run) for run in runs] == [2, 2, 2]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0][0], runs[2][0][0])
    counts = sorted(int(n) for _, o in runs[0] for n in o.there.sum(1))
    every = sorted(int(n) for n in (some.classes >= 0).sum(1))
    assert all(counts.count(n) <= every.count(n) for n in counts)


@pytest.mark.slow
def test_learns_four_pictures_by_heart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    loss, model = script("loss"), script("model").ShapesNet(len(scenes.NAMES))
    images, objects = script("batches").tensors(pictures(4, tmp_path))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _ in range(60):
        losses = loss.detection_loss(loss.answers(model.raw(images), (8, 16, 32)), objects)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({k: v.item() for k, v in losses.items()})
    assert history[-1]["box"] < 0.2 * history[0]["box"]
    assert history[-1]["class"] < 0.2 * history[0]["class"]


def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = script("train")
    plan = train.Plan(pictures=8, held_out=2, epochs=2, batch=4, warmup=2)
    whole = train.train(plan, tmp_path / "whole", Silent())

    class StoppedError(Exception):
        pass

    def stop(_: object, __: object) -> float:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "held_out_loss", stop)
        with pytest.raises(StoppedError):
            train.train(plan, tmp_path / "parts", Silent())
    resumed = train.train(plan, tmp_path / "parts", Silent())
    state: dict[str, Tensor] = resumed.state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_another_plan_does_not_go_on_with_a_checkpoint(tmp_path: Path) -> None:
    train = script("train")
    path = tmp_path / "checkpoint.safetensors"
    train.Training(train.Plan(epochs=2)).save(path)
    train.Training(train.Plan(epochs=2)).restore(path)
    with pytest.raises(CheckpointError, match="other settings"):
        train.Training(train.Plan(epochs=3)).restore(path)


def test_writes_a_model_file_that_the_compiler_takes(tmp_path: Path) -> None:
    module, path = net(), tmp_path / "shapes.yqc"
    script("train").write_model(module, path)
    source = open_model(path)
    assert (source.names, source.strides, source.imgsz) == (scenes.NAMES, (8, 16, 32), (160, 160))
    assert (source.layout, source.task) == ("yolov8", "detect")
    x = torch.rand(1, 3, 160, 160)
    torch.testing.assert_close(source.gm(x), module(x))


def test_the_rate_rises_then_falls() -> None:
    plan = script("train").Plan(pictures=100, batch=10, epochs=10, rate=1.0, warmup=10)
    rates = [plan.rate_at(step) for step in range(plan.steps + 1)]
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01)


# The committed detector


def test_the_committed_model_is_under_a_megabyte_and_finds_new_shapes() -> None:
    path = EXAMPLE / "shapes.yqc"
    assert path.stat().st_size < 1_000_000
    source, found, objects = open_model(path), 0, 0
    for index in range(7000, 7015):  # beyond the pictures that it was trained on
        scene = scenes.draw(0, "train", index)
        image = torch.from_numpy(scene.pixels).permute(2, 0, 1)[None].float() / 255
        centre, size, scores = source.gm(image)[0].T.split((2, 2, len(scenes.NAMES)), 1)
        boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
        truth = torch.from_numpy(scene.boxes).float()
        overlap = script("loss").iou(truth[:, None], boxes)
        sure = scores.T[torch.from_numpy(scene.classes).long()] > 0.25
        found += int(((overlap > 0.5) & sure).any(1).sum())
        objects += len(truth)
    assert objects > 40
    assert found > 0.8 * objects
