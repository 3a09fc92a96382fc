"""Suppression, byte input and half precision around a detector give what the plain file gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import yqc
from yqc.emit import emit
from yqc.emit.embedding import Embedding, embed
from yqc.emit.roundtrip import OPTIMISED, open_session
from yqc.emit.suppression import Suppression
from yqc.errors import EmitError, PipelineError
from yqc.evaluation.decode import detections
from yqc.facts import OutputForm
from yqc.models.trace import trace
from yqc.runtime import nms
from yqc.settings import Settings, choose, read_recipe
from yqc.testing import apply

ANCHORS, CLASSES = 96, 3


class Decoded(nn.Module):
    """A detector of one convolution whose boxes overlap a lot."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout, extra = layout, int(layout == "yolov5")
        self.conv = nn.Conv2d(3, 4 + extra + CLASSES, 4, stride=4)
        nn.init.normal_(self.conv.weight, 0, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(2)
        y = torch.cat([y[:, :4].sigmoid() * 20 + 4, y[:, 4:].sigmoid()], 1)
        return y.transpose(1, 2) if self.layout == "yolov5" else y


def plain(layout: str, *, dynamic: bool = False) -> onnx.ModelProto:
    torch.manual_seed(3)
    return emit(trace(Decoded(layout), torch.zeros(1, 3, 32, 48)), dynamic=dynamic)


class DecodedTask(nn.Module):
    """The same with further numbers of each box, and prototypes for masks."""

    def __init__(self, form: OutputForm, classes: int = CLASSES) -> None:
        super().__init__()
        self.form, self.first = form, 4 + (form.layout == "yolov5") + classes
        self.conv = nn.Conv2d(3, self.first + form.extra, 4, stride=4)
        nn.init.normal_(self.conv.weight, 0, 0.6)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x).flatten(2)
        boxes, scores = y[:, :4].sigmoid() * 20 + 4, y[:, 4 : self.first].sigmoid()
        y = torch.cat([boxes, scores, y[:, self.first :] * 0.7], 1)
        rows = y.transpose(1, 2) if self.form.layout == "yolov5" else y
        return (rows, x[:, :, ::2, ::2] + 1) if self.form.coefficients else rows


TASKS = [
    OutputForm("yolov8", CLASSES, "segment", coefficients=3),
    OutputForm("yolov5", CLASSES, "segment", coefficients=3),
    OutputForm("yolov8", CLASSES, "pose", kpt_shape=(2, 3)),
]


@pytest.mark.parametrize("form", TASKS, ids=lambda form: f"{form.task}-{form.layout}")
@pytest.mark.parametrize("multi_label", [False, True])
def test_further_numbers_are_carried_along(form: OutputForm, multi_label: bool) -> None:
    torch.manual_seed(3)
    model = emit(trace(DecodedTask(form), torch.zeros(1, 3, 32, 48)), dynamic=True)
    images = bytes_of(2).astype(np.float32) / 255
    options = Suppression(iou=0.5, conf=0.01, top=20, multi_label=multi_label)
    made = embed(model, Embedding(nms=options), form)
    running = open_session(made, OPTIMISED)
    got, *maps = running.run(None, {"x": images})
    assert got.shape == (2, 20, 6 + form.extra)
    if form.coefficients:
        np.testing.assert_allclose(maps[0], images[:, :, ::2, ::2] + 1)
    raw = answers(model, images)
    for given, rows in zip(
        got, raw if form.layout == "yolov5" else raw.swapaxes(1, 2), strict=True
    ):
        used = given[given[:, 4] > 0]
        assert len(used) > 3
        for row in used:  # its numbers are those of the one box that lies where it does
            centre = (row[:2] + row[2:4]) / 2
            own = rows[np.abs(rows[:, :2] - centre).max(1).argmin()]
            np.testing.assert_allclose(own[2:4], row[2:4] - row[:2], atol=1e-4)
            np.testing.assert_allclose(own[-form.extra :], row[6:], atol=1e-5)


def overlap_of(one: Any, other: Any) -> float:
    """ProbIoU of two boxes (cx, cy, w, h, angle), by matrices."""
    means, spreads = [], []
    for x, y, wide, high, turn in (one, other):
        about = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        spreads.append(about @ np.diag([wide**2 / 12, high**2 / 12]) @ about.T)
        means.append(np.array([x, y]))
    mean, apart = (spreads[0] + spreads[1]) / 2, means[0] - means[1]
    dets = [np.linalg.det(each) for each in (mean, *spreads)]
    distance = apart @ np.linalg.inv(mean) @ apart / 8
    distance += 0.5 * np.log(dets[0] / np.sqrt(dets[1] * dets[2]))
    return float(1 - np.sqrt(1 - np.exp(-distance)))


def suppressed(rows: Any, options: Suppression) -> list[tuple[float, int, Any]]:
    """Score, class and box of what is kept of rows [A, 5 + nc]: fast NMS, pair by pair."""
    pairs = []
    for row in rows:
        scores = row[4:-1]
        labels = range(CLASSES) if options.multi_label else [int(scores.argmax())]
        box = np.array([*row[:4], row[-1]], np.float64)
        pairs += [(float(scores[c]), c, box) for c in labels if scores[c] > options.conf]
    pairs.sort(key=lambda pair: -pair[0])
    kept = []
    for i, (score, label, box) in enumerate(pairs):
        rivals = [b for _, c, b in pairs[:i] if options.agnostic or c == label]
        if all(overlap_of(box, rival) <= options.iou for rival in rivals):
            kept.append((score, label, box))
    return kept[: options.top]


@pytest.mark.parametrize("change", [{}, {"multi_label": True}, {"agnostic": True}, {"top": 3}])
def test_oriented_boxes_suppress_by_how_their_areas_overlap(change: Any) -> None:
    form = OutputForm("yolov8", CLASSES, "obb")
    torch.manual_seed(3)
    model = emit(trace(DecodedTask(form), torch.zeros(1, 3, 32, 48)), dynamic=True)
    images = bytes_of(2).astype(np.float32) / 255
    options = Suppression(**{"iou": 0.3, "conf": 0.3, "top": 400, **change})
    got = answers(embed(model, Embedding(nms=options), form), images)
    assert got.shape == (2, options.top, 7)
    for given, raw in zip(got, answers(model, images), strict=True):
        want = suppressed(raw.T, options)
        assert 3 <= len(want) < 3 * ANCHORS
        assert np.count_nonzero(given[:, 4]) == len(want)
        for row, (score, label, box) in zip(given, want, strict=False):
            np.testing.assert_allclose(row[[0, 1, 2, 3, 6]], box, atol=1e-4)
            assert row[4] == pytest.approx(score, abs=1e-6)
            assert row[5] == label


def test_no_oriented_box_at_all_is_rows_of_zeros() -> None:
    form = OutputForm("yolov8", CLASSES, "obb")
    model = emit(trace(DecodedTask(form), torch.zeros(1, 3, 32, 48)))
    got = answers(
        embed(model, Embedding(nms=Suppression(conf=1.0)), form), bytes_of() / np.float32(255)
    )
    assert got.shape == (1, 300, 7)
    assert not got.any()


def bytes_of(count: int = 1) -> Any:
    return np.random.default_rng(4).integers(0, 256, (count, 3, 32, 48), np.uint8)


def answers(model: onnx.ModelProto, images: Any, **more: Any) -> Any:
    running = open_session(model, OPTIMISED)
    return running.run(None, {running.get_inputs()[0].name: images, **more})[0]


@pytest.mark.parametrize("layout", ["yolov5", "yolov8"])
@pytest.mark.parametrize("count", [1, 3])
def test_suppression_gives_what_our_own_does(layout: Any, count: int) -> None:
    model, images = plain(layout, dynamic=count > 1), bytes_of(count).astype(np.float32) / 255
    options = Suppression(iou=0.5, conf=0.3, top=20, multi_label=True)
    got = answers(embed(model, Embedding(nms=options), OutputForm(layout)), images)
    assert got.shape == (count, 20, 6)
    raw = answers(model, images)
    for i in range(count):
        want = detections(raw[i], OutputForm(layout), conf=0.3, iou=0.5, top=20)
        assert len(want) > 3
        np.testing.assert_allclose(got[i, : len(want), :4], want.xyxy, atol=1e-4)
        np.testing.assert_allclose(got[i, : len(want), 4], want.scores, atol=1e-6)
        np.testing.assert_array_equal(got[i, : len(want), 5], want.classes)
        assert not got[i, len(want) :].any()


@pytest.mark.parametrize("layout", ["yolov5", "yolov8"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_a_box_gets_its_best_class(layout: Any, agnostic: bool) -> None:
    model, images = plain(layout, dynamic=True), bytes_of(2).astype(np.float32) / 255
    options = Suppression(iou=0.5, conf=0.3, top=20, agnostic=agnostic)
    got = answers(embed(model, Embedding(nms=options), OutputForm(layout)), images)
    raw = answers(model, images)
    raw = raw.transpose(0, 2, 1) if layout == "yolov8" else raw
    for boxes, rows in zip(raw, got, strict=True):
        scores = boxes[:, 5:] * boxes[:, 4:5] if layout == "yolov5" else boxes[:, 4:]
        best, cls = scores.max(1), scores.argmax(1)
        half = boxes[:, 2:4] / 2
        xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
        sure = np.flatnonzero(best > 0.3)
        groups = np.zeros_like(cls) if agnostic else cls
        kept = sure[nms(xyxy[sure], best[sure], groups[sure], iou=0.5, top=20)]
        count = int((rows[:, 4] > 0).sum())
        assert 1 < count == len(kept)
        np.testing.assert_allclose(rows[:count, :4], xyxy[kept], atol=1e-4)
        np.testing.assert_allclose(rows[:count, 4], best[kept], atol=1e-6)
        np.testing.assert_array_equal(rows[:count, 5], cls[kept])


def test_agnostic_and_multi_label_are_refused_together() -> None:
    with pytest.raises(PipelineError, match="leave multi_label out"):
        Embedding.of(Settings(nms_options="agnostic=true multi_label=true"))


def test_no_detection_at_all_is_rows_of_zeros() -> None:
    model = embed(
        plain("yolov8"), Embedding(nms=Suppression(conf=1.0, top=7)), OutputForm("yolov8")
    )
    got = answers(model, bytes_of().astype(np.float32) / 255)
    assert got.shape == (1, 7, 6)
    assert not got.any()


def test_thresholds_may_be_inputs_with_defaults() -> None:
    model = embed(plain("yolov8"), Embedding(nms=Suppression(inputs=True)), OutputForm("yolov8"))
    images = bytes_of().astype(np.float32) / 255
    usual = (answers(model, images)[0, :, 4] > 0).sum()
    strict = (answers(model, images, nms_conf=np.array([0.8], np.float32))[0, :, 4] > 0).sum()
    assert 0 < strict < usual


def test_bytes_give_what_the_scaled_image_gives() -> None:
    model, images = plain("yolov8"), bytes_of()
    got = answers(embed(model, Embedding(uint8_input=True), OutputForm("yolov8")), images)
    np.testing.assert_array_equal(got, answers(model, images.astype(np.float32) / np.float32(255)))


def quantized(scale: float) -> onnx.ModelProto:
    """The plain file with its input quantized."""
    model = plain("yolov8")
    graph = model.graph
    tensors = {"s": np.float32(scale), "z": np.uint8(0)}
    graph.initializer.extend(numpy_helper.from_array(np.array(v), k) for k, v in tensors.items())
    first = next(node for node in graph.node if graph.input[0].name in node.input)
    first.input[0] = "dq"
    pair = [
        onnx.helper.make_node("QuantizeLinear", [graph.input[0].name, "s", "z"], ["q"], "q"),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], "dq"),
    ]
    nodes = [*pair, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.mark.parametrize(("scale", "kept"), [(1 / 255, 0), (1 / 250, 1)])
def test_bytes_go_straight_into_a_quantized_input(scale: float, kept: int) -> None:
    model, images = quantized(scale), bytes_of()
    made = embed(model, Embedding(uint8_input=True), OutputForm("yolov8"))
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == kept
    want = answers(model, images.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(answers(made, images), want, atol=1e-5)


def test_half_precision_outside_only() -> None:
    model, images = plain("yolov8"), (bytes_of().astype(np.float32) / 255).astype(np.float16)
    got = answers(embed(model, Embedding(fp16_io=True), OutputForm("yolov8")), images)
    assert got.dtype == np.float16
    want = answers(model, images.astype(np.float32))
    np.testing.assert_array_equal(got, want.astype(np.float16))


def test_half_goes_straight_into_a_half_graph() -> None:
    torch.manual_seed(3)
    gm = trace(Decoded("yolov8"), torch.zeros(1, 3, 32, 48))
    apply("half", gm)
    model, images = emit(gm), (bytes_of().astype(np.float32) / 255).astype(np.float16)
    made = embed(model, Embedding(fp16_io=True), OutputForm("yolov8"))
    first = made.graph.node[0]
    assert (first.op_type, first.input[0]) == ("Conv", made.graph.input[0].name)
    got = answers(made, images)
    want = answers(model, images.astype(np.float32)).astype(np.float16)
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=2e-3, atol=0)


def test_all_at_once() -> None:
    asked = Settings(
        nms_options="iou=0.5 conf=0.3 top=20 multi_label=true", uint8_input=True, fp16_io=True
    )
    model, images = plain("yolov8"), bytes_of()
    made = embed(model, Embedding.of(asked), OutputForm("yolov8"))
    got = answers(made, images)
    assert (got.dtype, got.shape) == (np.float16, (1, 20, 6))
    want = detections(
        answers(model, images.astype(np.float32) / 255)[0], OutputForm("yolov8"), conf=0.3, iou=0.5
    )
    np.testing.assert_allclose(got[0, :20, 4], want.scores[:20], atol=1e-3)


@pytest.mark.parametrize(
    ("layout", "why"),
    [("end2end", "already"), ("classes", "no boxes"), (None, "not that of a YOLO")],
)
def test_what_cannot_be_suppressed_is_refused(layout: Any, why: str) -> None:
    with pytest.raises(EmitError, match=why):
        embed(plain("yolov8"), Embedding(nms=Suppression()), layout and OutputForm(layout))


@pytest.mark.parametrize("text", ["iou", "iou=2", "top=0", "x=1", "conf=0.5},x{"])
def test_a_wrong_option_is_refused(text: str) -> None:
    with pytest.raises(PipelineError):
        Embedding.of(Settings(nms_options=text))


def test_options_of_suppression_may_be_a_mapping() -> None:
    asked = choose(None, {"nms_options": {"conf": 0.5, "inputs": True}})
    assert Embedding.of(asked).nms == Suppression(conf=0.5, inputs=True)
    assert not Embedding.of(Settings())
    assert Embedding.of(Settings(nms=True)).nms == Suppression()


def test_compile_embeds_and_the_recipe_says_so(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    asked: dict[str, Any] = {
        "nms": True,
        "nms_options": "conf=0.3",
        "uint8_input": True,
        "fp16_io": True,
    }
    result = yqc.compile(checkpoint, "fold-bn", output=out, evaluate=False, **asked)
    made = onnx.load(out)
    kinds = [v.type.tensor_type.elem_type for v in (made.graph.input[0], made.graph.output[0])]
    assert kinds == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16]
    assert [d.dim_value for d in made.graph.output[0].type.tensor_type.shape.dim] == [1, 300, 6]
    read = read_recipe(result.files.recipe)
    assert {name: getattr(read, name) for name in asked} == asked
