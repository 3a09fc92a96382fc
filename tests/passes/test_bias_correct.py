import pytest
import torch
from torch import nn

from tests.passes.nets import X, images, traced
from yqc import Context
from yqc.quant import to_integers
from yqc_passes.bias_correct import Wanted, mean_error, shrunk


def test_mean_error_is_exact_for_constant_channels() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2)
    mean = torch.tensor([0.5, -1.0, 2.0, 0.25])
    scale = torch.full((6,), 0.05)
    x = mean.view(1, 4, 1, 1).expand(1, 4, 3, 3)
    rounded = nn.Conv2d(4, 6, 3, groups=2)
    rounded.weight = nn.Parameter(to_integers(conv.weight, scale) * 0.05)
    rounded.bias = conv.bias
    want = (rounded(x) - conv(x)).flatten()
    torch.testing.assert_close(mean_error(conv, scale, mean), want, atol=1e-6, rtol=1e-4)


def test_takes_the_mean_error_out_of_the_outputs() -> None:
    with torch.no_grad():
        want = torch.cat([traced("fold-bn")(i) for i in images()]).mean((0, 2, 3))
        errors = []
        for extra in ("", "bias-correct,"):
            ctx = Context(example=X, calibration=images)
            gm = traced(f"fold-bn,observe,calibrate,{extra}quantize", ctx)
            mean = torch.cat([gm(i) for i in images()]).mean((0, 2, 3))
            errors.append(float((mean - want).abs().max()))
    assert errors[1] < 0.1 * errors[0]  # the mean that is taken out is weighed by relevance


def test_a_correction_is_the_weighted_mean_where_the_images_agree() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
    torch.testing.assert_close(shrunk(weights * 0.25, weights), torch.tensor([0.25, 0.25]))


def test_a_correction_vanishes_where_the_images_contradict_each_other() -> None:
    surplus, total = torch.tensor([[0.5], [-0.5]]), torch.ones(2, 1)
    assert shrunk(surplus, total).item() == 0.0
    mean, variance = 0.25, 2 * (0.5 * 0.25) ** 2
    some = shrunk(torch.tensor([[0.5], [0.0]]), total).item()
    assert some == pytest.approx(mean * mean**2 / (mean**2 + variance))


def test_the_error_of_outputs_is_the_one_that_relevant_places_have() -> None:
    y = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros_like(y)
    weight[..., 0, 0] = 2.0
    wanted = Wanted([], [])
    wanted.add(y, weight)
    wrong = y + 9.0
    wrong[..., 0, 0] = y[..., 0, 0] + 0.5
    torch.testing.assert_close(wanted.error(wrong), torch.full((3,), 0.5))


def test_without_data_follows_the_means_of_the_batch_norms() -> None:
    ctx = Context(example=X)
    gm = traced("fold-bn,observe,calibrate,bias-correct", ctx)
    marks = {n.name: n.meta["yqc.int8"] for n in gm.graph.nodes if "yqc.int8" in n.meta}
    assert {name: mark.mean_error is not None for name, mark in marks.items()} == dict.fromkeys(
        ("stem_conv", "a_conv", "b_conv", "out"), True
    )
