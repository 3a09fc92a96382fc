"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints; tests that need it skip where it is absent."""
    path = Path(os.environ.get("YQC_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"needs real checkpoints and data, and {path} is absent (set YQC_SHARED)")
    return path
