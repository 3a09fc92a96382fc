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
CHECKS: dict[str, Callable[..., Any]] = {}
"""What a saved call's arguments must pass when it is loaded, by the function's name."""
MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {}
WHOLE: dict[str, Any] = {}
"""Module classes and functions of users that tracing does not look into, by their full names."""
_METHODS = (
    "add sub mul div pow exp neg sqrt sigmoid softmax relu clamp view reshape flatten "
    "unflatten permute transpose contiguous unsqueeze squeeze mean sum amax max min topk "
    "gather expand repeat chunk split to float int long type matmul bmm remainder floor size "
    "abs clone detach tanh silu argmax sort index_select masked_fill type_as expand_as t log "
    "reciprocal ceil round sign erf sin cos logical_not multiply maximum minimum eq lt le gt ge "
    "ne logical_and logical_or rsub floor_divide rsqrt square where clip clamp_min clamp_max "
    "double half bool cpu mm select narrow amin argmin argsort view_as reshape_as swapaxes "
    "broadcast_to tile tensor_split split_with_sizes unbind roll flip std var norm prod cumsum "
    "log_softmax hardshrink unfold group_norm addmm baddbmm"
)
METHODS = frozenset(_METHODS.split())

_OPERATOR = (
    "add sub mul truediv floordiv mod pow neg matmul getitem gt lt ge le eq ne and_ or_ invert abs"
)
_TORCH = (
    "add sub mul div pow exp neg sqrt sigmoid softmax relu tanh cat stack chunk split unsqueeze "
    "squeeze flatten unflatten reshape permute transpose matmul bmm mean sum amax max min topk "
    "gather where clamp abs zeros_like ones_like remainder floor_divide square log maximum minimum "
    "argmax reciprocal floor ceil round sign erf sin cos logical_not multiply eq ne lt le gt ge "
    "logical_and logical_or rsub true_divide rsqrt masked_fill clip clamp_min clamp_max detach "
    "clone mm einsum index_select select narrow conv1d conv3d conv_transpose1d conv_transpose2d "
    "amin argmin sort argsort swapaxes t broadcast_to tile concat tensor_split unbind roll flip "
    "std var norm prod cumsum log_softmax channel_shuffle adaptive_avg_pool1d avg_pool1d prelu "
    "selu celu addmm baddbmm conv_transpose3d rms_norm group_norm instance_norm batch_norm "
    "cosine_similarity layer_norm"
)
_FUNCTIONAL = (
    "silu relu relu6 leaky_relu hardswish hardsigmoid mish gelu elu sigmoid softmax max_pool2d "
    "avg_pool2d adaptive_avg_pool2d interpolate pad conv2d linear pixel_shuffle pixel_unshuffle "
    "layer_norm scaled_dot_product_attention dropout dropout1d dropout2d dropout3d tanh hardtanh "
    "softplus max_pool1d max_pool3d avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d adaptive_avg_pool3d batch_norm upsample group_norm instance_norm unfold "
    "fold grid_sample affine_grid normalize glu selu celu rrelu hardshrink softshrink tanhshrink "
    "softsign logsigmoid log_softmax softmin threshold local_response_norm lp_pool1d lp_pool2d "
    "embedding bilinear rms_norm cosine_similarity alpha_dropout feature_alpha_dropout"
)


def allow_function(
    name: str, function: Callable[..., Any], check: Callable[..., Any] | None = None
) -> None:
    """Let saved graphs hold calls of `function`, under `name`.

    `check` is called with the arguments of each call when a graph is loaded, the stored tensors in
    place of the nodes that read them; what it raises says that the file is damaged.
    """
    FUNCTIONS[name] = function
    if check is not None:
        CHECKS[name] = check


def allow_module(cls: type[nn.Module], *settings: str) -> None:
    """Let saved graphs hold modules of `cls`, remade from these constructor arguments.

    Each setting is an attribute of the module and a keyword of its constructor; the value must be
    a plain number, text, bool, None, or a tuple of these.
    """
    MODULES[cls.__name__] = (cls, settings)


def keep_whole(target: type | Callable[..., Any]) -> None:
    """Let tracing record calls of a function, or of modules of a class, as one node each."""
    WHOLE[f"{target.__module__}.{target.__qualname__}"] = target


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
