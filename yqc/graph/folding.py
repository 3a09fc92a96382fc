"""Folding a batch norm into the convolution before it.

    conv(x) = W*x + b      bn(y) = (y - mean) * s + beta,   s = gamma / sqrt(var + eps)

so bn(conv(x)) is one convolution with W' = W * s and b' = (b - mean) * s + beta.
"""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights


def fold_conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that computes `bn(conv(x))` in inference; neither is changed."""
    return fuse_conv_bn_eval(conv, bn)


def fold_kernel(weight: Tensor, bias: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a weight [O, I, kh, kw] and bias [O] with a batch norm, affine or not, folded in.

    Raises:
        ValueError: the batch norm has no running statistics.
    """
    mean, variance = bn.running_mean, bn.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    folded = fuse_conv_bn_weights(weight, bias, mean, variance, bn.eps, bn.weight, bn.bias)
    return folded[0].detach(), folded[1].detach()
