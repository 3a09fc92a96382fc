"""The Cholesky factor of a covariance with a ridge."""

import torch
from torch import Tensor

from yqc.errors import PassError

FIRST_RIDGE = 1e-4
"""Ridge to try after none: about what float32 loses in a layer of a thousand columns (1e-7 times
1000), so one step suffices as a rule. A larger one weakens correlations that the data shows, a
smaller one takes more attempts."""


def next_ridge(ridge: float) -> float:
    """Return the ridge to try after one that left a matrix without a factor: ten times as much."""
    return max(10 * ridge, FIRST_RIDGE)


def cholesky_with_ridge(matrix: Tensor, ridge: float = 0.0) -> Tensor:
    """Return the lower Cholesky factor of a covariance [..., N, N] with a ridge on its diagonal.

    The ridge is a share of the mean variance that is added to every variance; it grows tenfold
    while rounding leaves a matrix without a factor.

    Raises:
        PassError: the matrix holds values that are not finite.
    """
    if not matrix.isfinite().all():
        raise PassError(
            "the graph computes values that are not finite; the checkpoint is damaged, or its "
            "training diverged"
        )
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True).clamp_min(0) + 1e-12
    while True:
        regular = matrix + torch.diag_embed((ridge * mean).expand_as(diagonal)) if ridge else matrix
        found: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(regular)
        if not found[1].any():
            return found[0]
        ridge = next_ridge(ridge)
