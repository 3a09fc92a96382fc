import torch
from torch import nn
from yqc_passes.bias_correct import mean_error

from tests.passes.nets import X, images, traced
from yqc import Context
from yqc.quant import to_integers


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


def test_lowers_the_mean_error_of_the_outputs() -> None:
    plain = "fold-bn,observe,calibrate{weights=minmax}"
    want = torch.cat([traced("fold-bn")(i) for i in images()]).mean((0, 2, 3))
    errors = []
    for extra in ("", ",bias-correct"):
        ctx = Context(example=X, calibration=images)
        gm = traced(plain + extra, ctx)
        for node in gm.graph.nodes:
            if (mark := node.meta.get("yqc.int8")) is not None:
                conv = gm.get_submodule(str(node.target))
                scale = mark.scale.view(-1, 1, 1, 1)
                coarse = scale * 16  # four bits, so that rounding is seen
                if not extra:
                    conv.weight.data = (conv.weight / coarse).round() * coarse
        errors.append(
            float((torch.cat([gm(i) for i in images()]).mean((0, 2, 3)) - want).abs().max())
        )
    assert errors[1] < errors[0]
