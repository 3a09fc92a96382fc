"""Cases that are left to `.ci/check slow`: more of a kind that other cases stand for."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(cases: Iterable[Any], *quick: Any) -> list[Any]:  # of any kind
    """Mark all cases as slow but a few; those are named by themselves, or by their first value.

    Raises:
        ValueError: one of the few is no case.
    """
    found, marked = set[Any](), list[Any]()
    for case in cases:
        name = case[0] if isinstance(case, tuple) else case
        is_quick = name in quick or case in quick
        found |= {name, case} if is_quick else set()
        values = case if isinstance(case, tuple) else (case,)
        marked.append(case if is_quick else pytest.param(*values, marks=pytest.mark.slow))
    if absent := {*quick} - found:
        raise ValueError(f"no case: {absent}")
    return marked
