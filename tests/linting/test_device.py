"""Limits of a device's file as rules: which nodes are beyond them, and what removes these."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from yqc.cli import app
from yqc.linting import Misfit, lint

ALL = (
    "Conv ConvTranspose Relu Sigmoid Mul Add Concat MaxPool Split Resize Reshape Transpose Softmax"
    " MatMul Clip Pad Gemm"
)


def device(folder: Path, *lines: str, lacks: str = "") -> str:
    """Write the file of a device that has all operators but some."""
    names = [f'"{name}"' for name in ALL.split() if name not in lacks.split()]
    path = folder / "npu.toml"
    path.write_text("\n".join([f"operators = [{', '.join(names)}]", *lines]), encoding="utf-8")
    return str(path)


class Net:
    """Writes a small graph of `x` [1,8,8,8]; nodes are named after what they compute."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Any] = {}

    def op(self, op_type: str, *inputs: str, to: str, **attributes: Any) -> str:
        made = helper.make_node(
            op_type, [*inputs], to.split(), name=to.split(maxsplit=1)[0], **attributes
        )
        self.nodes.append(made)
        return to

    def conv(self, x: str, to: str, side: int = 1, channels: int = 8) -> str:
        self.tensors[f"{to}_w"] = np.ones((8, channels, side, side), np.float32)
        return self.op("Conv", x, f"{to}_w", to=to, pads=[side // 2] * 4)

    def model(self, output: str, opset: int = 17) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 8, 8]),
            helper.make_tensor_value_info(output, TensorProto.FLOAT, None),
        ]
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "g", values[:1], values[1:], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def silu_and_split() -> onnx.ModelProto:
    """Convolutions with SiLU, a split, a pool of 5, upsampling, and a decoding behind them."""
    net = Net()
    y = net.conv("x", "c0", side=3)
    y = net.op("Mul", y, net.op("Sigmoid", y, to="s0"), to="m0")
    net.op("Split", y, to="left right", axis=1)
    y = net.op(
        "Concat",
        "left",
        net.op("MaxPool", "right", to="p", kernel_shape=[5, 5], pads=[2] * 4),
        to="cat",
        axis=1,
    )
    net.tensors["factors"] = np.array([1, 1, 2, 2], np.float32)
    y = net.op("Resize", y, "", "factors", to="up", mode="nearest")
    y = net.op("Sigmoid", net.conv(y, "c1"), to="scores")
    net.tensors["shape"] = np.array([1, 8, 256])
    return net.model(net.op("Reshape", y, "shape", to="out"))


def found(model: onnx.ModelProto, target: str) -> dict[str, tuple[str, str]]:
    """Return the limit and the remedy of each node that does not fit."""
    return {f.node: (f.limit, f.remedy) for f in lint(model, target) if isinstance(f, Misfit)}


def test_a_device_that_has_all_takes_it(tmp_path: Path) -> None:
    assert lint(silu_and_split(), device(tmp_path, "[limits]", "opset = 17", "rank = 4")) == []


def test_operators_that_are_absent_and_what_removes_them(tmp_path: Path) -> None:
    target = device(tmp_path, lacks="Split Sigmoid Resize Reshape")
    assert found(silu_and_split(), target) == {
        "left": ("operators", "conv-for-split"),
        "s0": ("operators", "relu"),
        "up": ("operators", "deconv-for-resize"),
        "scores": ("operators", ""),
        "out": ("operators", ""),
    }
    fixes = {f.node: f.fix for f in lint(silu_and_split(), target)}
    assert "exactly" in fixes["up"]
    assert "moves the numbers" in fixes["s0"]
    assert "part of the decoding" in fixes["scores"]


def test_a_pass_is_named_only_if_the_device_has_what_it_makes(tmp_path: Path) -> None:
    target = device(tmp_path, lacks="Split Sigmoid Resize ConvTranspose Relu")
    remedies = {node: remedy for node, (_, remedy) in found(silu_and_split(), target).items()}
    assert remedies == {
        "left": "conv-for-split", "s0": "relu{to=relu6}", "up": "", "scores": "",
    }  # fmt: skip


def test_what_is_fast_is_put_in(tmp_path: Path) -> None:
    target = device(tmp_path, 'fast_activations = ["silu", "relu6"]', lacks="Sigmoid")
    assert found(silu_and_split(), target)["s0"] == ("operators", "relu{to=relu6}")


def test_what_a_pass_would_make_is_named_where_the_device_lacks_it_too(tmp_path: Path) -> None:
    target = device(tmp_path, lacks="Resize ConvTranspose")
    (up,) = (f for f in lint(silu_and_split(), target) if isinstance(f, Misfit) and f.node == "up")
    assert up.remedy == ""
    assert "deconv-for-resize writes it as ConvTranspose, which the device does not take" in up.fix


def test_a_device_with_signed_integers_is_told_of_a_base_that_has_them(tmp_path: Path) -> None:
    net = Net()
    net.tensors |= {"s": np.float32(0.1), "z": np.uint8(128)}
    y = net.op(
        "DequantizeLinear", net.op("QuantizeLinear", "x", "s", "z", to="q"), "s", "z", to="d"
    )
    target = device(tmp_path, '[limits]\ndtypes = ["float32", "int8", "int32"]')
    found = [f for f in lint(net.model(net.conv(y, "c")), target) if isinstance(f, Misfit)]
    assert {f.node for f in found} >= {"q"}
    assert all('base = "tensorrt"' in f.fix for f in found if f.node in {"q", "d"})


@pytest.mark.parametrize(
    ("limit", "node", "remedy"),
    [
        ("kernel = 2", "c0", ""),
        ("pool_kernel = 3", "p", "split-pools{kernel=3}"),
        ("pool_kernel = 1", "p", ""),
        ("channels = 7", "c0", ""),
        ("rank = 3", "c0", ""),
        ('dtypes = ["int8"]', "c0", ""),
        ("opset = 16", "the file", ""),
    ],
)
def test_each_limit(tmp_path: Path, limit: str, node: str, remedy: str) -> None:
    misfits = found(silu_and_split(), device(tmp_path, "[limits]", limit))
    assert misfits[node] == (f"limits.{limit.partition(' ')[0]}", remedy)
    key, _, most = limit.partition(" = ")
    larger = str(int(most) + 1) if most.isdecimal() else '["float32"]'
    roomy = {"channels": "8", "rank": "4", "pool_kernel": "5"}.get(key, larger)
    assert found(silu_and_split(), device(tmp_path, "[limits]", f"{key} = {roomy}")) == {}


def test_strides(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.conv("x", "c"))
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [4, 4]))
    assert found(model, device(tmp_path, "[limits]", "stride = 2")) == {"c": ("limits.stride", "")}
    assert found(model, device(tmp_path, "[limits]", "stride = 4")) == {}


def test_attention_is_named(tmp_path: Path) -> None:
    """Products of computed matrices, and what stands between them and the convolutions around."""
    net = Net()
    net.tensors["flat"], net.tensors["image"] = np.array([1, 8, 64]), np.array([1, 8, 8, 8])
    q = net.op("Reshape", net.conv("x", "q"), "flat", to="rows")
    y = net.op("MatMul", q, net.op("Transpose", q, to="columns", perm=[0, 2, 1]), to="product")
    y = net.op("MatMul", net.op("Softmax", y, to="weights"), q, to="mixed")
    model = net.model(net.conv(net.op("Reshape", y, "image", to="back"), "c"))
    target = device(tmp_path, lacks="MatMul Softmax Reshape Transpose")
    names = {"rows", "columns", "product", "weights", "mixed", "back"}
    assert {f.node for f in lint(model, target) if "attention" in f.fix} == names


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(silu_and_split(), path)
    target = device(tmp_path, "[limits]", "pool_kernel = 3")
    shown = CliRunner().invoke(app, ["lint", str(path), "--target", target])
    assert shown.exit_code == 1
    assert "error: 1 x MaxPool: its window is larger than 3 [pool-kernel]" in shown.stdout
    assert "fix the pass split-pools{kernel=3} writes it otherwise, exactly" in shown.stdout
    as_json = CliRunner().invoke(app, ["lint", str(path), "--target", target, "--json"])
    assert '"limit": "limits.pool_kernel"' in as_json.stdout
    assert '"remedy": "split-pools{kernel=3}"' in as_json.stdout
