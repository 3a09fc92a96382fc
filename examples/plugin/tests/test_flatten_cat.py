"""flatten-cat: what it draws together, what it leaves alone and why."""

import pytest
import torch
from acme_yqc.flatten_cat import FlattenCat  # type: ignore[import-not-found]  # once installed
from torch import Tensor, nn

from yqc.testing import apply, assert_same_numbers, assert_text, run, traced


class Nested(nn.Module):
    """A concat of a concat and of its input; something else may read the inner one."""

    def __init__(self, inner: int = 1, outer: int = 1, *, tap: bool = False) -> None:
        super().__init__()
        self.inner, self.outer, self.tap = inner, outer, tap

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, ...]."""
        y = torch.cat((x, 2 * x), self.inner)
        z = torch.cat((y, y if self.inner != self.outer else x), dim=self.outer)
        return z.sum() + y if self.tap else z


def test_draws_a_concat_into_the_one_that_reads_it() -> None:
    gm = traced(Nested(), (1, 3, 4, 4))
    before = run(gm)
    done = apply(FlattenCat(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,4,4] = input
        %mul: f32[1,3,4,4] = mul(2, %x)
        %cat_1: f32[1,9,4,4] = cat([%x, %mul, %x], 1)
        return %cat_1
        """,
    )
    assert_same_numbers(run(gm), before, tolerance=0)
    assert done.rewrites == [("cat", "drawn into cat_1")]


@pytest.mark.parametrize(
    ("net", "action", "why"),
    [
        (Nested(1, 2), FlattenCat(), "cat_1 joins along another dimension"),
        (Nested(tap=True), FlattenCat(), "cat has other users"),
        (Nested(), FlattenCat(max_inputs=2), "cat_1 would get more than 2 inputs"),
    ],
)
def test_leaves_a_near_miss_alone_and_says_why(
    net: nn.Module, action: FlattenCat, why: str
) -> None:
    gm = traced(net, (1, 3, 4, 4))
    done = apply(action, gm)
    assert not done.changed
    assert done.skips == [("cat", why)]
