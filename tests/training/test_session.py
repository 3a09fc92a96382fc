"""What a training computes in follows from the processor, and from how much there is to learn."""

import pytest
import torch

from yqc.training.session import ROUNDED, Arithmetic


@pytest.mark.parametrize(
    ("device", "amx", "far", "quantized", "half"),
    [
        ("cpu", True, 1.0, False, True),
        ("cpu", False, 1.0, False, False),
        ("cpu", True, 1.0, True, False),
        ("cpu", True, ROUNDED / 2, False, False),
        ("cuda:0", False, 1.0, False, True),
        ("cuda:0", False, ROUNDED / 2, False, False),
    ],
)
def test_bfloat16_where_it_is_fast_and_its_rounding_small(
    device: str, amx: bool, far: float, quantized: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert Arithmetic.best(device, far, quantized=quantized) == Arithmetic(device, half)
