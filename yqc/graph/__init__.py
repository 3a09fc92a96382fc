"""The questions that passes ask of an fx graph. Knows nothing of models, ONNX or passes."""

from yqc.graph.calls import Call, call, callers, calls, chains, is_function
from yqc.graph.edit import has_effect
from yqc.graph.roles import assign_roles, role
from yqc.graph.text import text
from yqc.graph.values import TensorSpec, propagate, shape, spec

__all__ = [
    "Call",
    "TensorSpec",
    "assign_roles",
    "call",
    "callers",
    "calls",
    "chains",
    "has_effect",
    "is_function",
    "propagate",
    "role",
    "shape",
    "spec",
    "text",
]
