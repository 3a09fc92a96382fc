"""What a stranger's model may allocate is counted before it is allocated."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from yqc.errors import CheckpointError
from yqc.models.bounded import Bounded, TooLargeError
from yqc.models.load import load


def test_views_are_free_and_results_are_counted() -> None:
    x = torch.ones(1, 2, 4, 4)
    with Bounded(1000) as limit:
        y = F.conv2d(x, torch.ones(3, 2, 1, 1))  # the ones: 6, the result: 48
        F.silu(y.permute(0, 2, 3, 1))
    assert limit.left == 1000 - 6 - 48 - 48


@pytest.mark.parametrize(
    "grow",
    [
        lambda x: F.interpolate(x, scale_factor=1e6),
        lambda x: F.pad(x, (1 << 20,) * 4),
        lambda x: torch.cat([x] * 3000),
        lambda x: x.flatten()[:, None] * torch.ones(1, 1 << 20),
        lambda x: F.adaptive_avg_pool2d(x, (1 << 20, 1 << 20)),
        lambda _: torch.zeros(1 << 40),
    ],
)
def test_nothing_grows_past_the_limit(grow: object) -> None:
    with Bounded(1 << 20), pytest.raises(TooLargeError, match="more than 1,048,576 values"):
        grow(torch.ones(1, 2, 16, 16))  # type: ignore[operator]


def test_an_operation_that_fails_says_itself_why() -> None:
    with Bounded(1000), pytest.raises(RuntimeError, match="to have 2 channels"):
        F.conv2d(torch.ones(1, 3, 4, 4), torch.ones(1, 2, 1, 1))


def test_a_checkpoint_full_of_upsamplings_is_refused(
    checkpoints: ModuleType, tmp_path: Path
) -> None:
    spec = {"backbone": [[-1, 1, "Conv", [4, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    detector = checkpoints.make(spec)
    detector.model[0].act = nn.Sequential(*(nn.Upsample(scale_factor=2.0) for _ in range(40)))
    path = checkpoints.save(tmp_path / "x.pt", detector, "ultralytics")
    with pytest.raises(CheckpointError, match="computes more than 67,108,864 values"):
        load(path)
