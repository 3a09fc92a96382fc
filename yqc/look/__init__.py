"""Looking at graphs: one view of checkpoints, snapshots and ONNX files; its printers; diffs."""

from yqc.look.diff import Diff, compare
from yqc.look.explain import Explained, explain
from yqc.look.sources import as_view, look, staged
from yqc.look.view import Item, Stored, View

__all__ = [
    "Diff",
    "Explained",
    "Item",
    "Stored",
    "View",
    "as_view",
    "compare",
    "explain",
    "look",
    "staged",
]
