"""Weights of any shape and width come out of the decoder as the graph unpacks them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor

from yqc.emit.decoder import Decoder
from yqc.emit.stored import StoredBias, StoredWeight
from yqc.emit.streams import decode_biases, decode_weights
from yqc.quant.weights.ops import unpack_table, unpack_uniform
from yqc.quant.weights.packing import pack, signed, unsigned

LARGE, SMALL = 65504.0, 2.0**-14
LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")


def model_of(d: Decoder, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Make a model whose outputs are the decoder's."""
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph(d.nodes, "g", [], outputs, list(d.tensors.values()))
    version = helper.make_opsetid("", d.opset)
    model = helper.make_model(graph, opset_imports=[version], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnxruntime(model: onnx.ModelProto, level: str = "ENABLE_ALL") -> dict[str, Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {}), strict=True))


def run_openvino(model: onnx.ModelProto) -> dict[str, Any]:
    ov = pytest.importorskip("openvino", reason="needs OpenVINO: pip install yqc[clients]")
    read = ov.Core().read_model(model.SerializeToString(), b"")
    run = ov.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.name for output in model.graph.output]
    values = [np.array(value) for value in run([]).values()]
    return dict(zip(names, values, strict=True))


@st.composite
def layers(draw: st.DrawFn, name: str) -> tuple[StoredWeight, Tensor]:
    """Draw a weight, and what the graph unpacks of it."""
    bits, kind = draw(st.integers(1, 8)), draw(st.sampled_from(["symmetric", "affine", "table"]))
    shape = [draw(st.integers(1, 5)) for _ in range(draw(st.sampled_from([2, 4])))]
    rows, columns = shape[0], int(np.prod(shape[1:]))
    blocks = draw(st.sampled_from([n for n in range(1, columns + 1) if columns % n == 0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    extreme = draw(st.sampled_from([None, 0, (1 << bits) - 1]))
    codes = torch.randint(0, 1 << bits, (rows * columns,), generator=generator)
    if extreme is not None:
        codes[:] = extreme
    sizes = (rows,) if blocks == 1 else (rows, blocks)
    scale = torch.rand(sizes, generator=generator).clamp(min=SMALL).half()
    scale.view(-1)[0] = draw(st.sampled_from([SMALL, 0.01, 1000.0]))
    block = 0 if blocks == 1 else columns // blocks
    packed = pack(codes, bits)
    if kind == "table":
        count = draw(st.sampled_from([n for n in range(1, rows + 1) if rows % n == 0]))
        table = torch.randn(count, 1 << bits, generator=generator).half()
        want = unpack_table(packed, table, scale, shape, bits, block)
        bytes_ = codes.to(torch.uint8)
        return StoredWeight(name, tuple(shape), bits, bytes_, scale, table=table), want
    if kind == "symmetric":
        want = unpack_uniform(packed, scale, None, shape, bits, block)
        middle = signed(codes.to(torch.uint8), bits).to(torch.int16) + (1 << (bits - 1))
        return StoredWeight(name, tuple(shape), bits, middle.to(torch.uint8), scale), want
    zero = torch.randint(0, 1 << bits, (scale.numel(),), generator=generator).to(torch.uint8)
    want = unpack_uniform(packed, scale, pack(zero, bits), shape, bits, block)
    return StoredWeight(name, tuple(shape), bits, codes.to(torch.uint8), scale, zero), want


ALL = st.integers(1, 4).flatmap(lambda n: st.tuples(*(layers(f"layer{i}") for i in range(n))))


def one(bits: int, value: int) -> tuple[StoredWeight, Tensor]:
    """A weight of a single number."""
    code = torch.tensor([value], dtype=torch.uint8)
    scale = torch.tensor([LARGE], dtype=torch.float16)
    want = (code.float() - (1 << (bits - 1))).view(1, 1, 1, 1) * LARGE
    return StoredWeight("layer0", (1, 1, 1, 1), bits, code, scale), want


@pytest.mark.parametrize("seeded", [True, False])
@settings(max_examples=25, deadline=None)
@given(drawn=ALL)
@example(drawn=(one(1, 0),))
@example(drawn=(one(3, 7),))
@example(drawn=(one(8, 255),))
def test_graph_file_and_runtimes_agree(
    seeded: bool, drawn: tuple[tuple[StoredWeight, Tensor], ...]
) -> None:
    d = Decoder(set(), 21, seeded=seeded)
    decode_weights(d, [weight for weight, _ in drawn])
    model = model_of(d, {weight.name: weight.shape for weight, _ in drawn})
    for got in (run_onnxruntime(model), run_onnxruntime(model, "DISABLE_ALL"), run_openvino(model)):
        for weight, want in drawn:
            np.testing.assert_allclose(got[weight.name], want.numpy(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_to_decode_when_the_file_is_loaded(level: str, tmp_path: Any) -> None:
    d = Decoder(set(), 18, seeded=True)
    values = torch.arange(30, dtype=torch.uint8) % 8
    weight = StoredWeight("w", (3, 10), 3, values, torch.ones(3).half())
    decode_weights(d, [weight])
    decode_biases(d, [StoredBias("b", torch.arange(3, dtype=torch.int16), torch.tensor(0.5))])
    model = model_of(d, {"w": (3, 10), "b": (3,)})
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    ort.InferenceSession(model.SerializeToString(), options)
    left = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert (left == []) == (level != "DISABLE_ALL")


@pytest.mark.parametrize("seeded", [True, False])
def test_biases_come_back(seeded: bool) -> None:
    steps = [torch.tensor(s, dtype=torch.int16) for s in ([-32767, 5, 32767], [1], [2, 3, 4])]
    d = Decoder(set(), 18, seeded=seeded)
    biases = [StoredBias(f"b{i}", s, torch.tensor(0.1 + i)) for i, s in enumerate(steps)]
    decode_biases(d, biases)
    got = run_onnxruntime(model_of(d, {b.name: tuple(b.steps.shape) for b in biases}))
    for bias in biases:
        np.testing.assert_array_equal(got[bias.name], (bias.steps.float() * bias.scale).numpy())


@pytest.mark.parametrize("opset", [17, 18])
def test_weights_of_integer_convolutions_are_rounded_to_int8_by_channel(opset: int) -> None:
    codes = torch.tensor([[0, 255, 3], [128, 128, 128]], dtype=torch.uint8)
    scale = torch.tensor([[0.5], [2.0]]).half()
    d = Decoder(set(), opset, seeded=True)
    zero = torch.full((2,), 128, dtype=torch.uint8)
    weight = StoredWeight("w", (2, 3), 8, codes.view(-1), scale, zero, integers=True)
    decode_weights(d, [weight])
    model = model_of(d, {"w": (2, 3)})
    (last,) = [node for node in model.graph.node if node.output[0] == "w"]
    assert last.op_type == "DequantizeLinear"
    want = (codes.float() - 128) * scale.float()
    step = 64.0 / 127
    got = run_onnxruntime(model)["w"]
    np.testing.assert_allclose(got[0], (want[0] / step).round() * step, rtol=1e-5)
    np.testing.assert_array_equal(got[1], 0)


def test_integers_of_one_scale_a_channel_are_kept() -> None:
    codes = torch.tensor([0, 15, 3, 7, 8, 9], dtype=torch.uint8)
    scale, zero = torch.tensor([0.5, 2.0]).half(), torch.tensor([15, 0], dtype=torch.uint8)
    d = Decoder(set(), 18, seeded=True)
    decode_weights(d, [StoredWeight("w", (2, 3), 4, codes, scale, zero, integers=True)])
    got = run_onnxruntime(model_of(d, {"w": (2, 3)}))["w"]
    assert got.tolist() == [[-7.5, 0, -6], [14, 16, 18]]


def test_a_wide_code_costs_no_more_than_its_bits() -> None:
    for bits in (2, 3, 4, 5, 6, 8):
        d = Decoder(set(), 18, seeded=True)
        codes = unsigned(torch.zeros(800, dtype=torch.int16), bits)
        d.codes(codes, bits, "codes")
        held = [t for t in d.tensors.values() if t.name.startswith("codes")]
        assert sum(len(t.raw_data) for t in held) == 100 * bits
