"""A Cholesky factor of covariances, with as much of a ridge as it takes."""

import pytest
import torch

from yqc.errors import PassError
from yqc.quant import cholesky_with_ridge

X = torch.randn(3, 5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_factor_of_a_regular_covariance_is_plain() -> None:
    h = X @ X.mT
    torch.testing.assert_close(cholesky_with_ridge(h), torch.linalg.cholesky(h))


def test_the_ridge_is_a_share_of_the_mean_variance() -> None:
    h = X[0] @ X[0].mT
    lower = cholesky_with_ridge(h, 0.1)
    added = (lower @ lower.T - h) / h.diagonal().mean()
    torch.testing.assert_close(added, 0.1 * torch.eye(5, dtype=torch.float64))


def test_a_matrix_without_a_factor_gets_a_ridge() -> None:
    few = X[:, :, :2].float()
    lower = cholesky_with_ridge(few @ few.mT)
    assert bool(lower.isfinite().all())
    assert float(lower.diagonal(dim1=1, dim2=2).min()) > 0
    assert float((lower @ lower.mT - few @ few.mT).abs().max()) < 0.01 * float(few.square().max())
    torch.testing.assert_close(
        cholesky_with_ridge(torch.zeros(2, 2)).diagonal(), torch.full((2,), 1e-8), atol=1e-8, rtol=1
    )


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(PassError, match="not finite"):
        cholesky_with_ridge(torch.full((2, 2), torch.nan))
