"""What tests of checkpoints share: a small YOLOv8, and a table of blocks that none has added to."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

import yqc.models.register as table


@pytest.fixture
def v8(checkpoints: ModuleType, specs: Mapping[str, Any]) -> Any:
    """A small YOLOv8 of random weights."""
    return checkpoints.make(specs["yolov8"])


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget blocks that are registered during a test."""
    monkeypatch.setattr(table, "_registered", {})
