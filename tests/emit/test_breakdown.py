"""What the bytes of a file's weights are made of."""

import pytest

from tests.passes.nets import calibrated, traced
from yqc.emit import emit, size_parts, weight_bytes

WEIGHTS = 27 * 4 + 16 + 16 + 16
CHANNELS = 4 + 4 + 4 + 2


@pytest.mark.parametrize(
    ("passes", "weights", "scales", "codebooks"),
    [
        ("fold-bn", 4 * WEIGHTS, 0, 0),
        ("fold-bn,pack-int4{scheme=symmetric}", WEIGHTS // 2, 2 * CHANNELS, 0),
        ("fold-bn,pack-int4", WEIGHTS // 2, 2 * CHANNELS + CHANNELS // 2, 0),
        ("fold-bn,cluster", WEIGHTS // 2, 2 * CHANNELS, 4 * 32),
        ("int8", WEIGHTS, 4 * CHANNELS, 0),
    ],
)
def test_every_kind_is_counted(passes: str, weights: int, scales: int, codebooks: int) -> None:
    model = emit(traced(passes, calibrated()))
    found = size_parts(model)
    assert sum(found.values()) == weight_bytes(model)
    assert (found["weights"], found["codebooks"]) == (weights, codebooks)
    assert 0 <= found["scales"] - scales <= 8  # what turns signed codes into levels
    two_bytes = "pack" in passes or "cluster" in passes
    assert found["biases"] == (2 * CHANNELS + 4 * 4 if two_bytes else 4 * CHANNELS)


@pytest.mark.parametrize("bits", [2, 3, 5, 6])
def test_planes_of_odd_widths_are_weights_and_their_zeros_scales(bits: int) -> None:
    found = size_parts(emit(traced(f"fold-bn,pack-int4{{bits={bits}}}", calibrated())))
    assert WEIGHTS * bits // 8 <= found["weights"] <= WEIGHTS * bits // 8 + 1
    packed = 2 * CHANNELS + CHANNELS * bits / 8
    assert abs(found["scales"] - packed) <= 2
