"""Suppress oriented boxes in a detector's file: fast NMS by the overlap of Gaussians.

A box of width w and height h turned by t is a Gaussian of covariance R(t) diag(w^2, h^2)/12 R(t)^T
about its centre. Two overlap by 1 - H, H the Hellinger distance sqrt(1 - exp(-B)) of the
Gaussians, B their Bhattacharyya distance (Llerena et al. 2021, arXiv 2106.06072, "ProbIoU").
A box goes if one of a higher score overlaps it by more than the threshold, one that goes itself
included (fast NMS, Bolya et al. 2019, YOLACT): so Ultralytics suppresses them, and one matrix
decides all at once.
"""

import numpy as np
from onnx import TensorProto

from yqc.emit.wiring import NONE, OUTPUT, GraphWriter

CANDIDATES = 1024
"""Pairs of box and class, the best of an image, that are compared with each other.

Fewer where fewer exceed `conf`. The comparison takes K x K numbers a few times: at most 4 MB each.
Half of it drops weak boxes of crowded images at low `conf`; double takes up to four times the time
and memory, and changes an image only where more than 1024 pairs exceed `conf`.
"""
SMALL = 1e-7
"""Added where boxes without area would divide by 0 or take the logarithm of 0; below float32's
resolution of 1 (1.2e-7), so that half or double of it changes nothing else."""


def suppress_turned(
    w: GraphWriter,
    boxes: str,
    scores: str,
    nc: int,
    *,
    top: int,
    agnostic: bool,
) -> None:
    """Write the kept boxes as `output0`, float32 [N, top, 7]: cx cy w h score class angle.

    Args:
        w: of the detector's graph, which has the values `nms_iou` and `nms_conf`, float32 [1].
        boxes: float32 [N, A, 5]: centre, size, angle in radians.
        scores: float32 [N, nc, A]; 0 for classes that a box does not count with.
        nc: how many classes.
        top: rows that are given.
        agnostic: whether boxes of different classes suppress each other.
    """
    score, cls, box, many = _candidates(w, boxes, scores, nc)
    for axis in range(3):
        w.ints(f"nms_axis_{axis}", axis)
    overlap = _overlaps(w, box)  # [N, K, K]
    gone = w.op("Greater", [overlap, "nms_iou"], "nms_overlaps")
    if not agnostic:
        pair = [w.op("Unsqueeze", [cls, f"nms_axis_{i}"], f"nms_cls_{i}") for i in (1, 2)]
        gone = w.op("And", [gone, w.op("Equal", pair, "nms_same_class")], "nms_rivals")
    gone = w.op("And", [gone, _is_better(w, many)], "nms_beats")
    number = w.op("Cast", [gone], "nms_beat", to=TensorProto.FLOAT)
    beaten = w.op("ReduceSum", [number, w.ints("nms_rows_axis", 1)], "nms_beaten", keepdims=0)
    alive = w.op("Less", [beaten, w.constant("nms_half", 0.5, np.float32)], "nms_alive")  # [N, K]
    strong = w.op("Greater", [score, "nms_conf"], "nms_strong")
    kept = w.op("Where", [w.op("And", [alive, strong], "nms_kept"), score, NONE], "nms_kept_scores")
    _write_rows(w, kept, cls, box, top)


def _candidates(w: GraphWriter, boxes: str, scores: str, nc: int) -> tuple[str, str, str, str]:
    """Return of the best pairs scores and classes [N, K], boxes [N, K, 5], and K."""
    flat = w.op("Flatten", [scores], "nms_flat", axis=1)  # [N, nc * A]
    ends = [w.ints("nms_from", 1), w.ints("nms_to", 2)]
    size = w.op("Slice", [w.op("Shape", [flat], "nms_flat_shape"), *ends], "nms_pairs")
    many = _count(w, flat)
    w.ops("TopK", [flat, many], ["nms_score", "nms_pair"], "nms_candidates", axis=1)
    cells = w.op("Div", [size, w.ints("nms_class_count", nc)], "nms_cells")
    cls = w.op("Div", ["nms_pair", cells], "nms_class")
    place = w.op("Mod", ["nms_pair", cells], "nms_cell")
    index = w.op("Unsqueeze", [place, w.ints("nms_last", 2)], "nms_cell_column")
    box = w.op("GatherND", [boxes, index], "nms_candidate", batch_dims=1)
    return "nms_score", cls, box, many


def _count(w: GraphWriter, flat: str) -> str:
    """Return how many candidates are looked at, [1]: the scores that count in the fullest image."""
    counts = w.op(
        "Cast",
        [w.op("Greater", [flat, "nms_conf"], "nms_counts")],
        "nms_counted",
        to=TensorProto.INT64,
    )
    own = w.op("ReduceSum", [counts, w.ints("nms_pairs_axis", 1)], "nms_own", keepdims=0)  # [N]
    fullest = w.op("ReduceMax", [own], "nms_fullest", keepdims=0)
    some = w.op("Max", [fullest, w.ints("nms_least", 1)], "nms_some")
    return w.op("Min", [some, w.ints("nms_most", CANDIDATES)], "nms_count")


def _is_better(w: GraphWriter, many: str) -> str:
    """Return whether row i's candidate comes before column j's, [K, K]."""
    zero, one = w.constant("nms_0", 0, np.int64), w.constant("nms_step", 1, np.int64)
    rank = w.op("Range", [zero, w.op("Squeeze", [many], "nms_k"), one], "nms_rank")
    pair = [w.op("Unsqueeze", [rank, f"nms_axis_{i}"], f"nms_rank_{i}") for i in (1, 0)]
    return w.op("Less", pair, "nms_before")


def _overlaps(w: GraphWriter, box: str) -> str:
    """Return how much each two boxes of an image overlap, [N, K, K]."""
    names = [f"nms_{name}" for name in ("x", "y", "w", "h", "turn")]
    w.ops("Split", [box, w.ints("nms_ones", 1, 1, 1, 1, 1)], names, "nms_columns", axis=2)
    x, y, wide, high, turn = names  # [N, K, 1] each
    math = _Math(w)
    twelfth = math.number(1 / 12)
    along, across = (math.mul(math.mul(side, side), twelfth) for side in (wide, high))
    cos, sin = w.op("Cos", [turn], "nms_cos"), w.op("Sin", [turn], "nms_sin")
    cos2, sin2 = math.mul(cos, cos), math.mul(sin, sin)
    a = math.add(math.mul(along, cos2), math.mul(across, sin2))
    b = math.add(math.mul(along, sin2), math.mul(across, cos2))
    c = math.mul(math.sub(along, across), math.mul(cos, sin))
    own = math.most(math.sub(math.mul(a, b), math.mul(c, c)), math.number(0))
    a, b, c = (math.add(each, math.turned(each)) for each in (a, b, c))  # [N, K, K]
    dx, dy = (math.sub(each, math.turned(each)) for each in (x, y))
    det = math.sub(math.mul(a, b), math.mul(c, c))
    apart = math.sub(
        math.add(math.mul(a, math.mul(dy, dy)), math.mul(b, math.mul(dx, dx))),
        math.mul(math.mul(c, math.number(2)), math.mul(dx, dy)),
    )
    apart = math.mul(math.div(apart, math.small(det)), math.number(0.25))
    both = math.op("Sqrt", math.mul(own, math.turned(own)))
    ratio = math.div(det, math.small(math.mul(both, math.number(4))))
    alike = math.mul(math.op("Log", math.small(ratio)), math.number(0.5))
    distance = math.most(math.add(apart, alike), math.number(0))
    gone = math.op("Exp", math.op("Neg", distance))
    hellinger = math.op("Sqrt", math.small(math.sub(math.number(1), gone)))
    return math.sub(math.number(1), hellinger)


class _Math:
    """Writes arithmetic of unnamed values."""

    def __init__(self, writer: GraphWriter) -> None:
        self.writer, self.count = writer, 0
        self.numbers: dict[float, str] = {}

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        self.count += 1
        return self.writer.op(op_type, list(inputs), f"nms_iou_{self.count}", **attributes)

    def number(self, value: float) -> str:
        """Return a constant, stored once."""
        if value not in self.numbers:
            name = f"nms_number_{len(self.numbers)}"
            self.numbers[value] = self.writer.constant(name, value, np.float32)
        return self.numbers[value]

    def add(self, x: str, y: str) -> str:
        return self.op("Add", x, y)

    def sub(self, x: str, y: str) -> str:
        return self.op("Sub", x, y)

    def mul(self, x: str, y: str) -> str:
        return self.op("Mul", x, y)

    def div(self, x: str, y: str) -> str:
        return self.op("Div", x, y)

    def most(self, x: str, y: str) -> str:
        return self.op("Max", x, y)

    def small(self, x: str) -> str:
        """Add a number that keeps it from 0."""
        return self.op("Add", x, self.number(SMALL))

    def turned(self, x: str) -> str:
        """Turn a column [N, K, 1] into a row [N, 1, K]."""
        return self.op("Transpose", x, perm=[0, 2, 1])


def _write_rows(w: GraphWriter, kept: str, cls: str, box: str, top: int) -> None:
    """Write the rows of the best kept scores [N, K], and rows of zeros up to `top`."""
    shape = w.op("Shape", [kept], "nms_kept_shape")  # [N, K]
    batch = w.op("Slice", [shape, w.ints("nms_zero", 0), w.ints("nms_one", 1)], "nms_batch")
    most = w.ints("nms_top", top)
    spare = w.op(
        "Expand", [NONE, w.op("Concat", [batch, most], "nms_spare_shape", axis=0)], "nms_spare"
    )
    ranked = w.op("Concat", [kept, spare], "nms_ranked", axis=1)  # [N, K + top]
    w.ops("TopK", [ranked, most], ["nms_best", "nms_at"], "nms_topk", axis=1)
    last = w.op("Slice", [shape, "nms_one", w.ints("nms_two", 2)], "nms_kept_count")
    limit = w.op("Sub", [last, "nms_one"], "nms_last_kept")
    at = w.op("Unsqueeze", [w.op("Min", ["nms_at", limit], "nms_place"), "nms_last"], "nms_places")
    label = w.op("Cast", [cls], "nms_label", to=TensorProto.FLOAT)
    label = w.op("Unsqueeze", [label, "nms_last"], "nms_label_column")
    rows = w.op("Concat", [box, label], "nms_rows", axis=2)  # [N, K, 6]
    given = w.op("GatherND", [rows, at], "nms_given", batch_dims=1)
    column = w.op("Unsqueeze", ["nms_best", "nms_last"], "nms_best_column")
    used = w.op("Greater", [column, NONE], "nms_used")
    given = w.op("Where", [used, given, NONE], "nms_used_rows")
    parts = ["nms_xywh", "nms_angle", "nms_cls"]
    w.ops("Split", [given, w.ints("nms_split", 4, 1, 1)], parts, "nms_parts", axis=2)
    w.op("Concat", ["nms_xywh", column, "nms_cls", "nms_angle"], OUTPUT, axis=2)
