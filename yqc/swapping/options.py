"""The options of swapping, which the pass and the recipe share."""

from dataclasses import dataclass
from typing import Literal

from yqc.pipeline import Share

FormName = Literal["relu", "relu6", "leaky-relu", "hardswish", "hard-sigmoid"]


@dataclass(frozen=True)
class SwapOptions:
    """Which activations are swapped, for what, and how.

    Raises:
        ValueError: a number is out of its range.
    """

    to: FormName = "relu"
    """The activation to put in; hard-sigmoid writes x * hardsigmoid(x), as two operations."""
    only: tuple[str, ...] = ()
    """Activations to swap: paths of their modules or convolutions, * as a wildcard; default all."""
    keep: tuple[str, ...] = ()
    """Activations that stay: paths as in `only`."""
    max_drop: Share | None = None
    """What the agreement with the float model (AP50) may lose, such as 1%; the costliest stay."""
    refit: Literal["auto", "always", "never"] = "auto"
    """Refit weights, too: auto does where it lowers a layer's error on pictures held out of it."""
    images: int = 64
    """Calibration images to fit on; fewer where a graph needs much memory."""

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"max_drop must be 0% or above and below 100%, not {self.max_drop}")
        if self.images < 1:
            raise ValueError(f"images must be 1 or above, not {self.images}")
