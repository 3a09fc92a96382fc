"""Weights of few bits: onnxruntime and OpenVINO fold their decoder, simplifiers leave it packed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import yqc
from tests.clients.conftest import Compiled
from tests.clients.test_onnxruntime import Level, outputs
from tests.clients.test_simplifiers import by_onnxsim, by_onnxslim
from tests.slow import slow_but
from yqc.emit import emit, save, weight_bytes

FEW_BITS = ["int4", "codebook", "pack-int4{bits=3}", "int4,int8"]
LEVELS = [Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_ALL]


def pipeline(passes: str) -> str:
    return f"fold-bn,{passes}" if passes.startswith("pack") else passes


def loaded(path: Path, level: Any, folder: Path) -> onnx.GraphProto:
    """Return the graph that onnxruntime runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "loaded.onnx").graph


@pytest.mark.parametrize("passes", slow_but(FEW_BITS, FEW_BITS[0]))
@pytest.mark.parametrize("level", LEVELS)
def test_onnxruntime_decodes_nothing_at_inference(
    compiled: Compiled, tmp_path: Path, passes: str, level: Any
) -> None:
    path = compiled(pipeline(passes), "onnxruntime")
    graph = loaded(path, level, tmp_path)
    held = {tensor.name for tensor in graph.initializer}
    decoded = {"BitShift", "BitwiseAnd", "BitwiseOr", "GatherElements", "CumSum", "ReduceMax"}
    assert not decoded.intersection(node.op_type for node in graph.node)
    for node in graph.node:
        if node.op_type in {"Conv", "FusedConv"} and "int8" not in passes:
            assert set(node.input[1:3]) <= held, node.name


@pytest.mark.parametrize("passes", FEW_BITS)
@pytest.mark.parametrize("change", [by_onnxsim, by_onnxslim])
def test_simplifiers_leave_it_packed(
    compiled: Compiled,
    images: Any,
    tmp_path: Path,
    passes: str,
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    path = compiled(pipeline(passes), "onnxruntime")
    after = change(onnx.load(path))
    assert weight_bytes(after) <= 1.02 * weight_bytes(onnx.load(path))
    onnx.save(after, tmp_path / "after.onnx")
    want = outputs(path, images, Level.ORT_DISABLE_ALL)
    got = outputs(tmp_path / "after.onnx", images, Level.ORT_DISABLE_ALL)
    np.testing.assert_allclose(got, want, atol=2e-3, rtol=1e-4)


@pytest.mark.slow
def test_four_bits_run_on_as_many_integer_kernels_as_eight(
    compiled: Compiled, tmp_path: Path
) -> None:
    counts = [
        Counter(n.op_type for n in loaded(compiled(p, "onnxruntime"), LEVELS[1], tmp_path).node)
        for p in ("int8{float_inputs=0}", "int4,int8{float_inputs=0}")
    ]
    assert counts[0]["QLinearConv"] == counts[1]["QLinearConv"] > 0
    assert counts[0]["MatMulIntegerToFloat"] == counts[1]["MatMulIntegerToFloat"]


@pytest.mark.parametrize("passes", ["int4", "codebook", "pack-int4{bits=3}"])
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_openvino_computes_the_same(
    compiled: Compiled, images: Any, passes: str, target: str
) -> None:
    ov = pytest.importorskip("openvino", reason="needs OpenVINO: pip install yqc[clients]")
    path = compiled(pipeline(passes), target)
    run = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = np.concatenate([np.array(next(iter(run([i[None]]).values()))) for i in images])
    want = outputs(path, images, Level.ORT_DISABLE_ALL)
    np.testing.assert_allclose(got, want, atol=2e-3, rtol=1e-4)


def test_openvino_runs_packed_weights_on_integers(compiled: Compiled) -> None:
    ov = pytest.importorskip("openvino", reason="needs OpenVINO: pip install yqc[clients]")
    counts = []
    for passes in ("int8{float_inputs=0}", "int4,int8{float_inputs=0}"):
        path = compiled(passes, "openvino")
        run = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        info = [node.get_rt_info() for node in run.get_runtime_model().get_ops()]
        kinds = [
            i["runtimePrecision"].astype(str)
            for i in info
            if i["layerType"].astype(str) == "Convolution"
        ]
        counts.append(sum(kind in {"u8", "i8"} for kind in kinds))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("passes", ["fold-bn,pack-int4", "fold-bn,cluster"])
def test_openvino_takes_weights_of_depthwise_convolutions(passes: str, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.SiLU()]
    again = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    x = torch.rand(1, 8, 6, 6)
    gm = yqc.trace(nn.Sequential(*layers, again).eval(), x)
    yqc.Pipeline.parse(passes).run(gm, yqc.Context(example=x))
    save(emit(gm), tmp_path / "x.onnx")
    run = ov.Core().compile_model(tmp_path / "x.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        np.testing.assert_allclose(run(x.numpy())[run.output(0)], gm(x), atol=1e-5)
