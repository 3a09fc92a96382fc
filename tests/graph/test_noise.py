"""Images of noise: seeded, in 0..1, as many as the graph takes at once."""

import pytest
import torch
from torch import Tensor, nn

from yqc import trace
from yqc.errors import PassError
from yqc.graph.noise import COUNT, make_noise


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(1, 192)


def test_images_are_seeded_and_in_range() -> None:
    gm = trace(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 40, 56))
    first, again, other = make_noise(gm, 1), make_noise(gm, 1), make_noise(gm, 2)
    assert len(first) == COUNT
    assert {tuple(i.shape) for i in first} == {(1, 3, 40, 56)}
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert min(float(i.min()) for i in first) >= 0
    assert max(float(i.max()) for i in first) <= 1
    assert min(float(i.std()) for i in first) > 0.1


def test_a_fixed_batch_gets_one_image() -> None:
    assert len(make_noise(trace(Fixed(), torch.rand(1, 3, 8, 8)), 0)) == 1


def test_what_takes_no_image_is_refused() -> None:
    with pytest.raises(PassError, match=r"takes one tensor \[N, C, H, W\], .* give --data"):
        make_noise(trace(nn.Sequential(nn.Linear(4, 2)), torch.rand(1, 4)), 0)
