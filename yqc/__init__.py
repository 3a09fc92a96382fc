"""yqc: a compiler for YOLO detectors. Public names; each is imported when it is first asked for."""

import os

from yqc.version import __version__

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# onnxruntime reads it as it is imported, and writes an id of the device into the home otherwise.

TYPE_CHECKING = False
"""As `typing` has it, whose import takes ten times as long as the rest of this module: until
`yqc.__main__` runs, Ctrl-C ends in a traceback."""

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from yqc.comparing import Comparison, compare
    from yqc.compiler import Result, Session, compile  # noqa: A004  # it is what yqc does
    from yqc.emit import lowering
    from yqc.errors import (
        BudgetError,
        CheckpointError,
        DataError,
        EmitError,
        ForbiddenGlobalError,
        LoweringError,
        OutputError,
        PassError,
        PipelineError,
        TraceError,
        UnknownBlockError,
        UnsupportedTaskError,
        YqcError,
    )
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
    from yqc.interface import bench, diff, evaluate, explain, inspect, lint, sweep, tune
    from yqc.models.load import LoadedModel, load
    from yqc.models.register import register_block
    from yqc.models.trace import trace
    from yqc.pipeline.base import Context, Given, Pass, Recipe
    from yqc.pipeline.pipeline import Pipeline
    from yqc.pipeline.registry import Registry
    from yqc.pipeline.state import State
    from yqc.pipeline.step import Step, Watcher
    from yqc.pruning import ScoredLayer, register_criterion
    from yqc.quant import register_observer, register_range, register_scheme
    from yqc.report import Report
    from yqc.settings import Budget, SettingError, Settings
    from yqc.targets import Target, find_target, register_target

__all__ = [
    "BatchNorm",
    "Budget",
    "BudgetError",
    "Call",
    "CheckpointError",
    "Comparison",
    "Context",
    "DataError",
    "EmitError",
    "ForbiddenGlobalError",
    "Given",
    "LoadedModel",
    "LoweringError",
    "Mark",
    "OutputError",
    "Pass",
    "PassError",
    "Pipeline",
    "PipelineError",
    "Recipe",
    "Registry",
    "Report",
    "Result",
    "ScoredLayer",
    "Session",
    "SettingError",
    "Settings",
    "State",
    "Step",
    "Target",
    "TensorSpec",
    "TraceError",
    "UnknownBlockError",
    "UnsupportedTaskError",
    "Watcher",
    "YqcError",
    "__version__",
    "assign_roles",
    "bench",
    "call",
    "callers",
    "calls",
    "chains",
    "compare",
    "compile",
    "diff",
    "evaluate",
    "explain",
    "find_target",
    "has_effect",
    "inspect",
    "is_function",
    "lint",
    "load",
    "lowering",
    "register_block",
    "register_criterion",
    "register_observer",
    "register_range",
    "register_scheme",
    "register_target",
    "role",
    "shape",
    "sweep",
    "text",
    "trace",
    "tune",
]

_HOME = {
    "BatchNorm": "yqc.graph.metadata",
    "Budget": "yqc.settings",
    "BudgetError": "yqc.errors",
    "Call": "yqc.graph",
    "CheckpointError": "yqc.errors",
    "Comparison": "yqc.comparing",
    "Context": "yqc.pipeline.base",
    "DataError": "yqc.errors",
    "EmitError": "yqc.errors",
    "ForbiddenGlobalError": "yqc.errors",
    "Given": "yqc.pipeline.base",
    "LoadedModel": "yqc.models.load",
    "LoweringError": "yqc.errors",
    "Mark": "yqc.graph.metadata",
    "OutputError": "yqc.errors",
    "Pass": "yqc.pipeline.base",
    "PassError": "yqc.errors",
    "Pipeline": "yqc.pipeline.pipeline",
    "PipelineError": "yqc.errors",
    "Recipe": "yqc.pipeline.base",
    "Registry": "yqc.pipeline.registry",
    "Report": "yqc.report",
    "Result": "yqc.compiler",
    "ScoredLayer": "yqc.pruning",
    "Session": "yqc.compiler",
    "SettingError": "yqc.settings",
    "Settings": "yqc.settings",
    "State": "yqc.pipeline.state",
    "Step": "yqc.pipeline.step",
    "Target": "yqc.targets",
    "TensorSpec": "yqc.graph",
    "TraceError": "yqc.errors",
    "UnknownBlockError": "yqc.errors",
    "UnsupportedTaskError": "yqc.errors",
    "Watcher": "yqc.pipeline.step",
    "YqcError": "yqc.errors",
    "assign_roles": "yqc.graph",
    "bench": "yqc.interface",
    "call": "yqc.graph",
    "callers": "yqc.graph",
    "calls": "yqc.graph",
    "chains": "yqc.graph",
    "compare": "yqc.comparing",
    "compile": "yqc.compiler",
    "diff": "yqc.interface",
    "evaluate": "yqc.interface",
    "explain": "yqc.interface",
    "find_target": "yqc.targets",
    "has_effect": "yqc.graph",
    "inspect": "yqc.interface",
    "is_function": "yqc.graph",
    "lint": "yqc.interface",
    "load": "yqc.models.load",
    "lowering": "yqc.emit",
    "register_block": "yqc.models.register",
    "register_criterion": "yqc.pruning",
    "register_observer": "yqc.quant",
    "register_range": "yqc.quant",
    "register_scheme": "yqc.quant",
    "register_target": "yqc.targets",
    "role": "yqc.graph",
    "shape": "yqc.graph",
    "sweep": "yqc.interface",
    "text": "yqc.graph",
    "trace": "yqc.models.trace",
    "tune": "yqc.interface",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'yqc' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # see TYPE_CHECKING

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
