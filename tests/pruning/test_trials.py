"""What is asked for speed's sake leaves widths that processors like."""

import itertools

import pytest
import torch
from torch import nn

from yqc import Context, trace
from yqc.pruning.options import PruningOptions
from yqc.pruning.sizes import SizeUnit
from yqc.pruning.trials import LANES, PruningTask

X = torch.zeros(1, 3, 8, 8)


def task(of: SizeUnit, round_to: int = 8) -> PruningTask:
    torch.manual_seed(0)
    widths = [3, 16, 32, 48, 64, 96, 128, 112, 160, 144, 96, 80, 64, 4]
    convs = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)]
    options = PruningOptions(of=of, round_to=round_to)
    return PruningTask(trace(nn.Sequential(*convs), X), Context(), options)


def left(of: SizeUnit, ratio: float, round_to: int = 8) -> list[int]:
    one = task(of, round_to)
    keep = one.select("l2", ratio)
    assert one.sizes.share_removed(keep) == pytest.approx(ratio, rel=0.01)
    return [int(keep[b.first : b.first + b.count].sum()) for b in one.channels.blocks if not b.pin]


def test_a_share_of_macs_leaves_whole_lanes() -> None:
    assert all(count % LANES == 0 for count in left("macs", 0.5))


def test_other_shares_and_other_roundings_do_not() -> None:
    for of, round_to in (("params", 8), ("macs", 1)):
        counts = left(of, 0.5, round_to)  # type: ignore[arg-type]
        assert any(count % LANES for count in counts)
        assert all(count % round_to == 0 for count in counts if count >= 32)
