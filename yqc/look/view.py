"""A view: the list of a graph's nodes that inspecting, comparing and drawing work on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from yqc.errors import PipelineError, near
from yqc.report import Shown
from yqc.report.contract import Json, to_plain
from yqc.report.human import clean

WeightArray: TypeAlias = "NDArray[np.generic]"


@dataclass(frozen=True)
class HeldTensor:
    """A tensor that the graph holds."""

    name: str
    """Its path in the graph module, or the name of the initialiser."""
    type: str
    """As the graph text writes it, `f32[16,3,3,3]`."""
    bytes: int


@dataclass(frozen=True)
class ViewNode:
    """One node. Tensors that a graph holds are no items: they stand with the nodes that read them.

    What it becomes in ONNX is `onnx`: several ops (SiLU is Sigmoid and Mul), one, or none.
    """

    name: str
    op: str
    """What the graph text calls it: `Conv2d`, `cat`; in an ONNX file the type of the op."""
    onnx: tuple[str, ...]
    expression: str
    """What it does with its inputs, by its ONNX name where it is one op."""
    type: str
    """Of what it computes, `f32[1,16,320,320]`."""
    inputs: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    path: str = ""
    """Of the module that it calls, or stems from."""
    role: str = ""
    stored: tuple[HeldTensor, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """More that is known of it, for a reader: scales, bits, channel group."""
    history: tuple[str, ...] = ()
    """What passes did to it, in order."""
    unpacks: bool = False
    """Whether it computes from constants alone: weights, unpacked once at load."""

    @property
    def line(self) -> str:
        """The node as one line of text, control characters in names escaped."""
        if self.op == "output":
            return clean(f"return {self.expression}")
        return clean(f"%{self.name}{f': {self.type}' if self.type else ''} = {self.expression}")

    @property
    def bytes(self) -> int:
        """Bytes of the tensors that it reads; one that several nodes read counts for each."""
        return sum(one.bytes for one in self.stored)


@dataclass(frozen=True)
class View(Shown):
    """A graph to look at; it prints as its text."""

    title: str
    items: tuple[ViewNode, ...]
    text: str
    """The graph as its own deterministic printer writes it."""
    code: str | None
    """The Python that runs it; None for an ONNX file."""
    weights: Callable[[], Mapping[str, WeightArray]] = field(repr=False, compare=False)
    """Computes what the nodes multiply and add, as they use it: `model_0_conv.weight` -> array.

    Integer weights come dequantized.
    """
    channels: Callable[[str], tuple[str, ...]] = field(
        default=lambda _: (), repr=False, compare=False
    )
    """Lists what must keep the channels that the module at a path makes, one dependency a text."""

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Json]:
        """Return plain values: `title`, and `nodes` in graph order."""
        return {"title": self.title, "nodes": [to_plain(vars(item)) for item in self.items]}

    def find(self, name: str) -> ViewNode:
        """Return the node of that name, or of a module's nodes the one that stores most.

        Raises:
            PipelineError: there is none.
        """
        for item in self.items:
            if item.name == name:
                return item
        inside = [i for i in self.items if i.path == name or i.path.startswith(f"{name}.")]
        if not inside:
            known = [i.name for i in self.items] + [i.path for i in self.items if i.path]
            hint = near(name, known) or "; --as text lists them"
            raise PipelineError(f"{self.title} has no node {name!r}{hint}")
        stored = self.bytes_by_layer()
        return max(reversed(inside), key=lambda i: stored.get(i.name, 0))

    def constants(self) -> set[str]:
        """Name the nodes that read no input of the graph: what unpacks weights."""
        found = set[str]()
        for item in self.items:
            if item.op not in {"placeholder", "output"} and found.issuperset(item.inputs):
                found.add(item.name)
        return found

    def bytes_by_layer(self) -> dict[str, int]:
        """Count the bytes that each node stores, those of what only unpacks its weights included.

        A tensor that several nodes read counts for the first.
        """
        seen, fixed, pending = set[str](), self.constants(), dict[str, int]()
        found: dict[str, int] = {}
        for item in self.items:
            count = sum(s.bytes for s in item.stored if s.name not in seen)
            seen |= {s.name for s in item.stored}
            count += sum(pending.pop(name, 0) for name in item.inputs)
            if item.name in fixed and item.users:
                pending[item.name] = count
            elif count:
                found[item.name] = count
        return found

    def around(self, name: str, distance: int) -> "View":
        """Return the part of the graph that is at most `distance` nodes away from one."""
        by_name = {item.name: item for item in self.items}
        center = self.find(name).name
        reached, edge = {center}, {center}
        for _ in range(distance):
            edge = {n for at in edge for n in (*by_name[at].inputs, *by_name[at].users)} - reached
            edge &= by_name.keys()
            reached |= edge
        items = tuple(item for item in self.items if item.name in reached)
        text = "\n".join(item.line for item in items)
        return replace(self, items=items, text=text)


@dataclass(frozen=True)
class NodeView(Shown):
    """A node, and the part of the graph around it."""

    node: ViewNode
    near: View
    code: bool
    """Whether the whole graph has code, and so its nodes a history."""
    channels: tuple[str, ...]
    """What must keep the channels that the node makes, one dependency a text."""

    @classmethod
    def of(cls, view: View, name: str, distance: int = 1) -> "NodeView":
        """Find a node by its name or its module's path.

        Raises:
            PipelineError: there is none.
        """
        node = view.find(name)
        channels = view.channels(node.path)
        return cls(node, view.around(node.name, distance), view.code is not None, channels)

    def to_dict(self) -> dict[str, Json]:
        """Return the nodes as plain values."""
        return self.near.to_dict()


@dataclass(frozen=True)
class OnnxSummary(Shown):
    """An ONNX file: inputs, outputs, ops, bytes, and what its metadata says."""

    view: View
    bytes: int
    metadata: Mapping[str, str]

    def to_dict(self) -> dict[str, Json]:
        """Return nodes and metadata as plain values."""
        return {**self.view.to_dict(), "metadata": dict(self.metadata)}
