"""Find out which convolutions of an ONNX graph a runtime puts on integer kernels."""

from onnx import NodeProto

from yqc.emit.wiring import Wiring

DEQUANTIZE = "DequantizeLinear"
ACROSS = frozenset({"Relu", "Clip"})
"""What onnxruntime takes into an integer convolution on the way to QuantizeLinear."""

PASSING = frozenset({"Concat", "Split", "MaxPool", "Resize"})
"""What may stand between DequantizeLinear and an integer convolution: it hands on values."""


def reads_integers(conv: NodeProto, w: Wiring) -> bool:
    """Return whether a convolution reads dequantized values, directly or passed through."""
    todo = [conv.input[0]]
    while todo:
        node = w.made.get(todo.pop())
        if node is None or node.op_type not in {DEQUANTIZE, *PASSING}:
            return False
        if node.op_type == "Concat":
            todo += node.input
        elif node.op_type in PASSING:
            todo.append(node.input[0])
    return True


def makes_integers(conv: NodeProto, w: Wiring) -> bool:
    """Return whether the result of a convolution is quantized by all that read it."""
    behind = w.readers[conv.output[0]]
    while len(behind) == 1 and behind[0].op_type in ACROSS:
        behind = w.readers[behind[0].output[0]]
    return bool(behind) and all(node.op_type == "QuantizeLinear" for node in behind)
