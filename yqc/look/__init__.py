"""Views of graphs, whatever file they come from; printers of views; differences of two."""

from yqc.look.diff import Diff, compare
from yqc.look.explained import Explained
from yqc.look.view import HeldTensor, View, ViewNode

__all__ = ["Diff", "Explained", "HeldTensor", "View", "ViewNode", "compare"]
