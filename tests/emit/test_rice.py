"""Weights in codes of variable length: the file decodes them bit for bit as the graph does."""

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.emit.test_decoder import LEVELS, model_of, run_onnxruntime, run_openvino
from yqc.emit.decoder import Decoder
from yqc.emit.rice_streams import decode_rice
from yqc.emit.stored import StoredRice
from yqc.emit.tensors import weight_bytes
from yqc.quant.weights.ops import unpack_rice
from yqc.quant.weights.packing import pack
from yqc.quant.weights.rice import (
    START,
    Plane,
    Planes,
    code_network,
    encode_levels,
    rank_levels,
    write_planes,
)

SHAPES = [(1, 1, 1, 1), (3, 2, 1, 1), (4, 2, 3, 3), (5, 1, 3, 3), (2, 7, 1, 1), (16, 4, 1, 1)]


def layer(number: int, shape: tuple[int, ...], spread: float) -> tuple[Tensor, dict[str, Any]]:
    """Draw the integers of a weight, and what else is stored of it."""
    g = torch.Generator().manual_seed(number)
    q = (torch.randn(int(np.prod(shape)), generator=g) * spread).round().long()
    exponents = torch.randint(0, 16, shape[:1], generator=g).to(torch.uint8)
    scale = (torch.rand((), generator=g) + 0.01).half()
    return q, {"shape": shape, "exponents": exponents, "scale": scale}


def stored(
    integers: list[tuple[Tensor, dict[str, Any]]], planes: Planes, lows: list[int]
) -> list[tuple[StoredRice, Tensor]]:
    """Return the weights as the emitter takes them, and as the graph unpacks them."""
    made = []
    for at, ((q, rest), low) in enumerate(zip(integers, lows, strict=True)):
        packed = encode_levels(q, low, planes)
        held = pack(rest["exponents"], 4)
        shape = list(rest["shape"])
        want = unpack_rice(packed, rest["scale"], held, shape, low, write_planes(planes))
        made.append((StoredRice(f"layer{at}", levels=q, low=low, planes=planes, **rest), want))
    return made


def model(weights: list[StoredRice]) -> onnx.ModelProto:
    d = Decoder(set(), 18, seeded=True)
    decode_rice(d, weights)
    return model_of(d, {w.name: w.shape for w in weights})


SPREADS = st.sampled_from([0.0, 0.6, 3.0, 40.0, 900.0])


@settings(max_examples=20, deadline=None)
@given(drawn=st.lists(st.tuples(st.sampled_from(SHAPES), SPREADS), min_size=1, max_size=6))
def test_graph_file_and_runtimes_agree(drawn: list[tuple[tuple[int, ...], float]]) -> None:
    integers = [layer(at, *each) for at, each in enumerate(drawn)]
    found = code_network([torch.bincount(rank_levels(q)) for q, _ in integers])
    pairs = stored(integers, *found)
    made = model([weight for weight, _ in pairs])
    runs = (run_onnxruntime(made), run_onnxruntime(made, "DISABLE_ALL"), run_openvino(made))
    for got, (weight, want) in itertools.product(runs, pairs):
        np.testing.assert_array_equal(got[weight.name], want.numpy())


@pytest.mark.parametrize(
    ("planes", "low"),
    [
        (START, 10),
        (START, 0),
        ((Plane(8),), 0),
        ((Plane(1, 1), Plane(8, 255), Plane(8)), 3),
        ((Plane(3, 5), Plane(4, 9), Plane(8)), 9),
    ],
)
def test_any_planes_and_parameters(planes: Planes, low: int) -> None:
    integers = [layer(0, (4, 2, 3, 3), 20.0), layer(1, (5, 1, 3, 3), 1.0)]
    pairs = stored(integers, planes, [low, 0])
    got = run_onnxruntime(model([weight for weight, _ in pairs]))
    for weight, want in pairs:
        np.testing.assert_array_equal(got[weight.name], want.numpy())


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_to_decode_when_the_file_is_loaded(level: str, tmp_path: Any) -> None:
    pairs = stored([layer(at, shape, 5.0) for at, shape in enumerate(SHAPES)], START, [2] * 6)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    ort.InferenceSession(model([w for w, _ in pairs]).SerializeToString(), options)
    left = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert (left == []) == (level != "DISABLE_ALL")


def test_simplifiers_leave_the_codes_packed() -> None:
    onnxsim, onnxslim = pytest.importorskip("onnxsim"), pytest.importorskip("onnxslim")
    pairs = stored([layer(at, (16, 16, 3, 3), 5.0) for at in range(3)], START, [2, 1, 2])
    made = model([w for w, _ in pairs])
    for simplified in (onnxsim.simplify(made)[0], onnxslim.slim(made)):
        assert weight_bytes(simplified) <= weight_bytes(made)


def test_integers_of_eight_bits_stay_integers() -> None:
    pairs = stored([layer(0, (4, 2, 3, 3), 30.0), layer(1, (4, 2, 3, 3), 400.0)], START, [3, 6])
    weights = [StoredRice(**{**vars(w), "integers": True}) for w, _ in pairs]
    assert [w.fits_int8 for w in weights] == [True, False]
    got = run_onnxruntime(model(weights))
    np.testing.assert_array_equal(got["layer0"], pairs[0][1].numpy())
    largest = pairs[1][1].flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    np.testing.assert_array_less(
        (torch.tensor(got["layer1"]) - pairs[1][1]).abs() / largest, 0.51 / 127
    )
