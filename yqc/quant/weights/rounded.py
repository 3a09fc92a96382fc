"""A layer that was rounded: what is known of it, and how it is kept over a kill."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from yqc.quant.weights.grid import Grid
from yqc.quant.weights.layer import Rounded
from yqc.quant.weights.scheme import Scheme


@dataclass(frozen=True)
class Outcome:
    """One rounded layer."""

    rounded: Rounded
    bias: Tensor | None
    """float32 [R]."""
    error: float
    """Squared error of the output relative to its variance, as the moments tell it."""
    deviation: Tensor
    """Standard deviation of each output channel, float32 [R]."""
    worth: Tensor | None = None
    """Mean squared derivative of what is detected by each output channel, float32 [R]."""
    damage: float | None = None
    """What the error does to the detections: its mean square, by their derivatives, an image."""

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values that `restored` makes this outcome of."""
        grid = self.rounded.grid
        optional = {"bias": self.bias, "worth": self.worth, "zero": grid.zero, "table": grid.table}
        tensors = {
            "levels": self.rounded.levels.to(torch.int16),
            "scale": grid.scale,
            "deviation": self.deviation,
        }
        tensors |= {name: t for name, t in optional.items() if t is not None}
        about = {"error": self.error, "damage": self.damage}
        return tensors, about | {"block": grid.block, "levels": grid.levels}

    @classmethod
    def restored(
        cls, kept: dict[str, Tensor], about: dict[str, Any], scheme: Scheme, shape: tuple[int, ...]
    ) -> "Outcome":
        """Undo `parts`."""
        zero, table = kept.get("zero"), kept.get("table")
        grid = Grid(kept["scale"], int(about["block"]), int(about["levels"]), zero, table)
        levels = kept["levels"].float() if table is None else kept["levels"].long()
        rounded = Rounded(scheme, shape, levels, grid)
        bias, worth, damage = kept.get("bias"), kept.get("worth"), about["damage"]
        return cls(rounded, bias, float(about["error"]), kept["deviation"], worth, damage)


class Keeper(Protocol):
    """Keeps rounded layers over a kill."""

    def load(self, node: fx.Node, scheme: Scheme, shape: tuple[int, ...]) -> Outcome | None:
        """Return a layer that was rounded before."""
        ...

    def save(self, node: fx.Node, outcome: Outcome) -> None:
        """Keep a rounded layer."""
        ...
