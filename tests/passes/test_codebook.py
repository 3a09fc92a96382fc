"""codebook is what its steps are; sixteen table entries times a channel's scale, in a file."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from tests.passes.nets import X, calibrated, expanded, quality, traced
from yqc.emit import emit
from yqc.quant.weights.packing import unpack

STEPS = "reparam,fold-bn,dce,cluster"
PATHS = ("stem.conv", "a.conv", "b.conv", "out")


def tables(options: str = "") -> dict[str, Tensor]:
    """Return the tables of the layers after `codebook`, float16 [T, 16]."""
    gm = traced(f"codebook{options}", calibrated())
    return {path: gm.get_buffer(f"{path}.weight_table") for path in PATHS}


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("codebook") == STEPS
    assert expanded("codebook{table=pwlq granularity=kernel skip=[a.*,b]}") == (
        "reparam,fold-bn,dce,cluster{table=pwlq granularity=kernel skip=[a.*,b]}"
    )
    assert expanded("codebook{rows=2}") == "reparam,fold-bn,dce,cluster{rows=2}"


@pytest.mark.parametrize(
    ("passes", "steps"),
    [
        ("fold-bn,codebook", "fold-bn,reparam,dce,cluster"),
        ("fold-bn,cluster{bits=3},codebook", "fold-bn,cluster{bits=3},reparam,dce"),
        ("codebook,int8", f"{STEPS},observe,calibrate,relax,bias-correct,quantize"),
    ],
)
def test_drops_what_is_done_already(passes: str, steps: str) -> None:
    assert expanded(passes) == steps


def test_a_layer_has_a_table_of_sixteen_or_one_for_so_many_channels() -> None:
    assert {tuple(t.shape) for t in tables().values()} == {(1, 16)}
    found = tables("{rows=2}")
    assert [len(t) for t in found.values()] == [2, 2, 2, 1]
    assert all(t.dtype == torch.float16 for t in found.values())


def test_powers_of_two_are_zero_and_powers_of_two() -> None:
    for table in tables("{table=pot}").values():
        values = table.float().abs()
        exact = values[values > 0].log2()
        torch.testing.assert_close(exact, exact.round(), rtol=0, atol=0)
        assert 0 in values


def test_piecewise_linear_has_one_step_in_the_middle_and_one_in_the_tails() -> None:
    for table in tables("{table=pwlq}").values():
        steps = table.float().diff().squeeze(0).sort().values
        kinds = 1 + int((steps.diff() > 2e-3).sum())
        assert kinds <= 3, "one step in the middle, one in the tails, and where they meet"


def test_a_table_is_nearer_to_the_float_graph_than_rounding_is() -> None:
    found = quality(traced("codebook", calibrated()))
    assert found > max(20, quality(traced("fold-bn,cluster{rounding=nearest}", calibrated())))


def test_the_file_holds_four_bit_indices_and_runs_in_float() -> None:
    gm = traced("codebook", calibrated())
    model = emit(gm, target="portable")
    onnx.checker.check_model(model, full_check=True)
    held = {t.name: t for t in model.graph.initializer}
    for path in PATHS:
        stored = held[f"{path}.weight"]
        assert stored.data_type == TensorProto.UINT4
        count = int(np.prod(stored.dims))
        codes = unpack(gm.get_buffer(f"{path}.weight_packed"), count, 4)
        assert onnx.numpy_helper.to_array(stored).reshape(-1).tolist() == codes.tolist()
    kinds = {node.op_type for node in model.graph.node}
    assert "QuantizeLinear" not in kinds
    assert "Gather" in kinds
    session = ort.InferenceSession(model.SerializeToString())
    (got,) = session.run(None, {"images": X.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, gm(X).numpy(), rtol=0, atol=1e-5)
