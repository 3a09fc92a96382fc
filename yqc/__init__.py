"""yqc: a compiler for YOLO detectors. Public names; each is imported when it is first asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from yqc.compiler import Result as Result
    from yqc.compiler import compile as compile  # noqa: A004  # it is what yqc does
    from yqc.emit import lowering as lowering
    from yqc.errors import YqcError as YqcError
    from yqc.graph import (
        Call as Call,
    )
    from yqc.graph import (
        TensorSpec as TensorSpec,
    )
    from yqc.graph import (
        assign_roles as assign_roles,
    )
    from yqc.graph import (
        call as call,
    )
    from yqc.graph import (
        callers as callers,
    )
    from yqc.graph import (
        calls as calls,
    )
    from yqc.graph import (
        chains as chains,
    )
    from yqc.graph import (
        is_function as is_function,
    )
    from yqc.graph import (
        role as role,
    )
    from yqc.graph import (
        shape as shape,
    )
    from yqc.graph import (
        text as text,
    )
    from yqc.graph.metadata import BatchNorm as BatchNorm
    from yqc.models.load import LoadedModel as LoadedModel
    from yqc.models.load import load as load
    from yqc.models.register import register_block as register_block
    from yqc.models.trace import trace as trace
    from yqc.passbase import Context as Context
    from yqc.passbase import Pass as Pass
    from yqc.passbase import Recipe as Recipe
    from yqc.pipeline import Pipeline as Pipeline
    from yqc.registry import Registry as Registry
    from yqc.watch import Watcher as Watcher

__version__ = "0.1.0"
__all__ = [
    "BatchNorm",
    "Call",
    "Context",
    "LoadedModel",
    "Pass",
    "Pipeline",
    "Recipe",
    "Registry",
    "Result",
    "Settings",
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
    "Context": "yqc.passbase",
    "LoadedModel": "yqc.models.load",
    "Pass": "yqc.passbase",
    "Pipeline": "yqc.pipeline",
    "Recipe": "yqc.passbase",
    "Registry": "yqc.registry",
    "Result": "yqc.compiler",
    "Settings": "yqc.recipe",
    "TensorSpec": "yqc.graph",
    "Watcher": "yqc.watch",
    "YqcError": "yqc.errors",
    "assign_roles": "yqc.graph",
    "call": "yqc.graph",
    "callers": "yqc.graph",
    "calls": "yqc.graph",
    "chains": "yqc.graph",
    "compile": "yqc.compiler",
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
