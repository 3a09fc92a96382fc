"""Put suppression into a detector's file, and let it take bytes or halves and give halves.

1. `nms` gives `output0` the form of an end-to-end head: see `suppression`.
2. `uint8-input` makes `images` uint8 0..255 of the same shape, and divides by 255 in the graph; an
   int8 file whose first step is 1/255 with zero point 0 then reads the bytes as they are.
3. `fp16-io` makes float inputs and outputs float16; between them only a conversion of the input to
   half goes.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from yqc.emit.simplify import check_model
from yqc.emit.suppression import Suppression, check_suppression, suppress
from yqc.emit.wiring import GraphWriter, rename
from yqc.facts import OutputForm
from yqc.pipeline.grammar import caret, split
from yqc.pipeline.options import build_options
from yqc.settings import Settings


@dataclass(frozen=True)
class Embedding:
    """Which of suppression, bytes and halves a detector's file gets."""

    nms: Suppression | None = None
    uint8_input: bool = False
    fp16_io: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "Embedding":
        """Read what the settings ask for.

        Raises:
            PipelineError: an option of suppression that does not exist; a caret shows where.
        """
        nms = None
        if settings.nms or settings.nms_options:
            text = f"nms{{{settings.nms_options}}}"
            first, *more = split(text)
            if more:
                raise caret("expected an option", text, more[0].at)
            nms = build_options(Suppression, first, text)
        return cls(nms, settings.uint8_input, settings.fp16_io)

    def __bool__(self) -> bool:
        return self != Embedding()


def embed(model: onnx.ModelProto, embedding: Embedding, form: OutputForm | None) -> onnx.ModelProto:
    """Return a copy of a detector with suppression and other input and output types.

    The output's layout is `yolov5` or `yolov8` where suppression is wanted.

    Raises:
        EmitError: the detector does not take it, or the result does not pass the checker.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if embedding.nms is not None:
        check_suppression(form)
        if form is not None:
            suppress(made.graph, embedding.nms, form)
    if embedding.uint8_input:
        _take_bytes(made.graph)
    if embedding.fp16_io:
        _go_half(made.graph)
    check_model(made)
    return made


def _take_bytes(graph: onnx.GraphProto) -> None:
    """Let the input be uint8 0..255."""
    image = graph.input[0]
    image.type.tensor_type.elem_type = TensorProto.UINT8
    readers = [node for node in graph.node if image.name in node.input]
    if len(readers) == 1 and _is_byte_step(graph, readers[0], image.name):
        _bypass(graph, readers[0])
        return
    rename(graph, image.name, f"{image.name}_scaled", outputs=False)
    w = GraphWriter(graph)
    w.op("Cast", [image.name], f"{image.name}_float", to=TensorProto.FLOAT)
    most = w.constant(f"{image.name}_255", 255.0, np.float32)
    w.op("Div", [f"{image.name}_float", most], f"{image.name}_scaled")
    _to_front(graph, 2)


def _bypass(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Remove a node; what reads its result reads its first input instead."""
    graph.node.remove(node)
    rename(graph, node.output[0], node.input[0], outputs=False)


def _is_byte_step(graph: onnx.GraphProto, node: onnx.NodeProto, image: str) -> bool:
    """Return whether a node turns k/255 into the byte k."""
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in node.input}
    if node.op_type != "QuantizeLinear" or node.input[0] != image or len(found) != 2:  # noqa: PLR2004
        return False
    scale, zero = found[node.input[1]], found[node.input[2]]
    exact = np.isclose(scale, 1 / 255, rtol=1e-6, atol=0).all()
    return bool(exact and zero.dtype == np.uint8 and not zero.any())


def _go_half(graph: onnx.GraphProto) -> None:
    """Let float inputs and outputs be float16, with a cast behind or before each."""
    w, done = GraphWriter(graph), 0
    for value in graph.input:
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT and not value.name.startswith("nms_"):
            kind.elem_type = TensorProto.FLOAT16
            readers = [node for node in graph.node if value.name in node.input]
            if all(_is_cast_to_half(node) for node in readers):
                for node in readers:
                    _bypass(graph, node)
                continue
            rename(graph, value.name, f"{value.name}_float", outputs=False)
            w.op("Cast", [value.name], f"{value.name}_float", to=TensorProto.FLOAT)
            done += 1
    _to_front(graph, done)
    for value in graph.output:
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            kind.elem_type = TensorProto.FLOAT16
            rename(graph, value.name, f"{value.name}_float")
            w.op("Cast", [f"{value.name}_float"], value.name, to=TensorProto.FLOAT16)


def _is_cast_to_half(node: onnx.NodeProto) -> bool:
    """Return whether a node converts its input to half."""
    to = next((a.i for a in node.attribute if a.name == "to"), None)
    return node.op_type == "Cast" and to == TensorProto.FLOAT16


def _to_front(graph: onnx.GraphProto, count: int) -> None:
    """Move the last `count` nodes before all others."""
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes[len(nodes) - count :], *nodes[: len(nodes) - count]])
