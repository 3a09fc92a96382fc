"""How much goes where nobody says: the most that keeps the agreement, or what is nearly free."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from yqc.pruning.trials import Criterion, Job, Trial
from yqc.pruning.without_data import lost

TRIALS = 6
FIRST = 0.4
DRIFT = 4 / 3
"""How far the head may be from the original, a unit of agreement that may be lost: AP at IoU 0.5
does not see boxes that drift."""
FREE = 0.02
"""Without data, the channels of a group that go may take this share of a consumer's variance."""


@dataclass(frozen=True)
class Choice:
    """What was decided."""

    trial: Trial | None
    """None if nothing goes."""
    criterion: Criterion | Literal["variance"]
    """What scored; the variance that goes with a channel is for want of data."""
    agreement: float | None = None
    """Of the trial, before any recovery; None where nobody can tell."""
    ratio: float | None = None
    """What was asked for to get there; None where no ratio leads there."""


def most(job: Job, criterion: Criterion, wanted: float) -> Choice:
    """Find the most that may go while the agreement with the float model stays at `wanted`.

    The head's outputs must stay close as well. The share is found by bisection, from a few trials;
    progress is shown.

    Args:
        job: tries what goes.
        criterion: what scores.
        wanted: agreement, 0..1.
    """
    low, high, share = 0.0, job.highest(), FIRST
    found = Choice(None, criterion)
    if high == 0:
        return found
    with job.ctx.progress.task("choosing how much to prune", TRIALS) as advance:
        for left in range(TRIALS, 0, -1):
            share = min(share, high)
            trial = job.trial(job.nearest(criterion, share))
            far = trial.error is not None and trial.error > DRIFT * (1 - wanted)
            reached = 0.0 if far else job.agreement(trial) or 0.0
            told = "the head drifts too far" if far else f"the agreement is {reached:.3f}"
            job.ctx.progress.note(f"prune: without {trial.removed:.1%} of {job.wishes.of} {told}")
            advance(1)
            if reached >= wanted:
                low, found = share, Choice(trial, criterion, reached, share)
            else:
                high = share
            if high - low < 0.02:  # noqa: PLR2004  # closer than the measure can tell
                advance(left - 1)
                break
            share = (low + high) / 2
    return found


def nearly_free(job: Job) -> Choice:
    """Take what weights and batch norms show to be nearly free."""
    scores = lost(job.gm, job.channels)
    keep = np.ones(job.channels.count, dtype=np.bool_)
    limits = replace(job.wishes.limits, round_to=1)
    for block in job.channels.blocks:
        if block.pin:
            continue
        own = np.arange(block.first, block.first + block.count)
        order = own[np.argsort(scores[own], kind="stable")]
        fits = int((np.cumsum(scores[order]) <= FREE).sum())
        keep[order[: min(fits, limits.most(block.count))]] = False
    if keep.all():
        return Choice(None, "variance")
    return Choice(job.trial(keep), "variance")
