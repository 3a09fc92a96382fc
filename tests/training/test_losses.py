"""Losses are zero where student and teacher agree, and weigh by the teacher's confidence."""

import pytest
import torch
from torch import Tensor

from yqc.training.heads import Tap
from yqc.training.losses import anchor_loss, bernoulli_divergence, box_loss, distance, feature_loss

SPLIT = [Tap("b", "box"), Tap("c", "cls"), Tap("f", "feature")]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_equal_answers_have_no_distance() -> None:
    outputs = [random(2, 16, 3, 3), random(2, 5, 3, 3), random(2, 4, 3, 3)]
    assert float(distance(SPLIT, outputs, outputs, 1.0)) == pytest.approx(0, abs=1e-5)
    anchors = [random(2, 21, 3, 3)]
    assert float(distance([Tap("a", "anchor", 7)], anchors, anchors, 1.0)) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(3))
def test_any_difference_costs(seed: int) -> None:
    s, t = random(2, 21, 3, 3, seed=seed), random(2, 21, 3, 3, seed=seed + 9)
    assert float(bernoulli_divergence(s, t).min()) >= 0
    assert float(anchor_loss(s, t, 7)[0]) > 0
    assert float(feature_loss(s, t)) > 0
    assert float(box_loss(s[:, :16], t[:, :16], torch.ones(2, 3, 3))) > 0


def test_bernoulli_is_the_divergence() -> None:
    p, q = torch.tensor(0.7), torch.tensor(0.2)
    want = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(bernoulli_divergence(q.logit(), p.logit()), want)


def test_extreme_logits_stay_finite() -> None:
    s = torch.tensor([-200.0, 200.0, 0.0], requires_grad=True)
    loss = bernoulli_divergence(s, torch.tensor([200.0, -200.0, 200.0])).sum()
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()  # type: ignore[arg-type]


def test_boxes_count_only_where_the_teacher_sees_something() -> None:
    t, s = random(1, 16, 1, 2), random(1, 16, 1, 2, seed=1)
    both, left = torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    alone = box_loss(s[..., :1], t[..., :1], torch.ones(1, 1, 1))
    torch.testing.assert_close(box_loss(s, t, left), alone)
    assert box_loss(s, t, both) > alone


def test_plain_distances_are_compared_by_their_difference() -> None:
    t = random(1, 4, 2, 2)
    torch.testing.assert_close(box_loss(t + 0.5, t, torch.ones(1, 2, 2)), torch.tensor(2.0))


def test_the_loss_is_counted_an_object() -> None:
    """Twice as many sure positions, each as wrong as before, cost the same."""
    taps = SPLIT[:2]
    t = [random(1, 16, 1, 1), torch.full((1, 1, 1, 1), 9.0)]
    s = [random(1, 16, 1, 1, seed=1), torch.full((1, 1, 1, 1), 1.0)]
    s2, t2 = ([torch.cat([x, x], 3) for x in each] for each in (s, t))
    torch.testing.assert_close(
        distance(taps, s2, t2, 1.0), distance(taps, s, t, 1.0), rtol=1e-3, atol=0
    )


def test_features_are_weighed() -> None:
    t, s = [random(2, 4, 3, 3)], [random(2, 4, 3, 3, seed=1)]
    once, half = (float(distance(SPLIT[2:], s, t, weight)) for weight in (1.0, 0.5))
    assert half == pytest.approx(once / 2)


def test_of_a_pruned_map_what_is_left_is_compared() -> None:
    whole = random(1, 4, 3, 3)
    taps = [Tap("f", "feature", kept=torch.tensor([0, 2]))]
    assert float(distance(taps, [whole[:, [0, 2]]], [whole], 1.0)) == 0
    assert float(distance(taps, [whole[:, [0, 1]]], [whole], 1.0)) > 0


def test_where_the_teacher_sees_no_object_boxes_and_classes_are_free() -> None:
    t, s = random(1, 7, 1, 2), random(1, 7, 1, 2, seed=1)
    t[:, 4] = s[:, 4] = torch.tensor([[[2.0, -20.0]]])
    both, left = anchor_loss(s, t, 7), anchor_loss(s[..., :1], t[..., :1], 7)
    torch.testing.assert_close(both, left)
    s[0, 4, 0, 1] = 3.0
    assert anchor_loss(s, t, 7)[0] > both[0]


def test_one_distance_of_levels_is_the_loss_over_the_confidence_of_all() -> None:
    shapes = [(2, 21, 4, 4), (2, 21, 2, 2)]
    t = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    s = [random(*shape, seed=9 + i) for i, shape in enumerate(shapes)]
    parts = [anchor_loss(*pair, 7) for pair in zip(s, t, strict=True)]
    want = (parts[0][0] + parts[1][0]) / (parts[0][1] + parts[1][1])
    found = distance([Tap("a", "anchor", 7), Tap("b", "anchor", 7)], s, t, 1.0)
    torch.testing.assert_close(found, want)
