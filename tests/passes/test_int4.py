"""int4 is what its steps are; sixteen levels a channel, equally far apart, in a file that runs."""

from collections.abc import Callable
from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, fx

from tests.passes.nets import X, calibrated, expanded, quality, traced
from yqc.emit import emit
from yqc.quantizing.weights.rewrite import unpacking

STEPS = "reparam,fold-bn,dce,pack-int4"
PATHS = {"stem_conv": "stem.conv", "a_conv": "a.conv", "b_conv": "b.conv", "out": "out"}
"""Where the weights of each convolution are."""


def weights(gm: fx.GraphModule) -> dict[str, Tensor]:
    """Return the weights that the convolutions of a graph read, as rows of a channel each."""
    found = {}
    for node in gm.graph.nodes:
        if node.name in PATHS and (made := unpacking(node)) is not None:
            args = [
                gm.get_buffer(str(a.target)) if isinstance(a, fx.Node) else a for a in made.args
            ]
            found[node.name] = cast(Callable[..., Tensor], made.target)(*args).flatten(1)
    return found


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("int4") == STEPS
    assert expanded("int4{scheme=symmetric granularity=block block=32 skip=[a.*,b]}") == (
        "reparam,fold-bn,dce,pack-int4{scheme=symmetric granularity=block block=32 skip=[a.*,b]}"
    )
    assert expanded("int4{granularity=auto ratio_vs_fp16=3.9}") == (
        "reparam,fold-bn,dce,pack-int4{granularity=auto ratio_vs_fp16=3.9}"
    )


@pytest.mark.parametrize(
    ("passes", "steps"),
    [
        ("fold-bn,int4", "fold-bn,reparam,dce,pack-int4"),
        ("fold-bn,pack-int4{bits=8},int4", "fold-bn,pack-int4{bits=8},reparam,dce"),
        ("int4,int8", f"{STEPS},observe,calibrate,relax,bias-correct,quantize"),
    ],
)
def test_drops_what_is_done_already(passes: str, steps: str) -> None:
    assert expanded(passes) == steps


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_a_channel_has_sixteen_levels_equally_far_apart(scheme: str) -> None:
    """Zero is one of them, and they are multiples of a scale that takes two bytes."""
    gm = traced(f"int4{{scheme={scheme}}}", calibrated())
    found = weights(gm)
    assert found.keys() == PATHS.keys()
    for name, rows in found.items():
        scale = gm.get_buffer(f"{PATHS[name]}.weight_scale").float().view(-1, 1)
        steps = rows / scale
        torch.testing.assert_close(steps, steps.round(), rtol=1e-3, atol=1e-3)
        low, high = steps.amin(1).round(), steps.amax(1).round()
        assert (high - low).max() <= 15
        if scheme == "symmetric":
            assert low.min() >= -8
            assert high.max() <= 7


def test_is_nearer_to_the_float_graph_than_rounding_is() -> None:
    """Of random weights, four bits and learning leave a hundredth of the signal's power at most."""
    found = quality(traced("int4", calibrated()))
    assert found > max(20, quality(traced("fold-bn,pack-int4{rounding=nearest}", calibrated())))


def test_the_file_holds_four_bits_and_runs_in_float() -> None:
    gm = traced("int4", calibrated())
    model = emit(gm, target="portable")
    onnx.checker.check_model(model, full_check=True)
    packed = [t for t in model.graph.initializer if t.data_type == TensorProto.UINT4]
    assert [t.name for t in packed if len(t.dims) == 4] == [
        f"{path}.weight" for path in PATHS.values()
    ]
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    session = ort.InferenceSession(model.SerializeToString())
    (got,) = session.run(None, {"images": X.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, gm(X).numpy(), rtol=0, atol=1e-5)


def test_a_layer_that_is_skipped_stays_in_float() -> None:
    gm = traced("int4{skip=b.*|out}", calibrated())
    assert set(weights(gm)) == {"stem_conv", "a_conv"}
