"""Choose the channels to remove: a given share, or the most that keeps the agreement."""

from dataclasses import dataclass, replace

import numpy as np

from yqc.pruning.trials import PruningTask, Trial
from yqc.pruning.without_data import score_by_variance

TRIALS = 6
"""Largest number of trials of a search. Bisection halves the interval with each: six leave a 60th
of it; half as many leave an eighth, and twice as many stop early (`CLOSE`)."""
FIRST = 0.4
"""Share that is tried first. Where the largest share is near half or double of it, the search takes
about one more trial."""
CLOSE = 0.02
"""A search ends when two shares differ by less: the agreement on 32 images does not separate them.
Half of it takes one more trial; double may leave 4 % of the parameters unremoved."""
DRIFT = 4 / 3
"""Largest distance of the head from the original per unit of agreement that may be lost. AP at IoU
0.5 does not see boxes that drift within it. Half of it prunes less than the agreement allows;
double lets mAP at higher IoU fall."""
FREE_SHARE = 0.02
"""Without data, the removed channels of a group may carry this share of a consumer's variance. The
noise that it adds is 17 dB below the signal; half of it (20 dB) removes less, double (14 dB) does
damage that nothing measures."""


@dataclass(frozen=True)
class PruningChoice:
    """A chosen trial and how it was chosen."""

    trial: Trial | None
    """None if nothing is removed."""
    criterion: str
    """The saliency that was used; `variance` where there is no data and no ratio."""
    agreement: float | None = None
    """Of the trial, before any training; None where it cannot be measured."""
    ratio: float | None = None
    """The option that gives this trial again; None where no ratio does."""


def choose_channels(task: PruningTask) -> PruningChoice:
    """Choose the channels to remove and the criterion by the task's options.

    Raises:
        PassError: the ratio is impossible.
    """
    ratio, criterion = task.options.ratio, task.options.criterion
    if ratio is not None:
        criterion = task.best_criterion(ratio) if criterion == "auto" else criterion
        trial = task.try_removal(task.select(criterion, ratio))
        return PruningChoice(trial, criterion, task.measure_agreement(trial), ratio)
    if task.ctx.calibration is None:
        return choose_nearly_free(task)
    criterion = task.best_criterion(FIRST) if criterion == "auto" else criterion
    return search_largest_share(task, criterion)


def search_largest_share(task: PruningTask, criterion: str) -> PruningChoice:
    """Search for the largest share whose agreement with the float model stays above a threshold.

    The outputs of the head must stay close as well. The share is found by bisection, from a few
    trials; progress is shown.
    """
    wanted, unit, progress = task.options.agreement, task.options.of, task.ctx.progress
    low, high, share = 0.0, task.largest_share(), FIRST
    found = PruningChoice(None, criterion)
    if high == 0:
        return found
    with progress.task("choosing how much to prune", TRIALS) as advance:
        for left in range(TRIALS, 0, -1):
            share = min(share, high)
            trial = task.try_removal(task.select_nearest(criterion, share))
            far = trial.error is not None and trial.error > DRIFT * (1 - wanted)
            reached = 0.0 if far else task.measure_agreement(trial) or 0.0
            result = "the head drifts too far" if far else f"the agreement is {reached:.3f}"
            progress.note(f"prune: without {trial.removed:.1%} of {unit} {result}")
            advance(1)
            if reached >= wanted:
                low, found = share, PruningChoice(trial, criterion, reached, share)
            else:
                high = share
            if high - low < CLOSE:
                advance(left - 1)
                break
            share = (low + high) / 2
    return found


def choose_nearly_free(task: PruningTask) -> PruningChoice:
    """Choose the channels that weights and batch norms show to be nearly free (`FREE_SHARE`)."""
    saliency = score_by_variance(task.gm, task.channels)
    keep = np.ones(task.channels.count, dtype=np.bool_)
    limits = replace(task.options.limits, round_to=1)
    for block in task.channels.blocks:
        if block.pin:
            continue
        own = np.arange(block.first, block.first + block.count)
        order = own[np.argsort(saliency[own], kind="stable")]
        fits = int((np.cumsum(saliency[order]) <= FREE_SHARE).sum())
        keep[order[: min(fits, limits.most(block.count))]] = False
    if keep.all():
        return PruningChoice(None, "variance")
    return PruningChoice(task.try_removal(keep), "variance")
