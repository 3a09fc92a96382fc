"""Views of graphs of any origin: print them, compare them, draw them.

`view`       a graph as a list of nodes
`fxview`     the view of an fx graph
`onnxview`   the view of an ONNX file
`summary`    checkpoints and graph files in a few lines
`diff`       what differs between two views
`explained`  what a pass would do, and what it refuses
`pages`      tables for the terminal
`printers`   Graphviz and JSON
`layout`     positions of the nodes in a drawing
"""

from yqc.look.diff import Diff, compare_views
from yqc.look.explained import Explained
from yqc.look.view import HeldTensor, View, ViewNode

__all__ = ["Diff", "Explained", "HeldTensor", "View", "ViewNode", "compare_views"]
