"""Names of the functions, methods and modules that a saved graph may hold.

A file that names anything else is refused. Passes that add operations of their own make them known
with `allow_function` and `allow_module`.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.errors import CheckpointError, OutputError
from yqc.graph.torch_layers import TORCH_LAYERS, takes_device

FUNCTIONS: dict[str, Callable[..., Any]] = {}
MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {}
_METHODS = (
    "add sub mul div pow exp neg sqrt sigmoid softmax relu clamp view reshape flatten "
    "unflatten permute transpose contiguous unsqueeze squeeze mean sum amax max min topk "
    "gather expand repeat chunk split to float int long type matmul bmm remainder floor size "
    "abs clone detach tanh silu argmax sort index_select masked_fill type_as expand_as t"
)
METHODS = frozenset(_METHODS.split())

_OPERATOR = "add sub mul truediv floordiv mod pow neg matmul getitem gt lt ge le eq and_ or_ invert"
_TORCH = (
    "add sub mul div pow exp neg sqrt sigmoid softmax relu tanh cat stack chunk split unsqueeze "
    "squeeze flatten unflatten reshape permute transpose matmul bmm mean sum amax max min topk "
    "gather where clamp abs zeros_like ones_like remainder floor_divide square log maximum minimum "
    "argmax"
)
_FUNCTIONAL = (
    "silu relu relu6 leaky_relu hardswish hardsigmoid mish gelu elu sigmoid softmax max_pool2d "
    "avg_pool2d adaptive_avg_pool2d interpolate pad conv2d linear pixel_shuffle pixel_unshuffle "
    "layer_norm scaled_dot_product_attention"
)


def allow_function(name: str, function: Callable[..., Any]) -> None:
    """Let saved graphs hold calls of `function`, under `name`."""
    FUNCTIONS[name] = function


def allow_module(cls: type[nn.Module], *settings: str) -> None:
    """Let saved graphs hold modules of `cls`, remade from these constructor arguments.

    Each setting is an attribute of the module and a keyword of its constructor; the value must be
    a plain number, text, bool, None, or a tuple of these.
    """
    MODULES[cls.__name__] = (cls, settings)


def function_name(function: object) -> str | None:
    """Return the name that saved graphs use for a function, or None if it has none."""
    return next((n for n, f in FUNCTIONS.items() if f is function or f == function), None)


def find_callable(op: str, name: str) -> Any:  # noqa: ANN401  # what fx takes
    """Return the fx target that a saved node names.

    Raises:
        CheckpointError: the name is not in the tables.
    """
    if op == "call_function":
        if name not in FUNCTIONS:
            raise CheckpointError(f"the graph calls {name!r}, which is not an allowed function")
        return FUNCTIONS[name]
    if op == "call_method" and name not in METHODS:
        raise CheckpointError(f"the graph calls {name!r}, which is not an allowed method")
    if op not in {"placeholder", "get_attr", "call_module", "call_method", "output"}:
        raise CheckpointError(f"the graph holds {op!r}, which is no kind of node")
    return name


def describe_module(module: nn.Module) -> dict[str, Any]:
    """Describe a module by its class and constructor arguments."""
    cls, settings = MODULES.get(type(module).__name__, (None, ()))
    if cls is not type(module):
        raise OutputError(
            f"cannot save the graph: it calls a {type(module).__name__}, which is "
            "not in yqc.graph.optable; add it with optable.allow_module"
        )
    values = {s: getattr(module, s) for s in settings if s != "bias"}
    if "bias" in settings:
        bias: object = module.bias
        values["bias"] = isinstance(bias, Tensor) or bias is True
    return {"type": cls.__name__, "settings": {k: _plain(v) for k, v in values.items()}}


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value


def make_module(description: dict[str, Any]) -> nn.Module:
    """Make a module from its description, without initialising its tensors.

    Raises:
        CheckpointError: the class or one of its settings is not in the tables.
    """
    name, settings = description["type"], description["settings"]
    if name not in MODULES:
        raise CheckpointError(f"the graph calls {name!r}, which is not an allowed module")
    cls, allowed = MODULES[name]
    unknown = set(settings) - set(allowed)
    if unknown:
        raise CheckpointError(f"{name} has no setting {min(unknown)!r}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    if takes_device(cls):
        values["device"] = "meta"
    return cls(**values)


def _register() -> None:
    for prefix, module, names in (
        ("operator", operator, _OPERATOR),
        ("torch", torch, _TORCH),
        ("functional", F, _FUNCTIONAL),
    ):
        for name in names.split():
            allow_function(f"{prefix}.{name}", getattr(module, name))
    for cls, settings in TORCH_LAYERS.items():
        allow_module(cls, *settings)


_register()
