"""Where a search may put a pass, and which values of its options it may try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Place = Literal["activations", "channels", "training", "weights", "integers"]
"""Places of a pipeline, in this order; each holds one pass, or none."""
PLACES: tuple[Place, ...] = ("activations", "channels", "training", "weights", "integers")


@dataclass(frozen=True)
class Space:
    """What a search may do with a pass.

    >>> Space("channels", {"ratio": [0.3, 0.5, 0.7]}, fixed={"recover": 0})
    """

    place: Place
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of options, the mildest first; one of each is taken."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options that have one value."""
