"""Values count with the mean relevance of values like them, and no less than smaller ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yqc.quant import Histogram, ValueRelevance, choose_range, qparams_from_range, rounding_error

NORMAL = torch.randn(20_000, generator=torch.Generator().manual_seed(0))


def histogram(values: Tensor) -> Histogram:
    result = Histogram()
    result.add(values)
    return result


def measured(values: Tensor, relevance: Tensor) -> ValueRelevance:
    result = ValueRelevance()
    result.add(values, relevance)
    return result


def test_equal_relevance_changes_no_range() -> None:
    plain = histogram(NORMAL)
    weighed = measured(NORMAL, torch.full_like(NORMAL, 3.0)).weigh(plain)
    torch.testing.assert_close(weighed.counts, 3 * plain.counts)
    assert choose_range(weighed, "mse") == choose_range(plain, "mse")


def test_what_matters_is_clipped_less() -> None:
    x = NORMAL.sign() * NORMAL.abs() ** 3
    plain = histogram(x)
    before, after = (
        choose_range(plain, "mse"),
        choose_range(measured(x, x.square()).weigh(plain), "mse"),
    )
    assert after[1] > before[1]
    assert after[0] < before[0]


def test_what_no_image_held_counts_as_the_largest_that_one_did() -> None:
    some = measured(NORMAL, 1 + NORMAL.abs())
    weighed = some.weigh(histogram(torch.tensor([-30.0, 0.01, 30.0])))
    low, middle, high = weighed.counts[weighed.counts > 0].tolist()
    assert low > 2.5 * middle
    assert high > 2.5 * middle


def test_relevance_of_nothing_counts_values_alike() -> None:
    plain = histogram(NORMAL)
    for nothing in (ValueRelevance(), measured(NORMAL, torch.zeros_like(NORMAL))):
        torch.testing.assert_close(nothing.weigh(plain).counts, plain.counts)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_what_counts_never_falls_away_from_zero(first: float, second: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, like = torch.randn(3000, generator=g) * first, torch.randn(3000, generator=g) * second
    plain = histogram(like)
    weighed = measured(x, torch.rand(3000, generator=g)).weigh(plain)
    before = plain.widened(weighed.bound).counts
    each = (weighed.counts / before)[before > 0]
    positive = weighed.centres[before > 0] > 0
    assert bool((each[positive].diff() >= -1e-12).all())
    negative = weighed.centres[before > 0] < 0
    assert bool((each[negative].diff() <= 1e-12).all())


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_of_a_range_is_that_of_the_quantizer(symmetric: bool) -> None:
    dtype = torch.int8 if symmetric else torch.uint8
    p = qparams_from_range(torch.tensor(-1.0), torch.tensor(2.0), dtype, symmetric=symmetric)
    back = torch.ops.yqc.dequantize_linear(
        torch.ops.yqc.quantize_linear(NORMAL, p.scale, p.zero_point), p.scale, p.zero_point
    )
    want = float((back - NORMAL).square().sum())
    assert rounding_error(histogram(NORMAL), -1.0, 2.0, symmetric=symmetric) == pytest.approx(
        want, rel=0.02
    )
    assert rounding_error(histogram(NORMAL), 0.0, 0.0) == 0


def test_an_output_of_the_head_counts_as_it_was_measured() -> None:
    logits = torch.cat([torch.linspace(-20, -10, 2000), torch.linspace(-4, 4, 2000)])
    slope = torch.sigmoid(logits) * torch.sigmoid(-logits)
    plain, some = histogram(logits), measured(logits, slope.square())
    rising = choose_range(some.weigh(plain), "mse")
    as_measured = choose_range(some.weigh(plain, rising=False), "mse")
    assert rising[0] < -15  # background counts no less than what is near zero
    assert -8 < as_measured[0] < -3.5
    assert as_measured[1] > 3.5


def test_sizes_that_were_not_measured_count_as_the_nearest() -> None:
    weighed = measured(torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 5.0])).weigh(
        histogram(torch.tensor([-30.0, 30.0])), rising=False
    )
    assert weighed.counts[weighed.counts > 0].tolist() == [2.0, 5.0]
