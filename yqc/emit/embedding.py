"""Put suppression into a detector's file, and let it take bytes or halves and give halves.

1. `nms` appends a standard NonMaxSuppression and gives `output0` the form of an end-to-end head,
   float32 [N, top, 6]: x1 y1 x2 y2 score class, by falling score; rows that are not used are 0. A
   box counts with its best class, as the projects' `predict` does, or with each (`multi_label`).
2. `uint8-input` makes `images` uint8 0..255 of the same shape, and divides by 255 in the graph; an
   int8 file whose first step is 1/255 with zero point 0 then reads the bytes as they are.
3. `fp16-io` makes float inputs and outputs float16; between them only a conversion of the input to
   half goes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from yqc.emit.simplify import check_model
from yqc.errors import EmitError
from yqc.facts import OutputForm
from yqc.pipeline.grammar import caret, split
from yqc.pipeline.options import build_options
from yqc.settings import Settings

OUTPUT, IMAGES = "output0", "images"
RAW = "output0_raw"
NONE = "nms_none"
"""The constant 0: the score of no box."""


@dataclass(frozen=True)
class Suppression:
    """Options of `nms`."""

    name: ClassVar[str] = "nms"

    iou: float = 0.65
    """Overlap above which the lower score goes."""
    conf: float = 0.25
    """Score that a box must exceed."""
    top: int = 300
    """Boxes an image that are given."""
    multi_label: bool = False
    """Give a box once for each class that exceeds `conf`, as the projects evaluate, not once."""
    agnostic: bool = False
    """Let boxes of different classes suppress each other."""
    inputs: bool = False
    """Make `nms_iou` and `nms_conf` inputs whose defaults these are."""

    def __post_init__(self) -> None:
        if not (0 <= self.iou <= 1 and 0 <= self.conf <= 1 and self.top > 0):
            raise ValueError("iou and conf are within 0..1 and top is above 0")
        if self.agnostic and self.multi_label:
            raise ValueError("agnostic is for boxes of one class each; leave multi_label out")


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

    The output's layout is `yolov5` (float32 [N, A, 5+nc]) or `yolov8` ([N, 4+nc, A]) where
    suppression is wanted.

    Raises:
        EmitError: the detector does not take it, or the result does not pass the checker.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if embedding.nms is not None:
        layout = None if form is None else form.layout
        if layout not in {"yolov5", "yolov8"}:
            raise EmitError(
                "--nms: this detector's output is suppressed already; leave --nms out"
                if layout == "end2end"
                else "--nms: the model's output is not that of a YOLO detector; leave --nms out"
            )
        _suppress(made.graph, embedding.nms, layout)
    if embedding.uint8_input:
        _take_bytes(made.graph)
    if embedding.fp16_io:
        _go_half(made.graph)
    check_model(made)
    return made


class _Writer:
    """Appends nodes to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph

    def constant(self, name: str, value: object, dtype: type[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def op(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401  # as ONNX takes them
        self.ops(op_type, inputs, [output], output, **attributes)
        return output

    def ops(
        self,
        op_type: str,
        inputs: list[str],
        outputs: list[str],
        name: str,
        **attributes: Any,  # noqa: ANN401
    ) -> None:
        node = helper.make_node(op_type, inputs, outputs, name=name, **attributes)
        self.graph.node.append(node)

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, list(values), np.int64)


def _suppress(graph: onnx.GraphProto, options: Suppression, layout: str) -> None:
    """Turn `output0` into [N, top, 6]; below, M is how many boxes NonMaxSuppression keeps."""
    rename(graph, OUTPUT, RAW)
    w, dims = _Writer(graph), graph.output[0].type.tensor_type.shape.dim
    boxes, scores, nc = _parts(w, layout)
    w.constant(NONE, 0.0, np.float32)
    best = None if options.multi_label else _best_class(w, scores)
    if best is not None:
        scores = _scores_of_best(w, scores, best, nc, together=options.agnostic)
    for name, value in (("nms_iou", options.iou), ("nms_conf", options.conf)):
        w.constant(name, [value], np.float32)
        if options.inputs:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    most = w.ints("nms_top", options.top)
    chosen = w.op(
        *("NonMaxSuppression", [boxes, scores, most, "nms_iou", "nms_conf"], "nms"),
        center_point_box=1,
    )  # int64 [M, 3]: image, class, box
    columns = [w.ints(f"nms_column_{i}", i) for i in range(3)]
    if best is not None and options.agnostic:
        found = w.op("GatherND", [best, chosen], "nms_class_row")  # [M]
        cls = w.op("Unsqueeze", [found, columns[1]], "nms_class")
    else:
        cls = w.op("Gather", [chosen, columns[1]], "nms_class", axis=1)  # [M, 1]
    rows = _kept_rows(w, chosen, boxes, cls, options.top)
    ranked = _scores_by_image(w, chosen, scores, columns, most)
    _best_rows(w, rows, ranked, columns[2], most)
    for dim, size in ((dims[1], options.top), (dims[2], 6)):
        dim.Clear()
        dim.dim_value = size


def _best_class(w: _Writer, scores: str) -> str:
    """Return the class of the highest score of each box, int64 [N, 1, A]."""
    return w.op("ArgMax", [scores], "nms_best_class", axis=1, keepdims=1)


def _scores_of_best(w: _Writer, scores: str, best: str, nc: int, *, together: bool) -> str:
    """Return the scores of the best classes: [N, 1, A] `together`, else [N, nc, A] with zeros."""
    if together:
        return w.op("GatherElements", [scores, best], "nms_best_scores", axis=1)
    classes = w.constant("nms_classes", np.arange(nc).reshape(1, nc, 1), np.int64)
    mask = w.op("Equal", [best, classes], "nms_is_best")
    return w.op("Where", [mask, scores, NONE], "nms_best_scores")


def _kept_rows(w: _Writer, chosen: str, boxes: str, cls: str, top: int) -> str:
    """Return corners and class of the kept boxes, and `top` rows of zeros: [M + top, 5]."""
    place = w.op("Gather", [chosen, w.ints("nms_place", 0, 2)], "nms_image_box", axis=1)
    corners = _corners(w, w.op("GatherND", [boxes, place], "nms_xywh"))  # [M, 4]
    label = w.op("Cast", [cls], "nms_label", to=TensorProto.FLOAT)
    rows = w.op("Concat", [corners, label], "nms_rows", axis=1)  # [M, 5]
    pad = w.constant("nms_pad_rows", np.zeros((top, 5)), np.float32)
    return w.op("Concat", [rows, pad], "nms_rows_padded", axis=0)


def _scores_by_image(w: _Writer, chosen: str, scores: str, columns: list[str], most: str) -> str:
    """Return the scores of the kept boxes, 0 in other images than their own: [N, M + top]."""
    found = w.op("GatherND", [scores, chosen], "nms_score")  # [M]
    image = w.op("Gather", [chosen, columns[0]], "nms_image", axis=1)  # [M, 1]
    shape = w.op("Shape", [RAW], "nms_shape")
    batch = w.op("Slice", [shape, w.ints("nms_from", 0), w.ints("nms_to", 1)], "nms_batch")
    count = w.op("Squeeze", [batch], "nms_count")
    zero, one = w.constant("nms_zero", 0, np.int64), w.constant("nms_one", 1, np.int64)
    every = w.op("Range", [zero, count, one], "nms_images")  # [N]
    every = w.op("Unsqueeze", [every, columns[1]], "nms_images_column")  # [N, 1]
    own = w.op("Equal", [every, w.op("Transpose", [image], "nms_image_row")], "nms_mine")  # [N, M]
    ranked = w.op("Where", [own, found, NONE], "nms_ranked")  # [N, M]
    size = w.op("Concat", [batch, most], "nms_pad_size", axis=0)
    spare = w.op("Expand", [NONE, size], "nms_pad_scores")
    return w.op("Concat", [ranked, spare], "nms_ranked_padded", axis=1)


def _best_rows(w: _Writer, rows: str, ranked: str, last_axis: str, most: str) -> None:
    """Write `output0`: of each image the rows with the best scores; rows not used are 0."""
    w.ops("TopK", [ranked, most], ["nms_best", "nms_at"], "nms_topk", axis=1)
    given = w.op("Gather", [rows, "nms_at"], "nms_given", axis=0)  # [N, top, 5]
    column = w.op("Unsqueeze", ["nms_best", last_axis], "nms_best_column")  # [N, top, 1]
    used = w.op("Greater", [column, NONE], "nms_used")
    given = w.op("Where", [used, given, NONE], "nms_used_rows")
    sizes = w.ints("nms_split", 4, 1)
    w.ops("Split", [given, sizes], ["nms_xyxy", "nms_cls"], "nms_parts", axis=2)
    w.op("Concat", ["nms_xyxy", column, "nms_cls"], OUTPUT, axis=2)


def _parts(w: _Writer, layout: str) -> tuple[str, str, int]:
    """Return boxes [N, A, 4] as centre and size, scores [N, nc, A], and nc."""
    axis = 1 if layout == "yolov8" else 2
    dims = w.graph.output[0].type.tensor_type.shape.dim
    classes = dims[axis].dim_value - axis - 3  # 4 + nc, or 5 + nc
    sizes = [4, classes] if layout == "yolov8" else [4, 1, classes]
    names = ["nms_boxes_of", "nms_scores_of"]
    if layout == "yolov5":
        names.insert(1, "nms_objectness")
    sizes_name = w.ints("nms_sizes", *sizes)
    w.ops("Split", [RAW, sizes_name], names, "nms_split_raw", axis=axis)
    if layout == "yolov8":
        return w.op("Transpose", [names[0]], "nms_boxes", perm=[0, 2, 1]), names[1], classes
    scores = w.op("Mul", [names[1], names[2]], "nms_products")
    return names[0], w.op("Transpose", [scores], "nms_scores", perm=[0, 2, 1]), classes


def _corners(w: _Writer, xywh: str) -> str:
    """Turn [M, 4] of centre and size into left, top, right, bottom."""
    halves = w.ints("nms_halves", 2, 2)
    w.ops("Split", [xywh, halves], ["nms_xy", "nms_wh"], "nms_box", axis=1)
    half = w.op("Mul", ["nms_wh", w.constant("nms_half", 0.5, np.float32)], "nms_half_wh")
    first = w.op("Sub", ["nms_xy", half], "nms_first")
    last = w.op("Add", ["nms_xy", half], "nms_last")
    return w.op("Concat", [first, last], "nms_corners", axis=1)


def _take_bytes(graph: onnx.GraphProto) -> None:
    """Let the input be uint8 0..255."""
    image = graph.input[0]
    image.type.tensor_type.elem_type = TensorProto.UINT8
    readers = [node for node in graph.node if image.name in node.input]
    if len(readers) == 1 and _is_byte_step(graph, readers[0], image.name):
        _bypass(graph, readers[0])
        return
    rename(graph, image.name, f"{image.name}_scaled", outputs=False)
    w = _Writer(graph)
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
    w, done = _Writer(graph), 0
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


def rename(graph: onnx.GraphProto, old: str, new: str, *, outputs: bool = True) -> None:
    """Rename a value wherever nodes read it, and where one makes it."""
    for node in graph.node:
        if outputs and old in node.output and node.name == old:
            node.name = new
        for names in (node.input, node.output) if outputs else (node.input,):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _to_front(graph: onnx.GraphProto, count: int) -> None:
    """Move the last `count` nodes before all others."""
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes[len(nodes) - count :], *nodes[: len(nodes) - count]])
