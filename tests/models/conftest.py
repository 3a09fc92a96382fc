"""Checkpoints of small random models, in the projects' own pickled form."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml


def _load_helper() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "yqc_test_checkpoints", Path(__file__).with_name("checkpoints.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checkpoints() -> ModuleType:
    """The helper that builds small detectors and writes them as checkpoint files."""
    return _load_helper()


@pytest.fixture(scope="session")
def specs() -> Mapping[str, Any]:
    """Small model YAMLs, one a family."""
    text = Path(__file__).with_name("specs.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found
