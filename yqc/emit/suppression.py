"""Put suppression into a detector's file, as standard operations.

The layout of `output0` becomes that of an end-to-end head: float32 [N, top, 6 + E], a box, its
score, its class, its further numbers (coefficients, keypoints), by falling score; rows that are not
used are 0. A box counts with its best class, as the projects' `predict` does, or with each
(`multi_label`). Boxes that are turned go to `rotated`, since NonMaxSuppression knows none.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper

from yqc.emit.rotated import suppress_turned
from yqc.emit.wiring import NONE, OUTPUT, GraphWriter, rename
from yqc.errors import EmitError
from yqc.facts import OutputForm

RAW = "output0_raw"


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


def check_suppression(form: OutputForm | None) -> None:
    """Refuse suppression of outputs that are not those of boxes, or are suppressed already.

    Raises:
        EmitError: saying which.
    """
    layout = None if form is None else form.layout
    if layout in {"yolov5", "yolov8"}:
        return
    why = {
        "end2end": "this detector's output is suppressed already",
        "classes": "a classifier has no boxes",
    }.get(layout or "", "the model's output is not that of a YOLO detector")
    raise EmitError(f"--nms: {why}; leave --nms out")


def suppress(graph: onnx.GraphProto, options: Suppression, form: OutputForm) -> None:
    """Turn `output0` into [N, top, 6 + E]; below, M is how many boxes NonMaxSuppression keeps."""
    rename(graph, OUTPUT, RAW)
    w, dims = GraphWriter(graph), graph.output[0].type.tensor_type.shape.dim
    boxes, scores, extra, nc = _parts(w, form)
    w.constant(NONE, 0.0, np.float32)
    best = None if options.multi_label else _best_class(w, scores)
    if best is not None:
        together = options.agnostic and form.task != "obb"
        scores = _scores_of_best(w, scores, best, nc, together=together)
    for name, value in (("nms_iou", options.iou), ("nms_conf", options.conf)):
        w.constant(name, [value], np.float32)
        if options.inputs:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    for dim, size in ((dims[1], options.top), (dims[2], 6 + form.extra)):
        dim.Clear()
        dim.dim_value = size
    if form.task == "obb" and extra is not None:
        turned = w.op("Concat", [boxes, extra], "nms_turned_boxes", axis=2)
        suppress_turned(w, turned, scores, nc, top=options.top, agnostic=options.agnostic)
        return
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
    rows = _kept_rows(w, chosen, boxes, cls, extra, form, options.top)
    ranked = _scores_by_image(w, chosen, scores, columns, most)
    _best_rows(w, rows, ranked, columns[2], most, form.extra)


def _best_class(w: GraphWriter, scores: str) -> str:
    """Return the class of the highest score of each box, int64 [N, 1, A]."""
    return w.op("ArgMax", [scores], "nms_best_class", axis=1, keepdims=1)


def _scores_of_best(w: GraphWriter, scores: str, best: str, nc: int, *, together: bool) -> str:
    """Return the scores of the best classes: [N, 1, A] `together`, else [N, nc, A] with zeros."""
    if together:
        return w.op("GatherElements", [scores, best], "nms_best_scores", axis=1)
    classes = w.constant("nms_classes", np.arange(nc).reshape(1, nc, 1), np.int64)
    mask = w.op("Equal", [best, classes], "nms_is_best")
    return w.op("Where", [mask, scores, NONE], "nms_best_scores")


def _kept_rows(
    w: GraphWriter, chosen: str, boxes: str, cls: str, extra: str | None, form: OutputForm, top: int
) -> str:
    """Return corners, class and extra of the kept boxes, and `top` rows of zeros: [M + top, 5 + E].

    `extra` are further numbers of each box, [N, A, E].
    """
    place = w.op("Gather", [chosen, w.ints("nms_place", 0, 2)], "nms_image_box", axis=1)
    corners = _corners(w, w.op("GatherND", [boxes, place], "nms_xywh"))  # [M, 4]
    label = w.op("Cast", [cls], "nms_label", to=TensorProto.FLOAT)
    more = [w.op("GatherND", [extra, place], "nms_extra_rows")] if extra else []
    rows = w.op("Concat", [corners, label, *more], "nms_rows", axis=1)  # [M, 5 + E]
    pad = w.constant("nms_pad_rows", np.zeros((top, 5 + form.extra)), np.float32)
    return w.op("Concat", [rows, pad], "nms_rows_padded", axis=0)


def _scores_by_image(
    w: GraphWriter, chosen: str, scores: str, columns: list[str], most: str
) -> str:
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


def _best_rows(
    w: GraphWriter, rows: str, ranked: str, last_axis: str, most: str, extra: int
) -> None:
    """Write `output0`: of each image the rows with the best scores; rows not used are 0."""
    w.ops("TopK", [ranked, most], ["nms_best", "nms_at"], "nms_topk", axis=1)
    given = w.op("Gather", [rows, "nms_at"], "nms_given", axis=0)  # [N, top, 5 + E]
    column = w.op("Unsqueeze", ["nms_best", last_axis], "nms_best_column")  # [N, top, 1]
    used = w.op("Greater", [column, NONE], "nms_used")
    given = w.op("Where", [used, given, NONE], "nms_used_rows")
    sizes = w.ints("nms_split", *([4, 1, extra] if extra else [4, 1]))
    box, *rest = parts = ["nms_xyxy", "nms_cls", *(["nms_extra"] if extra else [])]
    w.ops("Split", [given, sizes], parts, "nms_parts", axis=2)
    w.op("Concat", [box, column, *rest], OUTPUT, axis=2)


def _parts(w: GraphWriter, form: OutputForm) -> tuple[str, str, str | None, int]:
    """Return boxes [N, A, 4] as centre and size, scores [N, nc, A], [N, A, E] if E > 0, and nc."""
    axis, scored = (1, 4) if form.layout == "yolov8" else (2, 5)
    dims = w.graph.output[0].type.tensor_type.shape.dim
    classes = dims[axis].dim_value - scored - form.extra
    sizes = {"nms_boxes_of": 4, "nms_objectness": 1, "nms_scores_of": classes}
    if form.layout == "yolov8":
        del sizes["nms_objectness"]
    if form.extra:
        sizes["nms_extra_of"] = form.extra
    w.ops(
        *("Split", [RAW, w.ints("nms_sizes", *sizes.values())], [*sizes], "nms_split_raw"),
        axis=axis,
    )
    boxes, scores, extra = "nms_boxes_of", "nms_scores_of", "nms_extra_of" if form.extra else None
    if form.layout == "yolov8":
        boxes = w.op("Transpose", [boxes], "nms_boxes", perm=[0, 2, 1])
        extra = extra and w.op("Transpose", [extra], "nms_extra_numbers", perm=[0, 2, 1])
        return boxes, scores, extra, classes
    scores = w.op("Mul", ["nms_objectness", scores], "nms_products")
    scores = w.op("Transpose", [scores], "nms_scores", perm=[0, 2, 1])
    return boxes, scores, extra, classes


def _corners(w: GraphWriter, xywh: str) -> str:
    """Turn [M, 4] of centre and size into left, top, right, bottom."""
    halves = w.ints("nms_halves", 2, 2)
    w.ops("Split", [xywh, halves], ["nms_xy", "nms_wh"], "nms_box", axis=1)
    half = w.op("Mul", ["nms_wh", w.constant("nms_half", 0.5, np.float32)], "nms_half_wh")
    first = w.op("Sub", ["nms_xy", half], "nms_first")
    last = w.op("Add", ["nms_xy", half], "nms_last")
    return w.op("Concat", [first, last], "nms_corners", axis=1)
