"""Layers in codes of variable length: one rounded layer, and all of them with their codes."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from yqc.quant.weights.rice import Planes, code_network, packed_size
from yqc.quant.weights.rice_layer import RiceWeight


@dataclass(frozen=True)
class RiceLayer:
    """One rounded layer."""

    weight: RiceWeight
    bias: Tensor | None
    """float32 [R]."""
    error: float
    """Squared error of the output relative to its variance, by the inputs' moments."""
    damage: float | None
    """Error weighted by relevance, over all positions; None if relevance is not known."""
    bits: float
    """Bits of its codes with the planes that were known when it was rounded."""
    price: float = 0.0
    """At which it was rounded."""

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values for `from_parts`."""
        one = self.weight
        tensors = {"levels": one.levels, "scale": one.scale, "exponents": one.exponents}
        tensors |= {} if self.bias is None else {"bias": self.bias}
        plain = {"shape": list(one.shape), "error": self.error, "damage": self.damage}
        return tensors, plain | {"bits": self.bits, "price": self.price}

    @classmethod
    def from_parts(cls, tensors: dict[str, Tensor], plain: dict[str, Any]) -> "RiceLayer":
        """Undo `to_parts`."""
        names = ("levels", "scale", "exponents")
        weight = RiceWeight(tuple(plain["shape"]), *(tensors[name] for name in names))
        rest = (plain[name] for name in ("error", "damage", "bits", "price"))
        return cls(weight, tensors.get("bias"), *rest)


@dataclass(frozen=True)
class RiceCoding:
    """Rounded layers with their codes."""

    layers: dict[fx.Node, RiceLayer]
    planes: Planes
    low: dict[fx.Node, int]
    """The Rice parameter of each."""
    rounded: bool = True
    """Whether they were rounded by their inputs, and not to nearest for a draft."""

    @property
    def bytes(self) -> int:
        """Bytes of the codes of all layers."""
        return sum(
            packed_size(layer.weight.counts, self.low[node], self.planes)
            for node, layer in self.layers.items()
        )

    @property
    def count(self) -> int:
        """How many weights."""
        return sum(layer.weight.levels.numel() for layer in self.layers.values())

    @classmethod
    def of(cls, layers: dict[fx.Node, RiceLayer]) -> "RiceCoding":
        """Choose planes and Rice parameters for rounded layers."""
        planes, lows = code_network([layer.weight.counts for layer in layers.values()])
        return cls(layers, planes, dict(zip(layers, lows, strict=True)))
