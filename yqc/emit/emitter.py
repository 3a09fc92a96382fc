"""The emitter, through which lowerings read the fx graph and write ONNX nodes and tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NoReturn, TypeAlias, TypeVar

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from yqc.emit.sizes import Side, VaryingSizes
from yqc.emit.stored import StoredValues
from yqc.emit.table import call_text, module_text
from yqc.emit.tensors import DTYPES, FOUR_BIT, to_onnx
from yqc.emit.wiring import take_name
from yqc.errors import LoweringError
from yqc.graph import TensorSpec

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor of the graph: a parameter, a buffer, a vector of the decode. Stored when used."""

    value: Tensor
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple(self.value.shape)


Operand: TypeAlias = fx.Node | str | Constant | Tensor | Sequence[int] | None
"""An input of an ONNX node: an fx node (its value), a value's name, a constant, or nothing."""
Attribute: TypeAlias = int | float | str | Sequence[int] | Sequence[float] | None


@cache
def first_opset(op_type: str, opset: int, attributes: tuple[str, ...]) -> int:
    """Return the first opset from `opset` on that has an operator with these attributes."""
    for version in range(opset, onnx.defs.onnx_opset_version() + 1):
        try:
            schema = onnx.defs.get_schema(op_type, version)
        except onnx.defs.SchemaError:
            continue
        if schema.attributes.keys() >= {*attributes}:
            return version
    return opset


class OpsetNeededError(Exception):
    """A lowering needs a higher opset than the one being emitted for."""

    def __init__(self, opset: int, why: str) -> None:
        super().__init__(why)
        self.opset = opset


class Emitter:
    """Collects ONNX nodes and initialisers while an fx graph is lowered, one node after the other.

    Inside a lowering, ONNX values are names. What a lowering returns is renamed to the fx node's
    name afterwards; what lies before it is called `<fx node>.<op>`.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        *,
        opset: int,
        dynamic: bool,
        taken: Sequence[str] = (),
        stored: StoredValues | None = None,
        other: fx.GraphModule | None = None,
    ) -> None:
        self.gm = gm
        self.stored = stored
        self.opset = opset
        self.sizes = VaryingSizes(gm, other, opset)
        self.dynamic = dynamic
        self.nodes: list[onnx.NodeProto] = []
        self.domains: set[str] = set()
        """Domains of operators beside ONNX's own."""
        self.tensors: dict[tuple[int, tuple[int, ...], bytes], TensorProto] = {}
        self.values: dict[fx.Node, str | Constant | tuple[str, ...]] = {}
        self.renamed: dict[str, str] = {}
        self.results: set[str] = set()
        """Values that are outputs of the graph."""
        self.inputs = [node for node in gm.graph.nodes if node.op == "placeholder"]
        self._node: fx.Node = next(iter(gm.graph.nodes))
        computed = (node.name for node in gm.graph.nodes if node.op not in {"get_attr", "output"})
        self._taken = {*taken, *computed}

    # Reading the graph.

    def spec(self, node: fx.Node) -> TensorSpec:
        """Return shape and dtype of the tensor that an fx node computes."""
        value = node.meta.get("yqc.value")
        if isinstance(value, TensorSpec):
            return value
        raise LoweringError(
            f"node {node.name} has no tensor shape; a pass that makes nodes must set "
            f'meta["yqc.value"], or run yqc.graph.propagate(gm) when it is done'
        )

    def specs(self, node: fx.Node) -> tuple[TensorSpec, ...]:
        """Return the shapes and dtypes of an fx node that computes several tensors."""
        value = node.meta.get("yqc.value")
        if isinstance(value, tuple) and all(isinstance(item, TensorSpec) for item in value):
            return tuple(item for item in value if isinstance(item, TensorSpec))
        return (self.spec(node),)

    def shape(self, node: fx.Node | Constant) -> tuple[int, ...]:
        """Return the shape of the tensor that an fx node computes, or of a constant."""
        return node.shape if isinstance(node, Constant) else self.spec(node).shape

    def sides(self, node: fx.Node) -> list[Side]:
        """Return the dimensions of a node's tensor, each at the traced size and at another one.

        The two differ where the dimension varies with height and width.
        """
        return self.sizes.sides(node, self.shape(node))

    def dims(self, sides: Sequence[Side | int]) -> Operand:
        """Return a shape as an operand: numbers, or computed where a dimension varies."""
        return self.sizes.shape(sides, self.op)

    def fixed(self, node: fx.Node, why: str) -> tuple[int, ...]:
        """Return a node's shape where only a fixed height and width can be written.

        Raises:
            LoweringError: they vary.
        """
        if any(old != new for old, new in self.sides(node)):
            self.refuse(f"height and width cannot vary: {why}")
        return self.shape(node)

    def axis(self, node: fx.Node, dim: int) -> int:
        """Return a dimension of an fx node's tensor as a number from 0."""
        return dim % max(len(self.shape(node)), 1)

    def module(self, node: fx.Node, kind: type[M]) -> M:
        """Return the module that a `call_module` node calls, known to be of `kind`."""
        module = self.gm.get_submodule(str(node.target))
        if not isinstance(module, kind):
            raise TypeError(f"{node.name} calls {type(module).__name__}, not {kind.__name__}")
        return module

    def constant(self, operand: Operand) -> Constant | None:
        """Return the tensor behind an operand if the graph holds it, or None if it is computed."""
        if isinstance(operand, fx.Node):
            value = self.values[operand]
            varies = isinstance(value, Constant) and any(a != b for a, b in self.sides(operand))
            return value if isinstance(value, Constant) and not varies else None
        return operand if isinstance(operand, Constant) else None

    def value(self, operand: Operand) -> str:
        """Return the name of the ONNX value of an operand; `""` for an absent one."""
        if isinstance(operand, fx.Node):
            value = self.values[operand]
            if isinstance(value, tuple):
                self.refuse(f"its input {operand.name} is several tensors")
            if isinstance(value, Constant):
                counted = self.sizes.counted(operand, value.value, self.op)
                return self.value(value) if counted is None else counted
            return self.value(value)
        if isinstance(operand, str):
            return operand
        if operand is None:
            return ""
        if isinstance(operand, Constant):
            return self.tensor(operand.value, operand.name)
        return self.tensor(operand if isinstance(operand, Tensor) else torch.tensor(list(operand)))

    def items(self, operands: fx.Node | Sequence[fx.Node]) -> list[fx.Node | str]:
        """List the tensors of a list of nodes, or of one node that computes several."""
        if not isinstance(operands, fx.Node):
            return list(operands)
        value = self.values[operands]
        return list(value) if isinstance(value, tuple) else [operands]

    def refuse(self, why: str) -> NoReturn:
        """Give up on the node being lowered.

        Raises:
            LoweringError: always; names the node, the module it stems from, and the reason.
        """
        node, what = self._node, call_text(self.gm, self._node)
        raise LoweringError(f"cannot emit {what} at node {node.name}{module_text(node)}: {why}")

    def require(self, opset: int, why: str) -> None:
        """Require an opset: emission starts anew with it unless the user fixed a lower one."""
        if self.opset < opset:
            raise OpsetNeededError(opset, f"node {self._node.name}: {why}")

    # Writing nodes and tensors.

    def op(self, op_type: str, *inputs: Operand, domain: str = "", **attributes: Attribute) -> str:
        """Add an ONNX node with one output and return the name of its value.

        Args:
            op_type: the operator's name.
            inputs: fx nodes, value names, tensors (stored once however often they occur), lists
                of integers (become int64 vectors), None for an optional input left out.
            domain: of the operator; by default ONNX's own. A file with operators of another domain,
                such as `acme.ops`, is checked by the ONNX checker and not run.
            attributes: of the ONNX node; those that are None are left out.
        """
        return self.ops(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        outputs: int,
        *inputs: Operand,
        domain: str = "",
        **attributes: Attribute,
    ) -> tuple[str, ...]:
        """Add an ONNX node with several outputs and return the names of their values."""
        if domain:
            self.domains.add(domain)
        else:
            given_names = (name for name, value in attributes.items() if value is not None)
            opset = first_opset(op_type, self.opset, tuple(sorted(given_names)))
            self.require(opset, f"the operator {op_type}")
        base = take_name(self._taken, f"{self._node.name}.{op_type.lower()}")
        many = (take_name(self._taken, f"{base}.{i}") for i in range(outputs))
        names = (base,) if outputs == 1 else tuple(many)
        given = [self.value(operand) for operand in inputs]
        while given and not given[-1]:
            given.pop()
        self.nodes.append(
            helper.make_node(op_type, given, names, name=base, domain=domain or None, **attributes)  # type: ignore[arg-type]
        )
        return names

    def tensor(self, value: Tensor, name: str | None = None, dtype: int | None = None) -> str:
        """Store a constant once, by content, and return the name of its value.

        Args:
            value: any shape and dtype that `to_onnx` takes.
            name: wanted for it, such as `model.0.conv.weight`; the first one given stays.
            dtype: ONNX element type where PyTorch has none: `TensorProto.INT4`, `UINT4`.
        """
        if dtype in FOUR_BIT:
            self.require(21, "four-bit weights")
        tensor = to_onnx(value, "", dtype)
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if key not in self.tensors:
            tensor.name = take_name(self._taken, name or self._constant_name(value))
            self.tensors[key] = tensor
        return self.tensors[key].name

    def scalar(self, value: float, dtype: torch.dtype = torch.float32) -> str:
        """Store one number and return the name of its value."""
        return self.tensor(torch.tensor(value, dtype=dtype))

    def number(self, operand: fx.Node | str | float, dtype: torch.dtype) -> str:
        """Return an operand of arithmetic in a given dtype: a number becomes a constant."""
        if isinstance(operand, str):
            return operand
        if not isinstance(operand, fx.Node):
            return self.scalar(operand, dtype)
        return self.cast(operand, self.spec(operand).dtype, dtype)

    def cast(self, operand: Operand, have: torch.dtype, want: torch.dtype) -> str:
        """Return an operand converted to a dtype, without a node where it has it already."""
        return self.value(operand) if have == want else self.op("Cast", operand, to=DTYPES[want])

    def _constant_name(self, value: Tensor) -> str:
        """Name a constant by its contents if they are short, else by the node that uses it."""
        if value.numel() > 8:  # noqa: PLR2004  # as much as reads well
            return f"{self._node.name}.const"
        kind = str(value.dtype).removeprefix("torch.")
        items = "_".join(f"{item:g}" for item in value.reshape(-1).tolist())
        return f"{kind}.{items}" if value.ndim == 0 else f"{kind}s.{items}"

    # For the walk over the graph.

    def begin(self, node: fx.Node) -> None:
        """Turn to the next fx node."""
        self._node = node

    def name(self, value: str, node: fx.Node) -> None:
        """Call a value after an fx node, unless it has a name of its own already."""
        if all(tensor.name != value for tensor in self.tensors.values()):
            self.renamed.setdefault(value, node.name)

    def bind(self, node: fx.Node, lowered: fx.Node | str | Sequence[str], since: int) -> None:
        """Record what a node was lowered to; nodes from number `since` on are named after it."""
        if isinstance(lowered, str) and isinstance(node.meta.get("yqc.value"), TensorSpec):
            self.sizes.note(node, lowered, self.shape(node))
        if isinstance(lowered, fx.Node):
            self.values[node] = self.values[lowered]
            return
        made = self.nodes[since:]
        if isinstance(lowered, str):
            self.values[node] = lowered
            for producer in made:
                if list(producer.output) == [lowered]:
                    producer.name = node.name
                    self.renamed[lowered] = node.name
            return
        self.values[node] = tuple(lowered)
        for producer in made:
            if set(producer.output) == set(lowered):
                producer.name = node.name

    def overwrite(self, operand: fx.Node, node: fx.Node) -> None:
        """Record that `node` wrote its result over its operand: later readers see the result."""
        old = self.values[operand]
        for alias, value in self.values.items():
            if value == old:
                self.values[alias] = self.values[node]
