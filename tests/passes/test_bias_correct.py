import torch
from torch import nn

from tests.passes.nets import X, images, traced
from yqc import Context
from yqc.quant import quantize_weight
from yqc_passes.bias_correct import mean_error


def test_mean_error_is_exact_for_constant_channels() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2)
    mean = torch.tensor([0.5, -1.0, 2.0, 0.25])
    scale = torch.full((6,), 0.05)
    x = mean.view(1, 4, 1, 1).expand(1, 4, 3, 3)
    rounded = nn.Conv2d(4, 6, 3, groups=2)
    rounded.weight = nn.Parameter(quantize_weight(conv.weight, scale) * 0.05)
    rounded.bias = conv.bias
    want = (rounded(x) - conv(x)).flatten()
    torch.testing.assert_close(mean_error(conv, scale, mean), want, atol=1e-6, rtol=1e-4)


def test_takes_the_mean_error_out_of_the_outputs() -> None:
    with torch.no_grad():
        want = torch.cat([traced("fold-bn")(i) for i in images()]).mean((0, 2, 3))
        errors = []
        for extra in ("", "bias-correct,"):
            ctx = Context(target="portable", example=X, calibration=images)
            gm = traced(f"fold-bn,observe,calibrate,{extra}quantize", ctx)
            mean = torch.cat([gm(i) for i in images()]).mean((0, 2, 3))
            errors.append(float((mean - want).abs().max()))
    assert errors[1] < 0.1 * errors[0]  # the mean that is taken out is weighed by relevance


def test_without_data_follows_the_means_of_the_batch_norms() -> None:
    ctx = Context(target="portable", example=X)
    gm = traced("fold-bn,observe,calibrate,bias-correct", ctx)
    marks = {n.name: n.meta["yqc.int8"] for n in gm.graph.nodes if "yqc.int8" in n.meta}
    assert {name: mark.mean_error is not None for name, mark in marks.items()} == dict.fromkeys(
        ("stem_conv", "a_conv", "b_conv", "out"), True
    )
