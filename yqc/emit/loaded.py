"""Find weights that a file stores unpacked, or that onnxruntime decodes at every inference."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto
from torch import fx

from yqc.emit.tensors import initializers
from yqc.graph import is_function
from yqc.onnx_file import name_or_bytes
from yqc.quant.weights.ops import UNPACK

WEIGHTS = {"Conv": 1, "FusedConv": 1, "ConvTranspose": 1, "QLinearConv": 3}
"""Convolutions of a loaded model, and at which input their weight is."""
LEVEL = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
"""All optimisations but those of the layout, which depend on the machine and fold no constants."""


def list_unpacked(gm: fx.GraphModule, model: onnx.ModelProto) -> tuple[str, ...]:
    """List the packed weights of a graph that a model stores as floats, by name."""
    packed = {node.name for node in gm.graph.nodes if is_function(node, *UNPACK)}
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    stored = (t.name for t in initializers(model.graph) if t.data_type in floats)
    return tuple(name for name in stored if name in packed)


def list_decoded(file: Path) -> tuple[str, ...]:
    """List the stored weights that onnxruntime still computes behind its optimisation of a file.

    The optimised graph is looked at: a weight that it computes from stored tensors alone is decoded
    at every inference. One that depends on an input of the model does not count.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVEL
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "loaded.onnx")
        source = name_or_bytes(file)
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    varies = {value.name for value in graph.input}
    made: set[str] = set()
    for node in graph.node:
        made.update(node.output)
        if varies.intersection(node.input):
            varies.update(node.output)
    read = [n.input[WEIGHTS[n.op_type]] for n in graph.node if n.op_type in WEIGHTS]
    return tuple(dict.fromkeys(name for name in read if name in made and name not in varies))
