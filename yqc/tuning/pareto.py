"""Points that no other one beats, and the best of them within a budget."""

from collections.abc import Sequence
from typing import Literal

from yqc.report.pareto import find_unbeaten
from yqc.settings import Budget
from yqc.tuning.trials import Outcome

Prefer = Literal["size", "speed"]


def find_front(points: Sequence[Outcome]) -> list[Outcome]:
    """Return the points that no other one beats, by size; of equal ones the first."""
    return [points[i] for i in find_unbeaten([one.values for one in points])]


def meets(point: Outcome, budget: Budget) -> bool:
    """Return whether a point keeps a budget."""
    return not budget.missed(loss=point.drop, size=point.bytes, ms=point.ms)


def excess(point: Outcome, budget: Budget) -> float:
    """Return by which factor a point is beyond the budget that it misses most; 0 within all."""
    sides = [
        (point.drop, None if budget.drop is None else budget.drop.value),
        (point.bytes, budget.size),
        (point.ms, budget.ms),
    ]
    over = [
        (float("inf") if value is None else value) / max(most, 1e-4) - 1
        for value, most in sides
        if most is not None
    ]
    return max(0.0, *over) if over else 0.0


def choose_best(points: Sequence[Outcome], budget: Budget, prefer: Prefer) -> Outcome | None:
    """Return the smallest point within a budget, or the fastest; of none the nearest.

    None without points.
    """
    if not points:
        return None

    def rank(one: Outcome) -> tuple[float, ...]:
        speed = float("inf") if one.ms is None else one.ms
        return (speed, one.bytes) if prefer == "speed" else (one.bytes, speed)

    within = [one for one in points if meets(one, budget)]
    return min(within, key=rank) if within else min(points, key=lambda one: excess(one, budget))


def thin_out(points: Sequence[Outcome], most: int, keep: Outcome | None) -> list[Outcome]:
    """Return at most so many points of a front, spread over their sizes, `keep` among them."""
    left = list(points)
    while len(left) > most:
        gaps = {
            i: left[i + 1].bytes / max(1, left[i - 1].bytes)
            for i in range(1, len(left) - 1)
            if left[i] != keep
        }
        del left[min(gaps, key=lambda i: gaps[i]) if gaps else -1]
    return left
