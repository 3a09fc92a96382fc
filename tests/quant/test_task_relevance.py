"""Weights of masks, keypoints, angles and classes against the measures that they stand for."""

import pytest
import torch
from torch import Tensor

from yqc.facts import OutputForm
from yqc.quant import weight_outputs
from yqc.quant.task_relevance import find_sigmas
from yqc.testing import task_nets

SCORE = 0.5


def covariance(box: Tensor) -> Tensor:
    _, _, w, h, t = box
    turn = torch.stack((torch.stack((t.cos(), -t.sin())), torch.stack((t.sin(), t.cos()))))
    return turn @ torch.diag(torch.stack((w, h)).square() / 12) @ turn.T


def overlap_lost(a: Tensor, b: Tensor) -> float:
    """1 - probiou: the Hellinger distance of two Gaussians."""
    first, second = covariance(a), covariance(b)
    mean, d = (first + second) / 2, (a - b)[:2]
    far = d @ mean.inverse() @ d / 8
    far = far + (mean.det() / (first.det() * second.det()).sqrt()).log() / 2
    return float((1 - (-far).exp()).sqrt())


@pytest.mark.parametrize("size", [(40.0, 20.0), (16.0, 48.0), (30.0, 30.0)])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2])
def test_angles_and_centres_count_as_they_move_rotated_boxes(
    size: tuple[float, float], angle: float
) -> None:
    box = torch.tensor([50.0, 60.0, *size, angle], dtype=torch.float64)
    output = torch.cat((box[:4], torch.tensor([SCORE, 0.1], dtype=torch.float64), box[4:]))
    pairs = weight_outputs(output.view(1, 7, 1), task_nets.OBB)
    weights = torch.cat([w.expand_as(o)[0, 0] for o, w in pairs[1:]])
    for place in (0, 1, 4):
        moved = box.clone()
        moved[place] += 1e-3
        lost = overlap_lost(box, moved) / 1.5**0.5
        assert float(weights[place]) * 1e-3 / SCORE == pytest.approx(lost, rel=2e-3, abs=1e-7)


@pytest.mark.parametrize("count", [4, 17])
def test_keypoints_count_as_they_lower_the_oks(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator) * 40
    size = torch.tensor([30.0, 20.0])
    output = torch.cat((torch.tensor([40.0, 40.0]), size, torch.tensor([SCORE]), points.flatten()))
    form = OutputForm("yolov8", 1, "pose", kpt_shape=(count, 3))
    _, weights = weight_outputs(output.view(1, -1, 1), form)[2]
    moves = torch.randn(count, 3, generator=generator) * 0.01
    scale = 2 * size.prod() * (2 * find_sigmas(count)).square()
    oks = (-moves[:, :2].square().sum(1).double() / scale).exp().mean()
    weights = weights.view(count, 3) / SCORE
    counted = (weights * moves)[:, :2].square().sum()
    assert float(counted) == pytest.approx(2 * (1 - float(oks)), rel=1e-3)
    assert (weights[:, 2] > 0).all()


def test_masks_count_inside_of_likely_boxes_only() -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.zeros(1, 4 + 2 + 8, 3)
    output[0, :4] = torch.tensor([[16.0, 16, 16, 8], [8.0, 24, 8, 8], [16.0, 16, 32, 32]]).T
    output[0, 4] = torch.tensor([0.5, 0.25, 0.0])
    output[0, 6:] = torch.randn(8, 3, generator=generator)
    prototypes = torch.randn(1, 8, 8, 8, generator=generator)
    masks, weights = weight_outputs((output, prototypes), task_nets.SEGMENT)[2]
    torch.testing.assert_close(
        masks[0, 1], torch.einsum("e,ehw->hw", output[0, 6:, 1], prototypes[0]).sigmoid()
    )
    first = torch.zeros(8, 8)
    first[3:5, 2:6] = 0.5 * 12**0.5 / 8  # score sqrt(perimeter) / area, in pixels of four
    torch.testing.assert_close(weights[0, 0], first)
    assert weights[0, 1].nonzero().tolist() == [[y, x] for y in (5, 6) for x in (1, 2)]
    assert not weights[0, 2].any()


def test_masks_of_end_to_end_rows_are_those_of_their_corners() -> None:
    form = OutputForm("end2end", 2, "segment", coefficients=8)
    row = torch.cat((torch.tensor([8.0, 12, 24, 20, 0.5, 1]), torch.ones(8)))
    _, weights = weight_outputs((row.view(1, 1, -1), torch.zeros(1, 8, 8, 8)), form)[2]
    assert weights[0, 0].nonzero().tolist() == [[y, x] for y in (3, 4) for x in (2, 3, 4, 5)]


def test_probabilities_count_as_their_divergence_does() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 5, generator=generator).double() * 2
    moved = logits + 1e-4 * torch.randn(1, 5, generator=generator)
    p, q = logits.softmax(1), moved.softmax(1)
    ((output, weight),) = weight_outputs(p, task_nets.CLASSIFY)
    counted = (weight * (q - output)).square().sum()
    assert float(counted) == pytest.approx(2 * float((p * (p / q).log()).sum()), rel=1e-3)


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_every_output_of_a_task_has_a_slope(task: str) -> None:
    net = task_nets.task_net(task)  # type: ignore[arg-type]  # pytest knows no literals
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pairs = weight_outputs(net(x), task_nets.FORMS[task])  # type: ignore[index]
    for values, weight in pairs:
        slopes = torch.autograd.grad(
            (values * weight).sum(), list(net.parameters()), allow_unused=True, retain_graph=True
        )
        assert any(s is not None and bool(s.any()) for s in slopes)
        assert all(s is None or bool(s.isfinite().all()) for s in slopes)
