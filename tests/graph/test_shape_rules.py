"""What is foreseen of operations is what torch computes, and nothing where torch refuses."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from yqc.graph.shape_rules import ATEN, RULES, infer_in_place, infer_unary

LENGTHS = st.integers(1, 9)
SHAPES = st.lists(st.integers(1, 3), min_size=0, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool])
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2))


def check(operation: object, *args: object) -> bool:
    """Compare a rule with torch itself; return whether it told anything."""
    found = RULES[operation](*args)
    if found is None:
        return False
    made: Any = operation(*args)  # type: ignore[operator]  # raises where it must not be foreseen
    sides = [(one,) if isinstance(one, Tensor) else one for one in (found, made)]
    for told, real in zip(*sides, strict=True):
        assert told.is_meta
        assert (told.shape, told.dtype) == (real.shape, real.dtype)
    return True


def fits(operation: object, *args: object) -> bool:
    """Tell whether torch computes it."""
    try:
        operation(*args)  # type: ignore[operator]
    except (RuntimeError, IndexError):
        return False
    return True


@given(
    channels=st.tuples(
        st.sampled_from([3, 4, 6]), st.sampled_from([2, 3, 6]), st.sampled_from([1, 3])
    ),
    kernel=PAIR,
    stride=PAIR,
    padding=PADDING,
    dilation=PAIR,
    size=st.tuples(LENGTHS, LENGTHS),
    bias=st.sampled_from([None, 2, 3]),
)
def test_convolutions(
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    bias: int | None,
) -> None:
    given, made, groups = channels
    weight = torch.zeros(made, 3 // groups, *kernel)
    offset = None if bias is None else torch.zeros(bias)
    rest = (weight, offset, list(stride), list(padding), list(dilation), False, [0, 0], groups)
    args = (torch.zeros(2, given, *size), *rest)
    assert check(ATEN.convolution.default, *args) == fits(ATEN.convolution.default, *args)


def test_one_number_stands_for_both_sides_of_a_plane() -> None:
    x, weight = torch.zeros(1, 3, 9, 8), torch.zeros(2, 3, 3, 2)
    assert check(ATEN.convolution.default, x, weight, None, [2], [1], [1], False, [0], 1)


@given(
    shape=st.lists(LENGTHS, min_size=3, max_size=4).map(tuple),
    kernel=PAIR,
    stride=st.one_of(PAIR.map(list), st.just([])),
    padding=PADDING,
    dilation=PAIR,
)
def test_poolings(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: list[int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    x, pads = torch.zeros(shape), list(padding)
    most, mean = ATEN.max_pool2d_with_indices.default, ATEN.avg_pool2d.default
    args = (x, list(kernel), stride, pads, list(dilation))
    allowed = check(most, *args)
    assert allowed == (len(shape) == 4 and fits(most, *args))
    assert check(mean, x, list(kernel), stride, pads) <= fits(mean, x, list(kernel), stride, pads)
    assert not check(most, *args, True)
    assert not check(mean, x, list(kernel), stride, pads, True)


@given(a=SHAPES, b=SHAPES, dtypes=st.tuples(DTYPES, DTYPES), number=st.sampled_from([2, 0.5, None]))
def test_what_works_on_two(
    a: tuple[int, ...],
    b: tuple[int, ...],
    dtypes: tuple[torch.dtype, torch.dtype],
    number: float | None,
) -> None:
    x, y = (torch.ones(s, dtype=d) for s, d in zip((a, b), dtypes, strict=True))
    both = all(d.is_floating_point for d in dtypes) and len(set(dtypes)) == 1
    for operation in (ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor):
        assert check(operation, x, y) == (both and fits(operation, x, y))
    if number is not None:
        assert check(ATEN.pow.Tensor_Scalar, x, number) == dtypes[0].is_floating_point
        allowed = check(ATEN.remainder.Scalar, x, number)
        assert allowed == (dtypes[0] == torch.int64 and number == 2)
    assert check(ATEN.floor_divide.default, x, torch.tensor(2)) == (dtypes[0] == torch.int64)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=3),
    dim=st.integers(-3, 3),
    odd=st.booleans(),
)
def test_concatenations(shapes: list[tuple[int, int]], dim: int, odd: bool) -> None:
    parts = [torch.zeros(s) for s in shapes]
    assert check(ATEN.cat.default, parts, dim) == fits(ATEN.cat.default, parts, dim)
    if odd:
        assert not check(ATEN.cat.default, [*parts, parts[0].long()], dim)
        assert not check(ATEN.cat.default, [*parts, torch.zeros(1, 1, 1)], dim)


@given(shape=SHAPES, dims=st.lists(st.integers(-4, 4), max_size=2, unique=True), keep=st.booleans())
def test_reductions_and_softmax(shape: tuple[int, ...], dims: list[int], keep: bool) -> None:
    x, most = torch.zeros(shape), ATEN.amax.default
    if len({d % max(1, len(shape)) for d in dims}) == len(dims):
        assert check(most, x, dims, keep) <= fits(most, x, dims, keep)
    soft = ATEN._softmax.default
    for dim in dims:
        assert check(soft, x, dim, False) <= fits(soft, x, dim, False)
    assert not check(soft, torch.zeros(2, dtype=torch.float16), 0, True)


@given(a=st.tuples(*[st.integers(1, 2)] * 3), b=st.tuples(*[st.integers(1, 2)] * 3))
def test_matrices(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    x, y = torch.zeros(a), torch.zeros(b)
    assert check(ATEN.bmm.default, x, y) == fits(ATEN.bmm.default, x, y)


@pytest.mark.parametrize("operation", [o for o, rule in RULES.items() if rule is infer_unary])
def test_what_works_element_by_element(operation: object) -> None:
    assert check(operation, torch.rand(2, 3))
    assert check(operation, torch.rand(2, 3).double())
    assert not check(operation, torch.ones(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("operation", [o for o, rule in RULES.items() if rule is infer_in_place])
def test_what_writes_into_a_tensor_gives_that_tensor(operation: object) -> None:
    x = torch.empty(2, 3, device="meta")
    assert RULES[operation](x) is x
    assert check(operation, torch.rand(2, 3))
    assert RULES[operation](x.long()) is None


def test_batch_norms() -> None:
    x, c = torch.rand(2, 3, 4, 4), [torch.rand(3) for _ in range(4)]
    assert check(ATEN.native_batch_norm.default, x, *c, False, 0.1, 1e-5)
    assert not check(ATEN.native_batch_norm.default, x[:, :2], *c, False, 0.1, 1e-5)
    assert check(ATEN._native_batch_norm_legit_no_training.default, x, *c, 0.1, 1e-5)


def test_upsampling() -> None:
    enlarge = ATEN.upsample_nearest2d.default
    assert check(enlarge, torch.rand(1, 2, 3, 4), [6, 8], 2.0, 2.0)
    assert not check(enlarge, torch.rand(2, 3, 4), [6, 8])
