"""Losses and projections of masks, keypoints, angles and logits."""

import pytest
import torch
from torch import Tensor

from yqc.pruning.probes import project_head
from yqc.training.heads import Tap, find_confidence
from yqc.training.losses import distance
from yqc.training.task_losses import outline_loss, relative_error

Maps = dict[str, Tensor]

LEVEL = {"cls": (2, 3, 2, 2), "box": (2, 4, 2, 2)}
SHAPES = {
    "mask": (2, 6, 2, 2),
    "proto": (2, 6, 4, 4),
    "keypoint": (2, 2 * 3, 2, 2),
    "angle": (2, 1, 2, 2),
    "logits": (2, 5),
    "anchor": (2, 2 * 14, 2, 2),
}
ORDERS = {
    "segment": ["box", "mask", "cls", "proto"],
    "pose": ["box", "keypoint", "cls"],
    "obb": ["box", "angle", "cls"],
    "classify": ["logits"],
    "yolov5-seg": ["anchor", "proto"],
}
NUMBERS = {"keypoint": (3, 0), "anchor": (14, 6)}


def heads(name: str) -> tuple[list[Tap], Maps]:
    generator = torch.Generator().manual_seed(0)
    shapes = LEVEL | SHAPES
    taps = [Tap(k, k, *NUMBERS.get(k, ())) for k in ORDERS[name]]  # type: ignore[arg-type]  # kinds
    return taps, {k: torch.randn(shapes[k], generator=generator) for k in ORDERS[name]}


def loss_of(taps: list[Tap], student: Maps, teacher: Maps) -> Tensor:
    return distance(taps, [*student.values()], [*teacher.values()], 0.0)


@pytest.mark.parametrize("name", ORDERS)
def test_equal_outputs_have_no_distance_and_every_difference_has_one(name: str) -> None:
    taps, maps = heads(name)
    assert float(loss_of(taps, maps, maps)) == pytest.approx(0, abs=1e-5)
    for tap in taps:
        moved = maps | {tap.name: maps[tap.name] + 0.1 * torch.sin(7 * maps[tap.name])}
        assert float(loss_of(taps, moved, maps)) > 1e-4


@pytest.mark.parametrize("kind", ["mask", "keypoint", "angle"])
def test_where_nothing_is_seen_nothing_counts(kind: str) -> None:
    taps, maps = heads({"mask": "segment", "keypoint": "pose", "angle": "obb"}[kind])
    maps["cls"] = torch.full_like(maps["cls"], -100.0)
    maps["cls"][:, 1, 1, 0] = 2.0
    value = maps[kind].clone().requires_grad_()
    moved = maps | {kind: value}
    away = maps | {kind: maps[kind] + 1}
    generator = torch.Generator().manual_seed(1)
    for total in (loss_of(taps, moved, away), project_head(taps, moved, generator)):
        (slope,) = torch.autograd.grad(total, value)
        seen = slope.abs().amax(1)
        assert (seen[:, 1, 0] > 1e-4).all()
        seen[:, 1, 0] = 0
        assert float(seen.max()) < 1e-12


def test_an_error_of_coefficients_counts_as_the_mask_that_it_makes() -> None:
    taps, maps = heads("segment")
    maps["proto"][:, 0] = 0  # what is multiplied by nothing makes no mask
    moved = maps["mask"].clone()
    moved[:, 0] += 5
    assert float(loss_of(taps, maps | {"mask": moved}, maps)) == pytest.approx(0, abs=1e-4)
    c, d = maps["mask"][0, :, 0, 0], maps["mask"][1, :, 0, 1]
    p = maps["proto"][:1].flatten(2)
    want = (((c - d) @ p[0]).norm() / (d @ p[0]).norm()).square()
    got = relative_error(c.view(1, 1, -1), d.view(1, 1, -1), p @ p.mT / p.shape[2])
    assert float((got + 1e-2).square() - 1e-4) == pytest.approx(float(want), rel=1e-3)


def test_logits_that_all_move_alike_cost_nothing() -> None:
    taps, maps = heads("classify")
    assert float(loss_of(taps, {"logits": maps["logits"] + 3}, maps)) == pytest.approx(0, abs=1e-6)


def mean_square_along(taps: list[Tap], maps: Maps, kind: str, direction: Tensor) -> float:
    generator, times = torch.Generator().manual_seed(1), 1000
    total, value = 0.0, maps[kind].requires_grad_()
    for _ in range(times):
        (slope,) = torch.autograd.grad(project_head(taps, maps, generator), value)
        total += float((slope * direction).sum()) ** 2 / times
    value.requires_grad_(False)  # its only argument
    return total


def test_slopes_of_logits_are_the_curvature_of_their_divergence() -> None:
    taps, maps = heads("classify")
    direction = maps["logits"].flip(1)
    got = mean_square_along(taps, maps, "logits", direction)
    step = 1e-3
    moved = {"logits": maps["logits"].double() + step * direction}
    loss = distance(taps, [moved["logits"]], [maps["logits"].double()], 0.0)
    assert got == pytest.approx(2 * float(loss) / step**2, rel=0.2)


def test_slopes_of_prototypes_are_the_relative_errors_that_coefficients_make() -> None:
    taps, maps = heads("segment")
    direction = maps["proto"].flip(1, 2)
    got = mean_square_along(taps, maps, "proto", direction)
    sure = maps["cls"].sigmoid().amax(1)
    masks = [
        torch.einsum("nhw,nehw,nfhw,neij,nfij->n", sure, maps["mask"], maps["mask"], x, x)
        for x in (direction, maps["proto"])
    ]
    assert got == pytest.approx(float((masks[0] / masks[1]).mean()), rel=0.2)


def test_an_outline_that_is_off_costs_more_than_pixels_outside_of_boxes() -> None:
    taps = [Tap("box", "box"), Tap("mask", "mask"), Tap("cls", "cls"), Tap("proto", "proto")]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")

    def maps(left: float, outside: float = -4.0) -> dict[str, torch.Tensor]:
        inside = (x >= left) & (x < 10) & (y >= 4) & (y < 12)
        far = (x < 1) | (x > 14)
        proto = torch.where(inside, 4.0, torch.where(far, outside, -4.0))
        box = torch.full((1, 4, 4, 4), 1.2)  # in cells of four pixels
        sure = torch.full((1, 1, 4, 4), -9.0)
        sure[0, 0, 1, 1] = 3.0
        return {"box": box, "mask": torch.ones(1, 1, 4, 4), "cls": sure, "proto": proto[None, None]}

    def loss(student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor]) -> float:
        ours, theirs = ([one[tap.kind] for tap in taps] for one in (student, teacher))
        return float(outline_loss(taps, ours, theirs, find_confidence(taps, theirs)))

    assert loss(maps(4), maps(4)) == 0
    assert loss(maps(4, outside=4.0), maps(4)) < 0.1
    assert loss(maps(6), maps(4)) > loss(maps(5), maps(4)) > 1
