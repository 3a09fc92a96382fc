"""The questions that passes ask of an fx graph. Knows nothing of models, ONNX or passes."""

import importlib
from typing import TYPE_CHECKING

from yqc.graph.calls import Call, call, callers, calls, chains, is_function
from yqc.graph.edit import has_effect
from yqc.graph.history import Event, history
from yqc.graph.roles import assign_roles, role
from yqc.graph.text import text
from yqc.graph.values import TensorSpec, propagate, shape, spec

if TYPE_CHECKING:  # networkx takes long to import, and few passes ask for channels
    from yqc.graph.channels.groups import channel_groups

__all__ = [
    "Call",
    "Event",
    "TensorSpec",
    "assign_roles",
    "call",
    "callers",
    "calls",
    "chains",
    "channel_groups",
    "has_effect",
    "history",
    "is_function",
    "propagate",
    "role",
    "shape",
    "spec",
    "text",
]


def __getattr__(name: str) -> object:
    if name != "channel_groups":
        raise AttributeError(f"module 'yqc.graph' has no attribute {name!r}")
    return importlib.import_module("yqc.graph.channels.groups").channel_groups
