"""Check that what was read is a tree of moderate depth and size, made of expected kinds.

Opcodes that reuse a value can make a nesting of a million levels, a list that holds itself, or a
tuple of 2^60 parts when followed. After this check whoever walks the result may do so recursively.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from yqc.models.pickles.values import Inert, MalformedError, Named

MAX_DEPTH = 200
"""Levels of nesting: golden files have at most 31, Python's recursion ends near 1000."""
MAX_EXPANDED = 10_000_000
"""Values once shared parts are counted in every place; golden files have at most 47,119."""

_LEAVES = {
    type(None), bool, int, float, complex, str, bytes, bytearray,
    Tensor, nn.Parameter, np.ndarray, torch.dtype, Named,
}  # fmt: skip


def check_bounds(root: object) -> None:
    """Raise MalformedError unless `root` is a tree within MAX_DEPTH levels and MAX_EXPANDED values.

    A value that stands in several places counts in each. Iterative, so that no input overflows it.
    """
    measured: dict[int, tuple[int, int]] = {}
    entered: dict[int, tuple[int, list[object]]] = {}
    waiting = [root]
    while waiting:
        value = waiting[-1]
        key = id(value)
        if key in measured:
            waiting.pop()
        elif key in entered:
            waiting.pop()
            count, inner = entered.pop(key)
            measured[key] = _measure(count, [measured[id(part)] for part in inner])
        else:
            parts = _parts(value)
            inner = [part for part in parts if type(part) not in _LEAVES and part]
            new = [part for part in inner if id(part) not in measured]
            entered[key] = len(parts), inner
            if len(entered) > MAX_DEPTH:
                raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep")
            if any(id(part) in entered for part in new):
                raise MalformedError("it holds an object that contains itself")
            waiting.extend(new)


def _measure(count: int, inner: list[tuple[int, int]]) -> tuple[int, int]:
    """Return depth and expanded size of a value with `count` parts, by its inner containers'."""
    depth = 1 + max((deep for deep, _ in inner), default=0)
    expanded = 1 + count + sum(size for _, size in inner)
    if depth > MAX_DEPTH:
        raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep")
    if expanded > MAX_EXPANDED:
        raise MalformedError(f"it unfolds to more than {MAX_EXPANDED} values")
    return depth, expanded


def _parts(value: object) -> Collection[object]:
    """Return the values that a value directly holds; raise MalformedError if it is no data."""
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, Inert):
        return value.args, value.state, value.items
    if type(value) in _LEAVES:
        return ()
    raise MalformedError(f"it holds a bare {type(value).__name__.lower()}, which is no data")
