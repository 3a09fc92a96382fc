"""Views of graphs of any origin: print them, compare them, draw them.

`view`       a graph as a list of nodes
`fxview`     the view of an fx graph
`onnxview`   the view of an ONNX file
`summary`    checkpoints and graph files in a few lines
`diff`       what differs between two views
`explained`  what a pass would do, and what it refuses
`pages`      tables for the terminal
`printers`   Graphviz
`layout`     positions of the nodes in a drawing
"""

from yqc.look import pages  # how they print
from yqc.look.diff import Diff, compare_views
from yqc.look.explained import Explained, Explanation
from yqc.look.view import HeldTensor, NodeView, OnnxSummary, View, ViewNode

__all__ = [
    "Diff",
    "Explained",
    "Explanation",
    "HeldTensor",
    "NodeView",
    "OnnxSummary",
    "View",
    "ViewNode",
    "compare_views",
    "pages",
]
