"""yqc: a compiler for YOLO detectors. Public names; each is imported when it is first asked for."""

import importlib

_HOME = {
    "BatchNorm": "yqc.graph.metadata",
    "Call": "yqc.graph",
    "Context": "yqc.passbase",
    "History": "yqc.graph.metadata",
    "LoadedModel": "yqc.models.load",
    "Pass": "yqc.passbase",
    "Pipeline": "yqc.pipeline",
    "Recipe": "yqc.passbase",
    "Registry": "yqc.registry",
    "Result": "yqc.compiler",
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

__version__ = "0.1.0"
__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604  # names of the table above


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'yqc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
