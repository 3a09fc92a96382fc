"""What passes did, and to which nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yqc.report.contract import Part


@dataclass(frozen=True, kw_only=True)
class Skip(Part):
    """A near-match that a pass refused, and its reason."""

    node: str
    why: str


@dataclass(frozen=True, kw_only=True)
class NodeNumbers(Part):
    """Numbers by name that a pass recorded of a node."""

    node: str
    numbers: Mapping[str, float]


def number_names(values: Sequence[NodeNumbers]) -> list[str]:
    """List the names of numbers that nodes have, in the order in which they came."""
    return list(dict.fromkeys(name for one in values for name in one.numbers))


@dataclass(frozen=True, kw_only=True)
class PassRecord(Part):
    """What one pass did, took and cost; the defaults are those of a pass that has not run."""

    name: str
    seconds: float | None = None
    rewrites: int = 0
    skips: tuple[Skip, ...] = ()
    says: tuple[str, ...] = ()
    """Sentences of the pass on what it did as a whole."""
    changed: bool = False
    nodes_before: int = 0
    nodes_after: int = 0
    weight_bytes_before: int | None = None
    weight_bytes_after: int | None = None
    max_abs_error: float | None = None
    """At the head's outputs, between the graphs before and after this pass."""
    sqnr_db: float | None = None
    values: tuple[NodeNumbers, ...] = ()
    """Numbers that the pass recorded of single nodes."""


@dataclass(frozen=True, kw_only=True)
class Layer(Part):
    """How one layer with weights is stored in the file; float32 counts as 32 bits."""

    name: str
    role: str | None
    op: str
    shape: tuple[int, ...]
    weight_bits: float | None
    activation_bits: int | None
    scheme: str | None
    granularity: str | None = None
    rounding: str | None = None
    weight_bytes: int | None
    sqnr_db: float | None = None
    sensitivity: float | None = None
    """Damage: the mean square change of the detections by its rounding; None if not measured."""


@dataclass(frozen=True, kw_only=True)
class Swap(Part):
    """How one activation was swapped for another one: g(a x + b) + m in each channel."""

    node: str
    layer: str
    """Path of the layer before it, which computes a x + b."""
    was: str
    now: str
    error: float | None
    """Mean squared error of the fit, over the variance of what the old activation computes."""
    damage: float | None
    """Mean square change of the detections if it alone is swapped."""
    refitted: bool
    """Whether the weights of the layer were refitted, too."""
    a: tuple[float | None, float | None, float | None]
    """Smallest, mean and largest of all channels; so are b and m."""
    b: tuple[float | None, float | None, float | None]
    m: tuple[float | None, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Sensitivity(Part):
    """Sensitivity of one layer: the effect of quantizing it alone to eight bits."""

    name: str
    role: str
    sqnr_db: float | None
    """At the head's outputs; None where nothing differs."""
    agreement: float | None
    """AP at IoU 0.5 against the float detections on calibration images; None without them."""
