"""Marks that passes leave on nodes: frozen dataclasses in `node.meta["yqc.<topic>"]`.

    @dataclass(frozen=True)
    class Int8Weights(Mark, topic="int8"): ...

    Int8Weights(scale).put(node)
    if (mark := Int8Weights.on(node)) is not None: ...

Saved graphs keep the marks whose class is imported when they are read. Fields are plain values or
tensors.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, fx, nn

from yqc.errors import CheckpointError
from yqc.graph.roles import KEY as ROLE
from yqc.graph.roles import ROLES
from yqc.graph.values import KEY as VALUE
from yqc.graph.values import SHORT, TensorSpec

TOPICS: dict[str, type] = {}
C = TypeVar("C", bound=type)


def topic(name: str) -> Any:  # noqa: ANN401  # a decorator of classes
    """Register a frozen dataclass as what `node.meta["yqc.<name>"]` holds."""

    def register(cls: C) -> C:
        TOPICS[f"yqc.{name}"] = cls
        return cls

    return register


class Mark:
    """Base class of marks: frozen dataclasses that a pass leaves on a node under one topic."""

    key: ClassVar[str]
    """Where `node.meta` holds it: `yqc.<topic>`."""
    large: ClassVar[bool] = False
    """Whether it holds so much that a graph with it is not kept for `--resume`."""

    def __init_subclass__(cls, *, topic: str, large: bool = False) -> None:
        """Register the class under its topic."""
        super().__init_subclass__()
        cls.key, cls.large = f"yqc.{topic}", large
        TOPICS[cls.key] = cls

    @classmethod
    def on(cls, node: fx.Node) -> Self | None:
        """Return the mark of this class on a node, or None."""
        found = node.meta.get(cls.key)
        return found if isinstance(found, cls) else None

    def put(self, node: fx.Node) -> None:
        """Write the mark on a node, in place of another one of its topic."""
        node.meta[self.key] = self

    @classmethod
    def drop(cls, node: fx.Node) -> Self | None:
        """Remove the mark of this class from a node, and return it if there was one."""
        found = cls.on(node)
        if found is not None:
            del node.meta[cls.key]
        return found


@dataclass(frozen=True)
class BatchNorm(Mark, topic="bn"):
    """A batch norm that was folded into the convolution before it: y = (x - mean) * s + shift.

    Here s = scale / sqrt(variance + eps). All tensors are float32 [C]. What the convolution now
    computes has mean `shift` and standard deviation |scale| over the training data.
    """

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    eps: float

    @classmethod
    def of(cls, bn: nn.BatchNorm2d) -> "BatchNorm":
        """Copy the tensors of a batch norm.

        Raises:
            ValueError: it keeps no running statistics.
        """
        mean, var = bn.running_mean, bn.running_var
        if mean is None or var is None:
            raise ValueError("a batch norm without running statistics")
        scale = bn.weight if bn.affine else torch.ones_like(mean)
        shift = bn.bias if bn.affine else torch.zeros_like(mean)
        mean, var, scale, shift = (t.detach().clone() for t in (mean, var, scale, shift))
        return cls(mean, var, scale, shift, bn.eps)

    def select(self, channels: Tensor) -> "BatchNorm":
        """Return the statistics of some channels, int64 [C']."""
        mean, variance = self.mean[channels], self.variance[channels]
        return BatchNorm(mean, variance, self.scale[channels], self.shift[channels], self.eps)


@dataclass(frozen=True)
class Kept(Mark, topic="kept"):
    """Which channels of the original's node of the same name a pruned node still has.

    Without it, a node that computes the same shape has all of them.
    """

    channels: Tensor
    """int64 [C], rising."""


@dataclass(frozen=True)
class Swapped(Mark, topic="swapped"):
    """An activation that was put in the place of another one, g(a x + b) + m of each channel.

    The layer before it computes a x + b, and the layers behind take up m. Of a, b and m the mark
    has the smallest, mean and largest of all channels.
    """

    layer: str
    """Path of the layer before it."""
    was: str
    now: str
    error: float
    """Mean squared error of the fit, over the variance of what the old one computes."""
    damage: float
    """Mean square change of the detections if it alone is swapped."""
    refitted: bool
    """Whether the weights of the layer were refitted, too."""
    a: tuple[float, float, float]
    b: tuple[float, float, float]
    m: tuple[float, float, float]


def has_large_marks(gm: fx.GraphModule) -> bool:
    """Return whether marks of a graph take much room in files."""
    marks = (value for node in gm.graph.nodes for value in node.meta.values())
    return any(mark.large for mark in marks if isinstance(mark, Mark))


def encode_meta(node: fx.Node, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Encode the role, value and marks of a node; tensors go to `tensors` under `meta:` names."""
    found: dict[str, Any] = {"role": node.meta.get(ROLE, "backbone")}
    value = node.meta.get(VALUE)
    if node.op == "placeholder" and isinstance(value, TensorSpec):
        found["shape"], found["dtype"] = list(value.shape), str(value.dtype).removeprefix("torch.")
    for name in TOPICS.keys() & node.meta.keys():
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(node.meta[name]):
            content = getattr(node.meta[name], field.name)
            if isinstance(content, Tensor):
                key = f"meta:{node.name}:{name}:{field.name}"
                tensors[key] = content.detach()
                content = {"tensor": key}
            fields[field.name] = content
        found[name] = fields
    return dict(sorted(found.items()))


def decode_meta(found: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Undo `encode_meta`.

    Raises:
        CheckpointError: a role or topic that does not exist.
    """
    if found["role"] not in ROLES:
        raise CheckpointError(f"the graph marks a node as {found['role']!r}, which is no role")
    meta: dict[str, Any] = {ROLE: found["role"]}
    if "shape" in found:
        dtypes = {str(d).removeprefix("torch."): d for d in SHORT}
        meta[VALUE] = TensorSpec(tuple(map(int, found["shape"])), dtypes[found["dtype"]])
    for name in found.keys() - {"role", "shape", "dtype"}:
        if name not in TOPICS:
            raise CheckpointError(
                f"the graph holds {name!r}, which this version does not know; --load the file of "
                "the pass that left it"
            )
        meta[name] = TOPICS[name](**{k: _restore(v, tensors) for k, v in found[name].items()})
    return meta


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return tensors[value["tensor"]]
    return tuple(_restore(v, tensors) for v in value) if isinstance(value, list) else value
