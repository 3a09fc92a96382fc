"""The options of swapping, which the pass and the recipe share."""

from dataclasses import dataclass
from typing import Annotated, Literal

from yqc.pipeline import Bounds, Count, Share

FormName = Literal["relu", "relu6", "leaky-relu", "hardswish", "hard-sigmoid"]


@dataclass(frozen=True)
class SwapOptions:
    """Which activations are swapped, for what, and how."""

    to: FormName = "relu"
    """The activation to put in; hard-sigmoid writes x * hardsigmoid(x), as two operations."""
    only: tuple[str, ...] = ()
    """Activations to swap: paths of their modules or convolutions, * as a wildcard; default all."""
    keep: tuple[str, ...] = ()
    """Activations that stay: paths as in `only`."""
    max_drop: Annotated[float | None, Share, Bounds(least=0, below=1)] = None
    """What the agreement with the float model (AP50) may lose, such as 1%; the costliest stay."""
    refit: Literal["auto", "always", "never"] = "auto"
    """Refit weights, too: auto does where it lowers a layer's error on pictures held out of it."""
    images: Count = 64
    """Calibration images to fit on; fewer where a graph needs much memory."""
