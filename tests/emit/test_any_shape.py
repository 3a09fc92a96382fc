"""Cutting, slicing and reshaping of any shape: hypothesis looks for one that goes wrong."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import onnx
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

Agrees: TypeAlias = Callable[..., onnx.ModelProto]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

some = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4)


def numbers(shape: list[int]) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


@st.composite
def sliced(draw: Draw) -> tuple[list[int], tuple[object, ...]]:
    """Draw a shape and an index that leaves something of it."""
    shape = draw(SHAPES)
    index: list[object] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        if draw(st.booleans()):
            index.append(draw(st.integers(-size, size - 1)))
            continue
        start = draw(st.none() | st.integers(-size, size - 1))
        first = 0 if start is None else start % size
        stop = draw(st.none() | st.integers(first + 1, size + 3))
        index.append(slice(start, stop, draw(st.none() | st.integers(1, 3))))
    for _ in range(draw(st.integers(0, 2))):
        index.insert(draw(st.integers(0, len(index))), None)
    if draw(st.booleans()):
        index.insert(draw(st.integers(0, len(index))), ...)
    return shape, tuple(index)


@some
@given(sliced())
def test_indexing(agrees: Agrees, case: tuple[list[int], tuple[object, ...]]) -> None:
    shape, index = case
    agrees(lambda x: x[index] + 1, numbers(shape))


@some
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(-2, 1))
def test_split_into_uneven_parts(agrees: Agrees, parts: list[int], dim: int) -> None:
    shape = [3, 3]
    shape[dim] = sum(parts)
    agrees(lambda x: [part * 2 for part in x.split(parts, dim)], numbers(shape))


@some
@given(st.integers(1, 17), st.integers(1, 9), st.booleans())
def test_split_and_chunk(agrees: Agrees, size: int, count: int, whole: bool) -> None:
    cut = torch.chunk if whole else torch.split
    agrees(lambda x: [part * 2 for part in cut(x, count, 1)], numbers([2, size, 3]))


@st.composite
def reshaped(draw: Draw) -> tuple[list[int], list[int]]:
    """Draw a shape and another with as many elements, perhaps with one size to infer."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5))
    ways = [
        [math.prod(factors[a:b]) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
        for cuts in (
            sorted(draw(st.lists(st.integers(0, len(factors)), max_size=3))) for _ in range(2)
        )
    ]
    if draw(st.booleans()):
        ways[1][draw(st.integers(0, len(ways[1]) - 1))] = -1
    return ways[0], ways[1]


@some
@given(reshaped())
def test_reshape(agrees: Agrees, case: tuple[list[int], list[int]]) -> None:
    before, after = case
    agrees(lambda x: x.reshape(after) + 1, numbers(before))


@some
@given(reshaped())
def test_reshape_behind_the_batch_takes_any_batch(
    agrees: Agrees, case: tuple[list[int], list[int]]
) -> None:
    before, after = case
    rest = [math.prod(before) // -math.prod(after) if n == -1 else n for n in after]
    agrees(lambda x: x.reshape(-1, *rest) + 1, numbers([1, *before]), dynamic=True)


@st.composite
def pooled(draw: Draw) -> tuple[int, torch.nn.MaxPool2d]:
    """Draw a side and a pool whose window, spread by its dilation, fits into it."""
    kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, kernel // 2))
    reach = dilation * (kernel - 1) + 1
    size = draw(st.integers(max(3, reach - 2 * padding), 12))
    pool = torch.nn.MaxPool2d(
        kernel, draw(st.integers(1, 4)), padding, dilation, ceil_mode=draw(st.booleans())
    )
    return size, pool


@some
@given(pooled())
def test_max_pool(agrees: Agrees, case: tuple[int, torch.nn.MaxPool2d]) -> None:
    size, pool = case
    agrees(torch.nn.Sequential(pool), -1 - numbers([1, 2, size, size + 1]))
