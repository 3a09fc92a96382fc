"""Each rule on a graph of a few nodes: what it finds, and the near-miss that it leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from yqc import Pipeline
from yqc.cli import app
from yqc.errors import CheckpointError
from yqc.linting import lint


class Net:
    """Writes a small graph from `x` [1,8,8,8], quantized by default as yqc does it."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Any] = {}

    def op(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def qdq(self, x: str, scale: float = 0.1, zero: int = 3, dtype: Any = np.uint8) -> str:
        s, z = f"s{scale}", f"z{zero}{np.dtype(dtype)}"
        self.tensors |= {s: np.float32(scale), z: np.array(zero, dtype)}
        self.op("QuantizeLinear", [x, s, z], f"{x}_q")
        return self.op("DequantizeLinear", [f"{x}_q", s, z], f"{x}_dq")

    def conv(
        self, x: str, out: str, *, most: int = 60, shape: tuple[int, ...] = (8, 8, 1, 1), **w: Any
    ) -> str:
        dtype, axis = w.get("dtype", np.int8), w.get("axis", 0)
        self.tensors[f"{out}_w"] = np.full(shape, most, dtype)
        self.tensors[f"{out}_ws"] = np.full(shape[axis], 0.01, np.float32)
        names = [f"{out}_w", f"{out}_ws"]
        if "zero" in w:
            self.tensors[f"{out}_wz"] = np.full(shape[axis], w["zero"], dtype)
            names.append(f"{out}_wz")
        self.op("DequantizeLinear", names, f"{out}_wdq", axis=axis)
        return self.op("Conv", [x, f"{out}_wdq"], out)

    def model(self, output: str, channels: int = 8, **about: str) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8]),
            helper.make_tensor_value_info(output, TensorProto.FLOAT, None),
        ]
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "g", values[:1], values[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        helper.set_model_props(model, {f"yqc.{key}": value for key, value in about.items()})
        return model


def rules(model: onnx.ModelProto, target: Any) -> list[tuple[str, str]]:
    return [(finding.rule, finding.node) for finding in lint(model, target)]


def silu(*, before: bool, between: bool, dtype: Any = np.uint8, **conv: Any) -> onnx.ModelProto:
    """Two convolutions with a SiLU between them, quantized before it and within it or not."""
    net = Net()
    y = net.conv(net.qdq("x", dtype=dtype), "c0", **conv)
    y = net.qdq(y, dtype=dtype) if before else y
    s = net.op("Sigmoid", [y], "s")
    s = net.qdq(s, 1 / 256, 0, dtype) if between else s
    y = net.op("Mul", [y, s], "m")
    return net.model(net.conv(net.qdq(y, dtype=dtype), "c1"))


def test_onnxruntime_wants_every_step_of_a_silu_quantized() -> None:
    last = ("conv-output-float", "c1")
    assert rules(silu(before=True, between=True), "onnxruntime") == [last]
    assert rules(silu(before=True, between=False), "onnxruntime") == [
        ("not-fused", "s"),
        ("not-fused", "m"),
        last,
    ]
    assert rules(silu(before=False, between=False), "onnxruntime") == [
        ("conv-output-float", "c0"),
        last,
    ]


def test_a_float_output_matters_only_before_another_convolution() -> None:
    found = lint(silu(before=False, between=False), "onnxruntime")
    assert [f.severity for f in found if f.rule == "conv-output-float"] == ["warning", "note"]
    assert "goes to Mul, Sigmoid unquantized" in found[0].what
    assert "--target onnxruntime" in found[0].fix


def test_onnxruntime_wants_uint8_activations_and_int8_weights() -> None:
    found = rules(silu(before=True, between=True, dtype=np.int8), "onnxruntime")
    assert [rule for rule, _ in found].count("int8-activations") == 4
    found = rules(silu(before=True, between=True, dtype=np.uint8, zero=0), "onnxruntime")
    assert not any(rule == "uint8-weights" for rule, _ in found)
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", dtype=np.uint8, zero=128))
    assert ("uint8-weights", "c_wdq") in rules(model, "onnxruntime")


@pytest.mark.parametrize(("most", "found"), [(64, False), (65, True), (-128, True)])
def test_full_range_weights_can_saturate(most: int, found: bool) -> None:
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", most=most))
    for target in ("portable", "onnxruntime"):
        assert (("saturation", "c") in rules(model, target)) == found
    if found:
        assert "int8{reduce_range=true}" in lint(model, "portable")[0].fix


def test_few_channels_are_better_left_in_float() -> None:
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", shape=(8, 3, 1, 1)), channels=3)
    assert ("few-channels", "c") in rules(model, "onnxruntime")
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", shape=(8, 4, 1, 1)), channels=4)
    assert ("few-channels", "c") not in rules(model, "onnxruntime")


def test_an_operator_without_an_integer_kernel_is_named() -> None:
    net = Net()
    y = net.op("HardSwish", [net.qdq(net.conv(net.qdq("x"), "c0"))], "h")
    assert ("no-integer-kernel", "h") in rules(net.model(net.conv(net.qdq(y), "c1")), "onnxruntime")


def test_what_moves_values_must_keep_the_scale() -> None:
    for scale, found in ((0.1, False), (0.2, True)):
        net = Net()
        y = net.op("MaxPool", [net.qdq("x")], "p", kernel_shape=[2, 2])
        model = net.model(net.conv(net.qdq(y, scale), "c"))
        assert (("not-fused", "p") in rules(model, "onnxruntime")) == found


def test_a_convolution_of_a_float_input_runs_in_float() -> None:
    net = Net()
    model = net.model(net.conv("x", "c"))
    assert rules(model, "onnxruntime") == [("conv-input-float", "c")]
    assert rules(model, "openvino") == [("conv-input-float", "c")]
    assert rules(model, "tensorrt") == [("half-quantized", "c")]


def test_what_is_handed_on_needs_no_pair_of_its_own() -> None:
    for quantized in (True, False):
        net = Net()
        parts = [net.qdq(net.op("Relu", ["x"], "r0")), net.op("Relu", ["x"], "r1")]
        parts[1] = net.qdq(parts[1]) if quantized else parts[1]
        y = net.op(
            "Concat", [net.op("MaxPool", parts[:1], "p", kernel_shape=[1, 1]), parts[1]], "k"
        )
        found = rules(net.model(net.conv(y, "c", shape=(8, 16, 1, 1))), "openvino")
        assert found == [("conv-input-float", "c")] * (not quantized)


def test_openvino_wants_pairs_of_one_scale() -> None:
    net = Net()
    net.tensors["other"] = np.float32(0.3)
    net.qdq("x")
    net.nodes[-1].input[1] = "other"
    assert ("no-fake-quantize", "x_q") in rules(net.model(net.conv("x_dq", "c")), "openvino")


def test_openvino_on_zero_points() -> None:
    net = Net()
    model = net.model(net.conv(net.qdq("x", zero=0, dtype=np.int8), "c"))
    assert rules(model, "openvino") == []
    net = Net()
    model = net.model(net.conv(net.qdq("x"), "c", zero=2))
    assert rules(model, "openvino") == [("weight-zero-point", "c")]


def joined(
    before: Any, behind: Any, *, pooled: bool = False, last: str = "conv"
) -> onnx.ModelProto:
    """A concat of two branches quantized to one type, whose result is quantized, too."""
    net, zero = Net(), {np.int8: 0, np.uint8: 128}
    parts = [net.op(kind, ["x"], kind) for kind in ("Relu", "Neg")]
    parts = [net.qdq(one, 0.1, zero[before], before) if before else one for one in parts]
    y = net.op("Concat", parts, "k", axis=1)
    y = net.op("MaxPool", [y], "p", kernel_shape=[1, 1]) if pooled else y
    y = net.qdq(y, 0.1, zero[behind], behind) if behind else y
    if last == "conv":
        return net.model(net.conv(y, "c", shape=(8, 16, 1, 1)), target="tensorrt")
    return net.model(net.op("Sigmoid", [y], "s"), target="tensorrt")


@pytest.mark.parametrize(
    ("before", "behind", "wrong"),
    [
        (np.int8, np.int8, True),
        (np.int8, None, True),
        (None, np.int8, True),
        (np.uint8, np.uint8, False),
        (np.uint8, None, False),
    ],
)
def test_openvino_computes_int8_around_concats_wrong(before: Any, behind: Any, wrong: bool) -> None:
    found = [f for f in lint(joined(before, behind), "openvino") if f.severity == "error"]
    assert [(f.rule, f.node, f.op) for f in found] == [("int8-concat", "k", "Concat")] * wrong
    assert all(f.fix == "compile with --target openvino" for f in found)
    assert ("int8-concat", "k") not in rules(joined(before, behind, last="none"), "openvino")
    again = ("int8-concat", "k") in rules(joined(before, behind, pooled=True), "openvino")
    assert again == (wrong and behind is None)


@pytest.mark.parametrize(
    ("kind", "how"),
    [("MaxPool", {"kernel_shape": [1, 1]}), ("Concat", {"axis": 1}), ("Sigmoid", {})],
)
def test_openvino_wants_no_scale_repeated(kind: str, how: dict[str, Any]) -> None:
    for scale in (0.1, 0.2):
        net = Net()
        read = [net.qdq("x")] * (2 if kind == "Concat" else 1)
        y = net.conv(net.qdq(net.op(kind, read, "y", **how), scale), "c", shape=(8, 8, 1, 1))
        found = [f for f in lint(net.model(y), "openvino") if f.rule == "repeated-scale"]
        assert [f.node for f in found] == ["y_q"] * (kind != "Sigmoid" and scale == 0.1)
        assert all((f.severity, f.fix[-17:]) == ("warning", "--target openvino") for f in found)


def concat(scales: tuple[float, float], **kind: Any) -> onnx.ModelProto:
    net = Net()
    parts = [
        net.qdq(net.op("Relu", ["x"], f"r{i}"), scale, **kind) for i, scale in enumerate(scales)
    ]
    return net.model(net.conv(net.op("Concat", parts, "k", axis=1), "c", shape=(8, 16, 1, 1)))


@pytest.mark.parametrize("target", ["openvino", "tensorrt"])
def test_concats_want_one_scale(target: str) -> None:
    kind = {"zero": 0, "dtype": np.int8}
    assert ("concat-scales", "k") in rules(concat((0.1, 0.2), **kind), target)
    assert ("concat-scales", "k") not in rules(concat((0.1, 0.1), **kind), target)


def test_tensorrt_refuses_zero_points_types_and_axes() -> None:
    net = Net()
    model = net.model(net.conv(net.qdq("x", zero=1, dtype=np.int8), "c"))
    assert rules(model, "tensorrt")[0][0] == "zero-point"
    assert lint(silu(before=False, between=False), "tensorrt")[0].severity == "error"
    net = Net()
    model = net.model(net.conv(net.qdq("x", zero=0, dtype=np.int8), "c", axis=1))
    assert rules(model, "tensorrt") == [("weight-axis", "c")]
    net = Net()
    model = net.model(net.conv(net.qdq("x", zero=0, dtype=np.int8), "c"))
    assert rules(model, "tensorrt") == []


@pytest.mark.parametrize(
    ("about", "fix"),
    [
        ({}, "compile with --target tensorrt"),
        ({"target": "openvino", "pipeline": "int8"}, "compile with --target tensorrt"),
        ({"target": "tensorrt", "pipeline": "int8"}, "quantize to int8 with zero point 0"),
        (
            {"target": "tensorrt", "pipeline": "int4"},
            "compile with --passes int8 --target tensorrt",
        ),
    ],
)
def test_tensorrt_wants_what_can_be_typed(about: dict[str, Any], fix: str) -> None:
    net = Net()
    found = lint(net.model(net.conv(net.qdq("x"), "c"), **about), "tensorrt")
    assert {f.fix for f in found if f.severity == "error"} == {fix}


def test_tensorrt_on_residuals_and_the_decode() -> None:
    for both in (True, False):
        net, int8 = Net(), dict[str, Any](zero=0, dtype=np.int8)
        x = net.qdq("x", **int8)
        y = net.conv(x, "c0")
        y = net.op("Add", [x, net.qdq(y, **int8) if both else y], "a")
        y = net.conv(net.qdq(y, **int8), "c1")
        found = rules(net.model(net.qdq(y, 0.7, **int8)), "tensorrt")
        assert found == [("decode", "c1_q"), *([("residual", "a")] if both else [])]


RELAXED: dict[str, Any] = {"target": "onnxruntime", "pipeline": "int8"}


def test_what_made_the_file_is_not_advised() -> None:
    """Nor is a choice of the pipeline more than a note."""
    net = Net()
    y = net.conv(net.qdq("x"), "c0")
    made = net.model(net.conv(net.op("Relu", [y], "r"), "c1"), **RELAXED)
    found = {f.rule: f for f in lint(made, "onnxruntime")}
    assert {f.severity for f in found.values()} == {"note"}
    assert found["conv-output-float"].fix.startswith("int8{float_inputs=0}, if speed")
    assert found["conv-input-float"].fix.startswith("int8{float_inputs=0}, if speed")
    for pipeline in ("int8{float_inputs=0}", "int8{float_inputs=0.0}", "not a pipeline {"):
        helper.set_model_props(made, {"yqc.target": "ort", "yqc.pipeline": pipeline})
        fixes = [f.fix for f in lint(made, "onnxruntime")]
        assert not any("float_inputs" in fix or "--target onnxruntime" in fix for fix in fixes)


def test_weights_alone_are_a_choice() -> None:
    net = Net()
    (found,) = lint(net.model(net.conv("x", "c"), pipeline="prune,int4{scheme=x}"), "openvino")
    assert (found.severity, found.fix) == ("note", "compile with --passes prune,int4,int8")


def test_paths_can_be_typed() -> None:
    net = Net()
    y = net.op("Add", [net.conv(net.qdq("x"), c, shape=(8, 3, 1, 1)) for c in ("a", "b")], "y")
    model = net.model(y, channels=3)
    for tensor, new in (("a_w", "model.0.conv.weight"), ("b_w", "model.1.weight_q")):
        for node in model.graph.node:
            node.input[:] = [new if name == tensor else name for name in node.input]
        next(t for t in model.graph.initializer if t.name == tensor).name = new
    few = [f for f in lint(model, "onnxruntime") if f.rule == "few-channels"]
    want = "leave it in float: int8{skip=[model.0.conv,model.1]}; --target onnxruntime does that"
    assert [f.fix for f in few] == [want] * 2
    (int8,) = Pipeline.parse("int8{skip=[model.0.conv,model.1]}").steps
    assert vars(int8)["skip"] == ("model.0.conv", "model.1")


def read(kind: str = "float") -> onnx.ModelProto:
    """A convolution, and what readers stumble over."""
    net, about = Net(), dict[str, Any](pipeline="prune,int8")
    if kind == "activations":
        return net.model(net.conv(net.qdq("x"), "c"), **about)
    if kind == "weights":
        return net.model(net.conv("x", "c"), **about)
    net.tensors["w"] = np.ones((8, 8, 1, 1), np.float32)
    if kind == "cast":
        return net.model(net.op("Conv", [net.op("Cast", ["x"], "f", to=1), "w"], "c"))
    y = net.op("Conv", ["x", "w"], "c")
    return net.model(net.op("NonMaxSuppression", [y, y], "n") if kind == "suppression" else y)


@pytest.mark.parametrize(
    ("reader", "refused"),
    [
        ("opencv", {"suppression": "suppression"}),
        (
            "mnn",
            {
                "suppression": "suppression",
                "activations": "quantization",
                "weights": "quantization",
            },
        ),
        (
            "ncnn",
            {"suppression": "suppression", "activations": "quantization", "cast": "cast"},
        ),
    ],
)
def test_readers_refuse_what_they_cannot_load(reader: str, refused: dict[str, str]) -> None:
    for kind in ("float", "suppression", "activations", "weights", "cast"):
        errors = [f for f in lint(read(kind), reader) if f.severity == "error"]
        assert {f.rule for f in errors} == ({refused[kind]} if kind in refused else set())
        if kind in {"activations", "weights"}:
            assert {f.fix for f in errors} <= {"compile with --passes prune"}


@pytest.mark.parametrize(("reader", "found"), [("opencv", 1), ("mnn", 1), ("ncnn", 0)])
def test_four_bits_are_read_by_few(reader: str, found: int) -> None:
    net = Net()
    model = net.model(net.conv("x", "c"), pipeline="int4")
    model.graph.initializer[0].data_type = TensorProto.INT4
    errors = [f for f in lint(model, reader) if f.rule == "four-bits"]
    assert [f.fix for f in errors] == ["compile with --passes fuse"] * found


@pytest.mark.parametrize(
    ("kind", "option"), [(TensorProto.UINT8, "--uint8-input"), (TensorProto.FLOAT16, "--fp16-io")]
)
def test_ncnn_takes_floats(kind: int, option: str) -> None:
    model = read("cast")
    model.graph.input[0].type.tensor_type.elem_type = kind
    assert [f.fix for f in lint(model, "ncnn")] == [f"compile without {option}"]


def test_the_command_prints_rules_nodes_and_json(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(silu(before=True, between=False), path)
    run = CliRunner().invoke
    shown = run(app, ["lint", str(path), "--target", "onnxruntime"])
    assert shown.exit_code == 0
    assert "warning: 2 x Sigmoid" in shown.stdout or "warning: 2 x" in shown.stdout
    assert "    at  s, m\n" in shown.stdout
    every = run(app, ["lint", str(path), "--target", "onnxruntime", "--all"])
    assert every.stdout.count("[not-fused]") == 2
    as_json = run(app, ["lint", str(path), "--target", "onnxruntime", "--json"])
    assert '"rule": "not-fused"' in as_json.stdout
    assert run(app, ["lint", str(path), "--target", "tensorrt"]).exit_code == 1
    assert run(app, ["lint", str(path), "--target", "ncnn"]).exit_code == 1
    assert "no faster" in run(app, ["lint", str(path), "--target", "OpenCV"]).stdout
    unknown = run(app, ["lint", str(path), "--target", "jetson"])
    assert "for NVIDIA GPUs write tensorrt" in str(unknown.exception)


def test_no_onnx_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX file"):
        lint(path)
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX file"):
        lint(tmp_path / "absent.onnx")
