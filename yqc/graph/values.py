"""What every node computes: shape and dtype, kept in `node.meta["yqc.value"]`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.fx.experimental.symbolic_shapes  # what fake tensors import when first used
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_arg

from yqc.errors import TraceError

KEY = "yqc.value"

SHORT = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.bool: "bool",
}

ELEMENTWISE = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Hardswish, nn.Mish, nn.GELU)


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor. Prints as `f32[1,3,640,640]`."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{SHORT.get(self.dtype, str(self.dtype))}[{','.join(map(str, self.shape))}]"


Value: TypeAlias = "TensorSpec | tuple[Value, ...] | int | float | bool | None"


def spec(value: object) -> Value:
    """Describe a tensor, or a tuple or list of them, by its shapes and dtypes."""
    if isinstance(value, Tensor):
        return TensorSpec(tuple(int(n) for n in value.shape), value.dtype)
    if isinstance(value, (tuple, list)):
        return tuple(spec(v) for v in value)
    return value if isinstance(value, (int, float, bool)) else None


def shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the tensor that `node` computes.

    Raises:
        TraceError: the node computes no single tensor, or nothing is known about it.
    """
    value = node.meta.get(KEY)
    if not isinstance(value, TensorSpec):
        raise TraceError(f"node {node.name} has no tensor shape; run yqc.graph.propagate(gm) first")
    return value.shape


def show(value: Value) -> str:
    """Print a value as the graph text does."""
    if isinstance(value, tuple):
        return f"({', '.join(show(v) for v in value)})"
    return str(value)


class Evaluator:
    """Runs single nodes on fake tensors: shapes and dtypes come out, nothing is computed."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.values: dict[fx.Node, Any] = {}

    def fake(self, value: object) -> object:
        """Turn the tensors of `value` into fake ones."""
        if isinstance(value, Tensor):
            return self.mode.from_tensor(value, static_shapes=True)
        if isinstance(value, (tuple, list)):
            return type(value)(self.fake(v) for v in value)
        return value

    def run(self, node: fx.Node) -> Any:  # noqa: ANN401  # whatever the node computes
        """Evaluate one node whose inputs were evaluated before, and write its meta."""
        args = map_arg(node.args, self.values.__getitem__)
        kwargs = map_arg(node.kwargs, self.values.__getitem__)
        with torch.no_grad():
            if node.op == "get_attr":
                value = self.fake(attribute(self.root, str(node.target)))
            else:
                with self.mode:
                    value = self._call(node, args, kwargs)
        self.values[node] = value
        node.meta[KEY] = spec(value)
        return value

    def _call(self, node: fx.Node, args: Any, kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            made = foreseen(module, args[0]) if plain else None
            return module(*args, **kwargs) if made is None else args[0].new_empty(made)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function" and callable(node.target):
            return node.target(*args, **kwargs)
        return args[0]  # output


def foreseen(module: nn.Module, x: Tensor) -> tuple[int, ...] | None:
    """Return the shape that a common module makes of a tensor; None if it is to be tried.

    That is for any other module, and for a tensor that does not fit. Most of the modules of a
    detector are of these kinds, and trying them takes up to 10 ms each even without contents.
    """
    shape = tuple(int(n) for n in x.shape)
    if not x.is_floating_point():
        return None
    if type(module) in ELEMENTWISE:
        return shape
    if isinstance(module, nn.BatchNorm2d) and len(shape) == 4:  # noqa: PLR2004  # [N, C, H, W]
        return shape if shape[1] == module.num_features else None
    if isinstance(module, nn.Conv2d) and type(module) is nn.Conv2d:
        return _convolved(module, shape, x.dtype)
    return None


def _convolved(
    conv: nn.Conv2d, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[int, ...] | None:
    """Return the shape that a convolution makes of another, or None; source: torch.nn.Conv2d."""
    weight, bias, padding = conv.weight, conv.bias, conv.padding
    if isinstance(padding, str) or conv.padding_mode != "zeros" or dtype != weight.dtype:
        return None
    made, read = int(weight.shape[0]), int(weight.shape[1]) * conv.groups
    fits = len(shape) == 4 and shape[1] == read and made % conv.groups == 0  # noqa: PLR2004
    if not fits or (bias is not None and tuple(bias.shape) != (made,)):
        return None
    kernels = (gap * (k - 1) + 1 for gap, k in zip(conv.dilation, weight.shape[2:], strict=True))
    numbers = zip(shape[2:], kernels, conv.stride, padding, strict=True)
    size = [(n + 2 * pad - kernel) // step + 1 for n, kernel, step, pad in numbers]
    return (shape[0], made, *size) if min(size) > 0 else None


def attribute(root: nn.Module, target: str) -> object:
    """Return the attribute at a dotted path, as a `get_attr` node names it."""
    value: object = root
    for atom in target.split("."):
        value = getattr(value, atom)
    return value


def propagate(gm: fx.GraphModule, inputs: tuple[Tensor, ...] | None = None) -> None:
    """Write shape and dtype of every node into `node.meta["yqc.value"]`.

    Args:
        gm: the graph; its placeholders must have a value already unless `inputs` is given.
        inputs: one example tensor a placeholder; only shapes and dtypes are used.

    Raises:
        TraceError: a node cannot work on the shapes that reach it; the message names the node.
    """
    evaluator = Evaluator(gm)
    given = iter(inputs or ())
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            value = next(given, None) if inputs else empty(node)
            evaluator.values[node] = evaluator.fake(value)
            node.meta[KEY] = spec(value)
            continue
        try:
            evaluator.run(node)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise TraceError(f"node {node.name} does not fit its inputs: {reason}") from error


def empty(placeholder: fx.Node) -> Tensor:
    """Return a tensor without contents of the shape and dtype that a placeholder is known by."""
    value = placeholder.meta.get(KEY)
    if not isinstance(value, TensorSpec):
        raise TraceError(f"input {placeholder.name} has no known shape; trace with an example")
    return torch.empty(value.shape, dtype=value.dtype)


def tensors(value: Value) -> Iterator[TensorSpec]:
    """Yield every tensor description in a value."""
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item)
