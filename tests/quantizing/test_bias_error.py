"""What is kept of convolutions' outputs, and that leaving it to a later pass changes nothing."""

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from tests.passes.nets import X, images, traced
from yqc import Context
from yqc.quant import Int8Weights
from yqc.quantizing import bias_error
from yqc.quantizing.bias_error import ReferenceOutputs, shrink_mean
from yqc_passes import bias_correct, calibrate

PASSES = "fold-bn,observe,calibrate,relax{share=0.4},bias-correct"


def test_a_correction_is_the_weighted_mean_where_the_images_agree() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
    torch.testing.assert_close(shrink_mean(weights * 0.25, weights), torch.tensor([0.25, 0.25]))


def test_a_correction_vanishes_where_the_images_contradict_each_other() -> None:
    surplus, total = torch.tensor([[0.5], [-0.5]]), torch.ones(2, 1)
    assert shrink_mean(surplus, total).item() == 0.0
    mean, variance = 0.25, 2 * (0.5 * 0.25) ** 2
    some = shrink_mean(torch.tensor([[0.5], [0.0]]), total).item()
    assert some == pytest.approx(mean * mean**2 / (mean**2 + variance))


def test_the_error_of_outputs_is_the_one_that_relevant_places_have() -> None:
    y = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros_like(y)
    weight[..., 0, 0] = 2.0
    wanted = ReferenceOutputs()
    wanted.add(y, weight)
    wrong = y + 9.0
    wrong[..., 0, 0] = y[..., 0, 0] + 0.5
    torch.testing.assert_close(wanted.error(wrong), torch.full((3,), 0.5))


def corrections(ctx: Context) -> dict[str, Tensor | None]:
    marks = {n.name: Int8Weights.on(n) for n in traced(PASSES, ctx).graph.nodes}
    return {name: mark.mean_error for name, mark in marks.items() if mark is not None}


def test_what_was_left_is_what_would_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Mock(wraps=bias_error.measure_outputs)
    monkeypatch.setattr(bias_correct, "measure_outputs", measured)
    left = corrections(Context(example=X, calibration=images))
    measured.assert_not_called()
    monkeypatch.setattr(calibrate, "put_outputs", lambda *_: None)
    again = corrections(Context(example=X, calibration=images))
    measured.assert_called_once()
    assert left.keys() == again.keys()
    for name, error in left.items():
        assert error is not None
        torch.testing.assert_close(error, again[name], rtol=0, atol=0)


def test_what_was_left_of_other_images_or_another_graph_is_not_taken() -> None:
    ctx = Context(example=X, calibration=images)
    gm = traced("fold-bn,observe", ctx)
    nodes = bias_error.correctable_convolutions(gm)
    kept = bias_error.measure_outputs(gm, nodes, images(), ctx)
    count = len(list(images()))
    bias_error.put_outputs(gm, kept)
    assert bias_error.take_outputs(gm, nodes, count - 1) is None
    bias_error.put_outputs(gm, kept)
    found = bias_error.take_outputs(gm, nodes, count)
    assert found is not None
    for node, output in kept.items():
        for old, new in zip(output.sums, found[node].sums, strict=True):
            assert torch.equal(old, new)
        assert torch.equal(torch.cat(output.weights), torch.cat(found[node].weights))
    assert bias_error.take_outputs(gm, nodes, count) is None
    bias_error.put_outputs(gm, kept)
    gm.get_parameter("a.conv.weight").data[0] += 1
    assert bias_error.take_outputs(gm, nodes, count) is None
