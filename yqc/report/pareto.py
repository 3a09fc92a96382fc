"""Points that no other one beats in any of several values."""

from collections.abc import Sequence


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether the first is nowhere larger, and somewhere smaller."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def find_unbeaten(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the positions of points that no other one dominates, by their values.

    Of equal points the first counts. In the order of the values a point comes behind all that
    dominate it, so each is compared with those kept so far.
    """
    kept: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (tuple(points[i]), i)):
        here = points[i]
        if not any(dominates(points[k], here) or points[k] == here for k in kept):
            kept.append(i)
    return kept
