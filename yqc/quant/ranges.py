"""Choose the range of a tensor from its histogram: minmax, percentile, mse, entropy, a user's."""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeAlias, TypeVar

import torch
from torch import Tensor

from yqc.errors import PassError
from yqc.quant.histogram import Histogram
from yqc.registered import RANGES

RangeMethod: TypeAlias = Annotated[str, RANGES]
"""The name of a range method: one of `RANGE_METHODS`, `relevance`, or one that was registered."""
RANGE_METHODS = ("minmax", "percentile", "mse", "entropy")
RangeFunction: TypeAlias = Callable[..., tuple[float, float]]
F = TypeVar("F", bound=RangeFunction)

STEPS = 64
"""Candidates for an end of a range: multiples of 1/64 of the extreme. Half of them doubles the
largest miss of the best end, to 1/32; double doubles the time."""
LEVELS = 256


def register_range(name: str) -> Callable[[F], F]:
    """Register the decorated function as a range method: `int8{ranges=NAME}`.

    It is called as `function(histogram, relevance=..., symmetric=...)`: with the `Histogram` of a
    tensor's values, the same weighted by relevance, and whether the range is used symmetrically. It
    returns (low, high) with low <= 0 <= high.

    Raises:
        PipelineError: the name is taken, or is none.
    """
    return lambda function: RANGES.register(name, function)


def choose_range(
    histogram: Histogram,
    method: str,
    *,
    weighed: Histogram | None = None,
    symmetric: bool = False,
    percentile: float = 99.99,
    response: Callable[[Tensor], Tensor] | None = None,
) -> tuple[float, float]:
    """Choose a range (low, high) by a method; low <= 0 <= high.

    Args:
        histogram: of the tensor.
        method: `minmax`, the extremes seen; `percentile`, without the rarest values at either
            end; `mse`, the least mean squared error of 256 levels; `entropy`, the least
            Kullback-Leibler divergence between the counts and what 256 levels leave of them
            (Migacz, 8-bit inference with TensorRT, GTC 2017); or one that a user registered.
        weighed: the histogram weighted by relevance, for methods of users.
        symmetric: whether the range is used symmetrically.
        percentile: share of values in percent that the percentile method keeps.
        response: the elementwise function behind which the `mse` method measures the error, if the
            tensor is read by nothing else.
    """
    low, high = min(histogram.smallest, 0.0), max(histogram.largest, 0.0)
    if (added := RANGES.find(method)) is not None:
        relevance = histogram if weighed is None else weighed
        found = added.value(histogram, relevance=relevance, symmetric=symmetric)
        return check_range(found, f"range method {added.name!r} of {added.origin}")
    if method == "minmax" or low == high:
        return low, high
    if method == "percentile":
        return _percentile(histogram, percentile, low, high)
    if method == "mse":
        error = partial(_errors, histogram, symmetric=symmetric, response=response)
        return _least_error(histogram, low, high, error)
    return _least_divergence(histogram, low, high)


def check_range(found: tuple[float, float], who: str) -> tuple[float, float]:
    """Return a range that a user's function chose.

    Raises:
        PassError: it is none; `who` names the function.
    """
    try:
        low, high = map(float, found)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low <= 0 <= high < math.inf:
        raise PassError(f"{who} must return (low, high) with low <= 0 <= high, not {found!r}")
    return low, high


def rounding_error(
    histogram: Histogram,
    low: float,
    high: float,
    *,
    symmetric: bool = False,
    response: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """Return the sum of the squared errors of rounding to 256 levels of a range around 0.

    The histogram's counts are the weights of the errors; other arguments as of `choose_range`.
    """
    if low == high:
        return 0.0
    ends = torch.tensor([low]), torch.tensor([high])
    mean = _errors(histogram, *ends, symmetric=symmetric, response=response)
    return float(mean) * float(histogram.counts.sum())


def _percentile(h: Histogram, percentile: float, low: float, high: float) -> tuple[float, float]:
    share = h.counts.cumsum(0) / h.counts.sum()
    rest = (1 - percentile / 100) / 2
    first = int(torch.searchsorted(share, torch.tensor(rest, dtype=torch.float64)))
    last = int(torch.searchsorted(share, torch.tensor(1 - rest, dtype=torch.float64)))
    centres = h.centres
    return (
        max(low, min(0.0, float(centres[first]))),
        min(high, max(0.0, float(centres[min(last, len(centres) - 1)]))),
    )


def _errors(
    h: Histogram,
    lows: Tensor,
    highs: Tensor,
    *,
    symmetric: bool,
    response: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Return the mean squared error of quantizing to 256 levels, for every candidate range."""
    filled = h.counts > 0
    x, counts = h.centres[filled].unsqueeze(0), (h.counts[filled] / h.counts.sum()).float()
    if symmetric:
        scale = torch.maximum(-lows, highs) / (LEVELS // 2 - 1)
        first, last, zero = -LEVELS // 2, LEVELS // 2 - 1, torch.zeros_like(scale)
    else:
        scale = (highs - lows) / (LEVELS - 1)
        first, last, zero = 0, LEVELS - 1, (-lows / scale).round()
    scale, zero = scale.unsqueeze(1), zero.unsqueeze(1)
    y = (((x / scale).round() + zero).clamp(first, last) - zero) * scale
    if response is not None:
        with torch.no_grad():
            x, y = response(x.clone()), response(y)
    return ((y - x).square() * counts).sum(1)


def _least_error(
    h: Histogram, low: float, high: float, error: Callable[[Tensor, Tensor], Tensor]
) -> tuple[float, float]:
    shrink = torch.linspace(1.0, 1.0 / STEPS, STEPS)
    for _ in range(2):  # one end, the other, and once more
        highs = shrink * max(h.largest, 0.0)
        lows = torch.full_like(highs, low)
        high = float(highs[error(lows, highs).argmin()])
        lows = shrink * min(h.smallest, 0.0)
        highs = torch.full_like(lows, high)
        low = float(lows[error(lows, highs).argmin()])
    return low, high


def _least_divergence(h: Histogram, low: float, high: float) -> tuple[float, float]:
    best, least = (low, high), torch.inf
    centres = h.centres
    for shrink in torch.linspace(1.0, 1.0 / STEPS, STEPS).tolist():
        reach = max(-low, high) * shrink
        ends = max(low, -reach), min(high, reach)
        divergence = _divergence(h.counts, centres, *ends)
        if divergence < least:
            best, least = ends, divergence
    return best


def _divergence(counts: Tensor, centres: Tensor, low: float, high: float) -> float:
    inside = (centres >= low) & (centres <= high)
    kept = counts[inside].clone()
    if len(kept) < 2 or not float(kept.sum()):  # noqa: PLR2004
        return float("inf")
    kept[0] += counts[centres < low].sum()
    kept[-1] += counts[centres > high].sum()
    level = torch.div(torch.arange(len(kept)) * LEVELS, len(kept), rounding_mode="floor")
    filled = (counts[inside] > 0).double()
    total = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, level, counts[inside])
    cells = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, level, filled)
    even = (total / cells.clamp(min=1))[level] * filled
    p, q = kept / kept.sum(), even / even.sum().clamp(min=1e-30)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp(min=1e-12)).log()).sum())
