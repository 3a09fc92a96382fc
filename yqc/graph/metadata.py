"""What passes leave on nodes: frozen dataclasses in `node.meta["yqc.<topic>"]`.

A topic is registered with its class, so that saved graphs keep it. Fields are plain values or
tensors.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

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


@topic("bn")
@dataclass(frozen=True)
class BatchNorm:
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
        """Copy what a batch norm knows.

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


@topic("kept")
@dataclass(frozen=True)
class Kept:
    """Which channels of the original's node of the same name a pruned node still has.

    Without it, a node that computes the same shape has all of them.
    """

    channels: Tensor
    """int64 [C], rising."""


def encode_meta(node: fx.Node, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe what is known of a node; tensors go to `tensors` under `meta:` names."""
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
                tensors[key] = content.detach().contiguous().clone()
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
            raise CheckpointError(f"the graph holds {name!r}, which this version does not know")
        meta[name] = TOPICS[name](**{k: _restore(v, tensors) for k, v in found[name].items()})
    return meta


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return tensors[value["tensor"]]
    return tuple(_restore(v, tensors) for v in value) if isinstance(value, list) else value
