"""Samples that are counted later are counted as what they were, as often, and never as more."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yqc.quant import Histogram
from yqc.quant.histogram import AT_ONCE, BINS


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 100.0), st.sampled_from([1, 7, 400, 40_000, 150_000])),
        min_size=1,
        max_size=12,
    )
)
def test_when_values_are_counted_makes_no_difference(parts: list[tuple[float, int]]) -> None:
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(length, generator=g) * size for size, length in parts]
    late, early = Histogram(), Histogram()
    for tensor in tensors:
        late.add(tensor)
        early.add(tensor)
        assert early.counts.sum() > 0  # counts what is kept
    assert late.bound == early.bound
    torch.testing.assert_close(late.counts.sum(), early.counts.sum())
    # A value on the border of two bins may be in either.
    torch.testing.assert_close(late.counts.cumsum(0), early.counts.cumsum(0), atol=9, rtol=1e-3)


def test_what_is_kept_is_a_copy_and_bounded() -> None:
    found, values = Histogram(), torch.full((1000,), 0.75)
    found.add(values)
    values.fill_(-0.75)
    assert found.counts[: BINS // 2].sum() == 0
    for _ in range(3 * AT_ONCE // 1000):
        found.add(values)
        assert sum(len(part) for part, *_ in found._kept) < AT_ONCE


def test_tensors_of_different_lengths_count_by_their_lengths() -> None:
    found = Histogram(weighed=True)
    large, small = torch.full((1 << 16,), 0.25), torch.full((5,), 0.75)
    found.add(large, torch.ones_like(large))
    found.add(small, 2 * small)
    places = [round(BINS * (0.5 + value / (2 * found.bound))) for value in (0.25, 0.75)]
    assert found.counts[places].tolist() == [1 << 16, 5]
    assert found.sums[places].tolist() == [1 << 16, 7.5]


def test_statistics_taken_in_inference_mode_can_be_read_outside() -> None:
    found = Histogram()
    with torch.inference_mode():
        for size in (1.0, 5.0):
            found.add(torch.full((10,), size))
    total: Tensor = found.counts.sum()
    assert total == 20
