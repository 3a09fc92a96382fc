"""The data of the HTML page beside the report: numbers, names and pictures."""

from dataclasses import dataclass

from yqc.report.parts import ClassScore
from yqc.report.report import Report

__all__ = [
    "Box",
    "ClassScore",
    "Curve",
    "Drawing",
    "GraphNode",
    "Page",
    "Picture",
    "ValueHistogram",
]


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """A node of the drawing."""

    name: str
    op: str
    type: str
    role: str
    x: float
    """Column: the length of the longest path to it."""
    y: float
    bits: float | None
    """Of its weights; None where it has none."""
    sqnr_db: float | None
    bytes: int
    passes: tuple[str, ...]
    """Passes that made or changed it."""
    history: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A graph laid out: nodes, and edges as pairs of their positions in `nodes`."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ValueHistogram:
    """How values are distributed, and the range that was chosen for them."""

    layer: str
    what: str
    """`weights` or `input`."""
    bits: float
    edges: tuple[float, ...]
    """Of the bins, one more than there are counts."""
    counts: tuple[int, ...]
    low: float
    high: float
    """Ends of the range that the integers cover."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision at 101 recalls from 0 to 1, IoU 0.5, mean over classes."""

    name: str
    precision: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A detection in a picture, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    label: str
    score: float
    outline: str = ""
    """Edge of a mask or of an oriented box, drawn in place of the box: commands of an SVG path."""
    skeleton: str = ""
    """Lines between keypoints: commands of an SVG path."""
    points: tuple[tuple[float, float], ...] = ()
    """The keypoints."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An evaluation image with what both models found in it."""

    name: str
    jpeg: bytes
    width: int
    height: int
    float_: tuple[Box, ...]
    compiled: tuple[Box, ...]
    classes: tuple[str, ...] = ()
    """Of a classifier: the class and its probability, by the float model and the compiled one."""
    changed: bool = False
    """Whether these are two classes."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The data of one page."""

    report: Report
    recipe: str
    drawing: Drawing
    spreads: tuple[ValueHistogram, ...] = ()
    curves: tuple[Curve, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    pictures: tuple[Picture, ...] = ()
    made: str = ""
    """The date and time of the compile."""
