"""Pictures to train on, and a small graph that was damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, fx, nn

import yqc


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six small pictures of several shapes."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        pixels = rng.integers(0, 256, (4, 3 + i, 3), np.uint8)
        Image.fromarray(pixels).resize((24 + 4 * i, 20), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


class Net(nn.Module):
    """Two convolutions with batch norms and a last one; 16 x 16 in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
        self.last = nn.Conv2d(4, 2, 1)
        nn.init.uniform_(self.bn.weight, 0.5, 2.0)
        self.bn.momentum = None  # its statistics are those of the next images, whatever they were
        self.train()(torch.rand(16, 3, 16, 16))
        self.bn.momentum = 0.1

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.a(images)))
        y: Tensor = self.last(torch.relu(self.b(x)))
        return y


@pytest.fixture
def graph() -> Callable[[float], fx.GraphModule]:
    """Make the graph of `Net`, with noise of some size added to its convolutions' weights."""

    def make(noise: float = 0.0) -> fx.GraphModule:
        gm = yqc.trace(Net(), torch.zeros(1, 3, 16, 16))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in gm.parameters():
                if parameter.ndim == 4:
                    parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
        return gm

    return make
