import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yqc.quant import (
    RANGE_METHODS,
    Histogram,
    choose_range,
    minmax_channel_scale,
    mse_channel_scale,
    qparams_from_range,
    quantize_weight,
)

NORMAL = torch.randn(20_000, generator=torch.Generator().manual_seed(0))


def histogram(*parts: torch.Tensor) -> Histogram:
    result = Histogram()
    for part in parts:
        result.add(part)
    return result


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=6), st.integers(0, 999))
def test_histogram_loses_nothing_however_the_range_grows(sizes: list[float], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(500, generator=g) * size for size in sizes]
    found = histogram(*parts)
    everything = torch.cat(parts)
    assert found.counts.sum() == len(everything)
    assert (found.smallest, found.largest) == (float(everything.min()), float(everything.max()))
    mean = (found.counts * found.centres).sum() / found.counts.sum()
    assert abs(mean - everything.mean()) <= 2 * found.bound / len(found.counts)


def test_merged_histograms_count_every_value_alike() -> None:
    small, large = histogram(NORMAL[:1000]), histogram(NORMAL[1000:] * 7)
    both = Histogram.merged([small, large])
    torch.testing.assert_close(both.counts.sum().item(), float(len(NORMAL)))
    together = histogram(torch.cat([NORMAL[:1000], NORMAL[1000:] * 7]))
    torch.testing.assert_close(both.counts.cumsum(0), together.counts.cumsum(0), atol=80, rtol=0)


def test_minmax_is_exact_and_holds_zero() -> None:
    assert choose_range(histogram(NORMAL.abs() + 1), "minmax")[0] == 0.0
    assert choose_range(histogram(NORMAL), "minmax") == (float(NORMAL.min()), float(NORMAL.max()))


def test_mse_clips_a_lonely_outlier_and_beats_minmax() -> None:
    x = torch.cat([NORMAL, torch.tensor([60.0])])
    ranges = {method: choose_range(histogram(x), method) for method in RANGE_METHODS}
    errors = {}
    for method, (low, high) in ranges.items():
        p = qparams_from_range(torch.tensor(low), torch.tensor(high), torch.uint8, symmetric=False)
        q = torch.ops.yqc.quantize_linear(x, p.scale, p.zero_point)
        errors[method] = float(
            (torch.ops.yqc.dequantize_linear(q, p.scale, p.zero_point) - x).square().mean()
        )
    assert ranges["mse"][1] < 60.0
    assert errors["mse"] <= min(errors.values())
    assert ranges["percentile"][1] < 6.0
    assert ranges["entropy"][1] < 60.0


def test_mse_keeps_a_flat_distribution_whole() -> None:
    low, high = choose_range(histogram(torch.linspace(-1, 3, 10_000)), "mse")
    assert low < -0.98
    assert high > 2.95


def test_many_exact_zeros_cost_nothing() -> None:
    positive = NORMAL[NORMAL > 0]
    alone = choose_range(histogram(positive), "mse")
    among = choose_range(histogram(positive, torch.zeros(20_000)), "mse")
    assert among == alone


def test_mse_clips_what_the_activation_flattens() -> None:
    x = torch.cat([NORMAL * 3, torch.full((200,), -80.0)])
    plain = choose_range(histogram(x), "mse")
    behind = choose_range(histogram(x), "mse", response=torch.nn.functional.silu)
    assert plain[0] < -20
    assert -13 < behind[0] < -4


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_is_the_least_error_of_the_real_quantizer(symmetric: bool) -> None:
    x = NORMAL.sign() * NORMAL.abs() ** 1.7
    dtype = torch.int8 if symmetric else torch.uint8

    def rounding_error(low: float, high: float) -> float:
        p = qparams_from_range(torch.tensor(low), torch.tensor(high), dtype, symmetric=symmetric)
        q = torch.ops.yqc.quantize_linear(x, p.scale, p.zero_point)
        back = torch.ops.yqc.dequantize_linear(q, p.scale, p.zero_point)
        return float((back - x).square().mean())

    chosen = rounding_error(*choose_range(histogram(x), "mse", symmetric=symmetric))
    shrunk = [
        rounding_error(s * float(x.min()), s * float(x.max()))
        for s in torch.linspace(0.3, 1, 30).tolist()
    ]
    assert chosen <= 1.02 * min(shrunk)


def test_affine_range_represents_zero_exactly() -> None:
    p = qparams_from_range(torch.tensor(-0.2785), torch.tensor(7.3), torch.uint8, symmetric=False)
    q = torch.ops.yqc.quantize_linear(torch.zeros(1), p.scale, p.zero_point)
    assert torch.ops.yqc.dequantize_linear(q, p.scale, p.zero_point).item() == 0.0
    assert q.item() == p.zero_point.item() == 9


def test_constant_zero_tensor_has_a_usable_scale() -> None:
    p = qparams_from_range(torch.tensor(0.0), torch.tensor(0.0), torch.int8, symmetric=True)
    assert p.scale.item() == 1.0


def test_weights_clip_where_that_lowers_the_squared_error() -> None:
    weight = NORMAL[:1800].view(2, 100, 3, 3).clone()
    weight[0, 0, 0, 0] = 40.0
    full, best = minmax_channel_scale(weight), mse_channel_scale(weight)

    def rounding_error(scale: torch.Tensor) -> torch.Tensor:
        back = quantize_weight(weight, scale) * scale.view(-1, 1, 1, 1)
        return (back - weight).square().flatten(1).sum(1)

    assert (rounding_error(best) <= rounding_error(full)).all()
    assert quantize_weight(weight, full).abs().max() == 127
