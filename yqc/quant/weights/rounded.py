"""A rounded layer: weight, bias, error, damage; as tensors and plain values for a cache."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yqc.quant.weights.grid import Grid
from yqc.quant.weights.layer import RoundedWeight
from yqc.quant.weights.scheme import Scheme


@dataclass(frozen=True)
class RoundedLayer:
    """One rounded layer."""

    rounded: RoundedWeight
    bias: Tensor | None
    """float32 [R]."""
    error: float
    """Squared error of the output relative to its variance, by the inputs' moments."""
    deviation: Tensor
    """Standard deviation of each output channel, float32 [R]."""
    relevance: Tensor | None = None
    """Mean relevance of each output channel, float32 [R]."""
    damage: float | None = None
    """Error weighted by relevance, over all positions: mean square for an image."""

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values for `from_parts`."""
        grid = self.rounded.grid
        optional = {
            "bias": self.bias,
            "relevance": self.relevance,
            "zero": grid.zero,
            "table": grid.table,
        }
        tensors = {
            "levels": self.rounded.levels.to(torch.int16),
            "scale": grid.scale,
            "deviation": self.deviation,
        }
        tensors |= {name: t for name, t in optional.items() if t is not None}
        plain = {"error": self.error, "damage": self.damage}
        return tensors, plain | {"block": grid.block, "levels": grid.levels}

    @classmethod
    def from_parts(
        cls,
        tensors: dict[str, Tensor],
        plain: dict[str, Any],
        scheme: Scheme,
        shape: tuple[int, ...],
    ) -> "RoundedLayer":
        """Undo `to_parts`."""
        table = tensors.get("table")
        block, count = int(plain["block"]), int(plain["levels"])
        grid = Grid(tensors["scale"], block, count, tensors.get("zero"), table)
        levels = tensors["levels"].float() if table is None else tensors["levels"].long()
        return cls(
            RoundedWeight(scheme, shape, levels, grid),
            tensors.get("bias"),
            float(plain["error"]),
            tensors["deviation"],
            tensors.get("relevance"),
            plain["damage"],
        )
