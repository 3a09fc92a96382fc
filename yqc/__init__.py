"""yqc: a compiler for YOLO detectors. Public names; each is imported when it is first asked for."""

import importlib
import os
from typing import TYPE_CHECKING

from yqc.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# onnxruntime reads it as it is imported, and writes an id of the device into the home otherwise.

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from yqc.compiler import Result, compile  # noqa: A004  # it is what yqc does
    from yqc.emit import lowering
    from yqc.errors import YqcError
    from yqc.graph import (
        Call,
        TensorSpec,
        assign_roles,
        call,
        callers,
        calls,
        chains,
        has_effect,
        is_function,
        role,
        shape,
        text,
    )
    from yqc.graph.metadata import BatchNorm, Mark
    from yqc.models.load import LoadedModel, load
    from yqc.models.register import register_block
    from yqc.models.trace import trace
    from yqc.pipeline.base import Context, Given, Pass, Recipe
    from yqc.pipeline.pipeline import Pipeline
    from yqc.pipeline.registry import Registry
    from yqc.pipeline.state import State
    from yqc.pipeline.step import Watcher
    from yqc.settings import Settings

__all__ = [
    "BatchNorm",
    "Call",
    "Context",
    "Given",
    "LoadedModel",
    "Mark",
    "Pass",
    "Pipeline",
    "Recipe",
    "Registry",
    "Result",
    "Settings",
    "State",
    "TensorSpec",
    "Watcher",
    "YqcError",
    "__version__",
    "assign_roles",
    "call",
    "callers",
    "calls",
    "chains",
    "compile",
    "has_effect",
    "is_function",
    "load",
    "lowering",
    "register_block",
    "role",
    "shape",
    "text",
    "trace",
]

_HOME = {
    "BatchNorm": "yqc.graph.metadata",
    "Call": "yqc.graph",
    "Context": "yqc.pipeline.base",
    "Given": "yqc.pipeline.base",
    "LoadedModel": "yqc.models.load",
    "Mark": "yqc.graph.metadata",
    "Pass": "yqc.pipeline.base",
    "Pipeline": "yqc.pipeline.pipeline",
    "Recipe": "yqc.pipeline.base",
    "Registry": "yqc.pipeline.registry",
    "Result": "yqc.compiler",
    "Settings": "yqc.settings",
    "State": "yqc.pipeline.state",
    "TensorSpec": "yqc.graph",
    "Watcher": "yqc.pipeline.step",
    "YqcError": "yqc.errors",
    "assign_roles": "yqc.graph",
    "call": "yqc.graph",
    "callers": "yqc.graph",
    "calls": "yqc.graph",
    "chains": "yqc.graph",
    "compile": "yqc.compiler",
    "has_effect": "yqc.graph",
    "is_function": "yqc.graph",
    "load": "yqc.models.load",
    "lowering": "yqc.emit",
    "register_block": "yqc.models.register",
    "role": "yqc.graph",
    "shape": "yqc.graph",
    "text": "yqc.graph",
    "trace": "yqc.models.trace",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'yqc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
