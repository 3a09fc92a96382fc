"""spread: a criterion of pruning, for `prune{criterion=spread}`."""

from torch import Tensor

import yqc


@yqc.register_criterion("spread")
def spread(layer: yqc.ScoredLayer) -> Tensor:
    """Score each channel by the deviation of its weights: constant filters go first."""
    return layer.rows.std(1)
