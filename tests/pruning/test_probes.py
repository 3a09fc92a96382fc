"""Random projections: the square of their slope is the curvature of the distillation loss."""

import pytest
import torch
from torch import Tensor

from yqc.pruning.probes import project_head
from yqc.training.heads import Tap
from yqc.training.losses import distance

GENERATOR = torch.Generator().manual_seed(0)
MAPS = {
    "cls": [torch.randn(2, 3, 2, 2, generator=GENERATOR)],
    "anchor": [torch.randn(2, 2 * 8, 2, 2, generator=GENERATOR)],
}
TAPS = {"cls": [Tap("a", "cls")], "anchor": [Tap("a", "anchor", 8)]}


def slopes(kind: str, times: int) -> Tensor:
    """Return the mean square of the slope by each number of the first map."""
    value = MAPS[kind][0].clone().requires_grad_()
    total = torch.zeros_like(value)
    generator = torch.Generator().manual_seed(1)
    for _ in range(times):
        (slope,) = torch.autograd.grad(project_head(TAPS[kind], {"a": value}, generator), value)
        total += slope.square() / times
    return total


def curvature(kind: str) -> Tensor:
    """Return the diagonal of the loss's second derivative where both sides are equal."""
    value = MAPS[kind][0]

    def loss(x: Tensor) -> Tensor:
        return distance(TAPS[kind], [x], [value], 0.0)

    whole: Tensor = torch.autograd.functional.hessian(loss, value.clone())  # type: ignore[no-untyped-call]  # torch
    return whole.reshape(value.numel(), -1).diagonal().reshape(value.shape)


def test_slopes_of_scores_are_the_curvature() -> None:
    got, want = slopes("cls", 1), curvature("cls")
    ratio = got / want
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)
    assert 0.8 < float(ratio.mean()) <= 1


def test_slopes_of_objectness_are_the_curvature() -> None:
    got, want = slopes("anchor", 1)[:, [4, 12]], curvature("anchor")[:, [4, 12]]
    ratio = got / want
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bins", [1, 5])
def test_sides_where_nothing_is_seen_count_nothing(bins: int) -> None:
    box = torch.randn(1, 4 * bins, 2, 2, generator=GENERATOR).requires_grad_()
    cls = torch.full((1, 3, 2, 2), -100.0)
    cls[0, 1, 1, 0] = 2.0
    taps = [Tap("box", "box"), Tap("cls", "cls")]
    generator = torch.Generator().manual_seed(1)
    torch.autograd.backward(
        project_head(taps, {"box": box, "cls": cls.requires_grad_()}, generator)
    )
    assert box.grad is not None
    squares = box.grad.square().sum(1)[0]
    assert squares[1, 0] > 1e-3
    squares[1, 0] = 0
    assert float(squares.max()) < 1e-12
