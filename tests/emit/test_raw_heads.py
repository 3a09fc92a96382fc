"""Files without the decoding: their outputs, each with a scale of its own, and what is refused."""

import json
from pathlib import Path
from typing import Any, Literal

import onnx
import pytest
import torch

import yqc
from yqc import Context, calls
from yqc.emit import cut_decode, emit
from yqc.errors import PipelineError
from yqc.graph import head_nodes
from yqc.graph.serial import save_graph
from yqc.models.source import open_model
from yqc.pipeline.pipeline import Pipeline
from yqc.quant import Observer

LEVELS = (8, 16, 32)


def named(*kinds: str) -> list[str]:
    return [f"{kind}_{stride}" for stride in LEVELS for kind in kinds]


OUTPUTS = {
    "yolov5n": named("raw"),
    "yolov7-tiny": named("raw"),
    "yolo26n": named("box", "cls"),
    "yolo11n-pose": named("box", "cls", "kpt"),
    "yolov8n-obb": named("box", "cls", "angle"),
    "yolo11n-seg": [*named("box", "cls", "coef"), "proto"],
    "yolo11n-cls": ["logits"],
}


def compiled(model: Path, passes: str, out: Path, **more: Any) -> onnx.ModelProto:
    yqc.compile(model, passes, output=out, evaluate=False, html=False, imgsz=64, **more)
    return onnx.load(out)


def heads_of(model: onnx.ModelProto) -> dict[str, Any]:
    found: dict[str, Any] = json.loads({p.key: p.value for p in model.metadata_props}["yqc.heads"])
    return found


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_level_has_an_output_for_each_kind(shared: Path, name: str) -> None:
    head: Literal["one2many"] | None = "one2many" if "26" in name else None
    source = open_model(shared / "golden" / f"{name}.pt", imgsz=(64, 64), head=head)
    assert source.facts.form is not None
    assert source.facts.head is not None
    gm, heads = cut_decode(source.gm, source.facts.form, source.facts.head, "raw")
    model = emit(gm)
    assert [output.name for output in model.graph.output] == OUTPUTS[name]
    assert [output["name"] for output in heads["outputs"]] == OUTPUTS[name]
    for output in model.graph.output:
        sides = [dim.dim_value for dim in output.type.tensor_type.shape.dim][2:]
        stride = output.name.rpartition("_")[2]
        if stride.isdecimal():
            assert sides == [64 // int(stride)] * 2
    ends = {n.op_type for n in model.graph.node if set(n.output) & set(OUTPUTS[name])}
    assert ends <= {"Conv", "Mul", "Gemm"}  # Mul is the SiLU of prototypes


def test_scores_may_stay(checkpoint: Path, tmp_path: Path) -> None:
    model = compiled(checkpoint, "", tmp_path / "m.onnx", decode="scores")
    ends = {o: n.op_type for n in model.graph.node for o in n.output}
    for output in heads_of(model)["outputs"]:
        assert ends[output["name"]] == {"box": "Conv", "cls": "Sigmoid"}[output["kind"]]


def test_every_output_in_int8_has_a_scale_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    model = compiled(checkpoint, "int8", tmp_path / "m.onnx", decode="raw")
    maker = {o: n for n in model.graph.node for o in n.output}
    ends = [maker[output.name] for output in model.graph.output]
    assert {node.op_type for node in ends} == {"DequantizeLinear"}
    scales = [maker[node.input[0]].input[1] for node in ends]
    assert len(set(scales)) == len(ends) == 6


def test_the_scale_of_logits_is_measured(shared: Path) -> None:
    source = open_model(shared / "golden" / "yolo11n-cls.pt", imgsz=(64, 64))
    ctx = Context(example=torch.zeros(1, 3, 64, 64), target="onnxruntime", decode="raw")
    Pipeline.parse("fold-bn,observe").run(source.gm, ctx)
    groups = dict[str, bool]()
    for each in calls(source.gm, Observer):
        groups[each.module.group] = groups.get(each.module.group, False) or each.module.records
    assert list(groups)[-1] == head_nodes(source.gm)[0].all_input_nodes[0].name
    assert all(groups.values())


def test_a_cut_graph_file_is_cut_as_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    source = open_model(checkpoint, imgsz=(64, 64))
    assert source.facts.head is not None
    save_graph(source.gm, tmp_path / "m.yqc", source.info())
    first = open_model(tmp_path / "m.yqc")
    assert first.facts.head == source.facts.head


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"nms": True}, r"--nms suppresses decoded boxes, and --decode raw cuts the decoding off"),
        ({"head": "one2one"}, r"--head one2one picks its detections in the decoding"),
    ],
)
def test_what_needs_the_decoding_is_refused(
    checkpoint: Path, tmp_path: Path, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(PipelineError, match=why):
        compiled(checkpoint, "", tmp_path / "m.onnx", decode="raw", **more)
    assert not list(tmp_path.iterdir())


def test_the_decoding_of_an_unknown_net_is_not_cut(tmp_path: Path) -> None:
    net = torch.nn.Conv2d(3, 4, 3)
    with pytest.raises(PipelineError, match=r"how its raw outputs are decoded is not known"):
        yqc.compile(net, "", output=tmp_path / "m.onnx", imgsz=64, decode="raw")
