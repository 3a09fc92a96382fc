"""What a swap changes at one activation, and the record of it that a resumed compile finds."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from yqc.swapping.fit import ChannelFit
from yqc.swapping.kept import Record
from yqc.swapping.units import SwapUnit

FIT = ("a", "b", "m", "loss")
"""Fields of a `ChannelFit`, in its order."""


@dataclass(frozen=True)
class UnitFit:
    """How one activation was fitted."""

    unit: SwapUnit
    fit: ChannelFit
    error: float
    """Mean squared error over the variance of what the activation computes."""
    refitted: bool
    """Whether the weights were refitted, too."""


@dataclass(frozen=True)
class UnitStep:
    """What is changed in the student at one unit."""

    a: Tensor
    """Scale of what its layers compute, float32 [C]."""
    b: Tensor
    """What is added to that then, float32 [C]."""
    fit: UnitFit | None = None
    """None where there is no activation."""
    weight: Tensor | None = None
    """Change of the convolution's weights after that, float32 [O, columns]; None without refit."""
    bias: Tensor | None = None
    """The same of its biases, float32 [O]."""

    def to_record(self, node: str, moments: tuple[Tensor, Tensor]) -> Record:
        """Return it, with the node's name and the moments of its values, as a record to keep."""
        tensors = {"a": self.a, "b": self.b, "mean": moments[0], "variance": moments[1]}
        about: dict[str, Any] = {"node": node}
        if self.weight is not None and self.bias is not None:
            tensors |= {"weight": self.weight, "bias": self.bias}
        if self.fit is not None:
            tensors |= {f"fit.{k}": getattr(self.fit.fit, k) for k in FIT}
            about |= {"error": self.fit.error, "refitted": self.fit.refitted}
        return tensors, about

    @classmethod
    def of_record(cls, unit: SwapUnit, record: Record) -> "UnitStep":
        """Undo `to_record`."""
        tensors, about = record
        fit = None
        if "error" in about:
            numbers = ChannelFit(*(tensors[f"fit.{k}"] for k in FIT))
            fit = UnitFit(unit, numbers, about["error"], about["refitted"])
        refit = tensors.get("weight"), tensors.get("bias")
        return cls(tensors["a"], tensors["b"], fit, *refit)
