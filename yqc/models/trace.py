"""Trace an `nn.Module` into a plain `fx.GraphModule` whose nodes know their shapes.

`torch.fx.symbolic_trace` knows nothing of shapes, so it stops at the first `h, w = x.shape` or the
first loop over `x.chunk(2, 1)`. The tracer here runs every recorded node on meta tensors at once
(no arithmetic is done), and its proxies answer questions about shape, length and dtype with plain
Python values. Control flow that depends on the *contents* of a tensor is still an error.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from yqc.errors import TraceError, YqcError, first_line
from yqc.graph.calls import has_effect
from yqc.graph.edit import drop_unread
from yqc.graph.meta_tensors import to_meta
from yqc.graph.optable import WHOLE
from yqc.graph.roles import assign_roles
from yqc.graph.values import KEY, Evaluator, spec
from yqc.report.human import clean

META = "yqc.meta"
"""Key in `node.meta` of a node's meta tensor while tracing."""


class ShapeProxy(fx.Proxy):
    """A proxy that answers for the shape of the tensor it stands for."""

    @property
    def _value(self) -> Any:  # noqa: ANN401  # a meta tensor, or a tuple of them
        return self.node.meta[META]

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return torch.Size(self._value.shape)

    @property
    def ndim(self) -> int:
        """Its number of dimensions."""
        return self._value.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        return self._value.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where tensors made beside it belong."""
        return torch.device("cpu")

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return its shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return its number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Return its number of elements."""
        return self.shape.numel()

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return (operator.getitem(self, i) for i in range(len(self)))


class ShapeTracer(fx.Tracer):
    """An fx tracer that evaluates each node's shape as it is recorded."""

    def __init__(self, examples: tuple[Tensor, ...]) -> None:
        functions = [each for each in WHOLE.values() if not isinstance(each, type)]
        super().__init__(autowrap_functions=(len, *functions))
        self.examples = iter(examples)
        self.evaluator: Evaluator
        self.evaluating = False
        self.place = ""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:  # noqa: ANN401
        """Record a module; its nodes get their shapes on the way."""
        self.evaluator = Evaluator(root)
        return super().trace(root, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep torch.nn's modules, and users' with a lowering, whole; look into all others."""
        if isinstance(m, tuple(each for each in WHOLE.values() if isinstance(each, type))):
            return True
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.MultiheadAttention)):
            return False
        return super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Stand for a node."""
        return ShapeProxy(node, self)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: Any,  # noqa: ANN401
        kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Record a module call; while a node is being evaluated, only call it."""
        if self.evaluating:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.place = self.place or path  # the innermost module is the first to get here
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401
        """Record the reading of a parameter; while a node is being evaluated, only read it."""
        if self.evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401
        """Record a node and evaluate its shape."""
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "placeholder":
            value = next(self.examples, None)
            if not isinstance(value, Tensor):
                raise TraceError(f"input {node.name} needs an example tensor")
            self.evaluator.values[node] = to_meta(value)
            node.meta[KEY] = spec(value)
        elif kind == "output":
            node.meta[KEY] = None
        else:
            self.evaluating = True
            self.evaluator.run(node)
            self.evaluating = False
        node.meta[META] = self.evaluator.values.get(node)
        return node


def trace(module: nn.Module, example: Tensor | tuple[Tensor, ...]) -> fx.GraphModule:
    """Trace a module into a plain `torch.fx.GraphModule`.

    Args:
        module: any module without control flow that depends on tensor contents. It is put into
            eval mode; its parameters are shared with the graph, not copied.
        example: one tensor, or one a positional input, of the shapes and dtypes to compile for.
            Values are not used.

    Returns:
        A graph whose nodes hold shape and dtype in `meta["yqc.value"]` (a `TensorSpec`) and their
        part of the detector in `meta["yqc.role"]`.

    Raises:
        TraceError: the module cannot be traced, or does not fit the example's shape.
    """
    examples = (example,) if isinstance(example, Tensor) else tuple(example)
    module.eval()
    tracer, own = ShapeTracer(examples), {*vars(module)}
    try:
        graph = tracer.trace(module)
    except YqcError:
        raise
    except Exception as error:
        raise TraceError(_explain(tracer, module, error)) from error
    gm = fx.GraphModule(tracer.root, graph, type(module).__name__)
    for name in {*vars(module)} - own:  # constants, which the tracer leaves on the user's module
        delattr(module, name)
    for node in gm.graph.nodes:
        del node.meta[META]
    gm.graph.eliminate_dead_code(has_effect)
    _free_of_strides(gm)
    drop_unread(gm)
    gm.recompile()
    gm.eval()
    _name_constants(gm)
    assign_roles(gm)
    return gm


def _explain(tracer: ShapeTracer, module: nn.Module, error: Exception) -> str:
    where = tracer.place or type(module).__name__
    return clean(f"cannot trace {where}: {type(error).__name__}: {first_line(error)}")


def _free_of_strides(gm: fx.GraphModule) -> None:
    """Turn each `view` into a `reshape`, which works however a tensor lies in memory."""
    for node in gm.graph.nodes:
        if node.op == "call_method" and node.target == "view":
            sizes = (*node.args[1:], *node.kwargs.values())
            if not any(isinstance(size, torch.dtype) for size in sizes):
                node.target = "reshape"
                node.kwargs = {"shape": node.kwargs["size"]} if "size" in node.kwargs else {}


def _name_constants(gm: fx.GraphModule) -> None:
    """Turn the tensors that fx found on its way into buffers, so that they move and save."""
    for node in gm.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr" and target.startswith("_tensor_constant"):
            value = getattr(gm, target)
            if not isinstance(value, nn.Parameter) and target not in dict(gm.named_buffers()):
                delattr(gm, target)
                gm.register_buffer(target, value.detach().clone())
