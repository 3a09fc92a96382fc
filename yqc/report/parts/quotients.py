"""Quotients and differences of figures that may be missing."""

import math


def ratio(before: float | None, after: float | None) -> float | None:
    """Return before / after, or None if one is missing or the quotient is no finite number."""
    if before is None or not after:
        return None
    quotient = before / after
    return quotient if math.isfinite(quotient) else None


def difference(before: float | None, after: float | None) -> float | None:
    """Return before - after, or None if one is missing or the result is no finite number."""
    if before is None or after is None:
        return None
    return before - after if math.isfinite(before - after) else None
