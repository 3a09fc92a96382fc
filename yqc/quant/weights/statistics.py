"""Statistics of one convolution's inputs, in the float graph and in the rounded one.

With x the input in the float graph, x' behind the layers that are rounded already, weights W,
rounded weights Q and a free bias c,

    sum over samples of |W x - Q x' - c|^2

is least for c = W mean(x) - Q mean(x'), and then, up to a constant, it is

    (W* - Q) H (W* - Q)^T     H  = cov(x', x')      W* = W + W cov(x - x', x') H^-1

So a layer makes up for the errors of earlier layers as far as its inputs show them, and no separate
bias correction is needed. Samples are weighted by relevance (`yqc.quant.weights.sampling`).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.quant.weights.rounding import InputMoments, inverse_factor


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of one convolution's inputs; B groups, C = I / B * kh * kw columns."""

    covariance: Tensor
    """Of the rounded graph's inputs, centred: float32 [B, C, C]."""
    cross: Tensor
    """Of (float - rounded) with rounded, centred: float32 [B, C, C]; zeros if they are the same."""
    mean: Tensor
    """Of the float graph's inputs: float32 [B, C]."""
    mean_rounded: Tensor
    """float32 [B, C]."""
    samples: int

    def damped(self, share: float) -> InputMoments:
        """Return the covariance as moments, a share of its mean diagonal added to the diagonal."""
        diagonal = self.covariance.diagonal(dim1=1, dim2=2)
        extra = share * diagonal.mean(1).clamp(min=1e-12)
        eye = torch.eye(self.covariance.shape[1])
        return InputMoments(self.covariance + extra.view(-1, 1, 1) * eye)

    def corrected(self, w: Tensor, moments: InputMoments, trust: float) -> Tensor:
        """Return W*, the weights [R, C] that make up for the errors of the inputs.

        Moments are those of `damped`; `trust`, 0..1, is the share of the correction to apply.
        """
        if trust == 0 or not self.cross.any():
            return w
        groups, columns, _ = self.cross.shape
        wanted = w.view(groups, -1, columns) @ self.cross
        upper = inverse_factor(moments.h)
        step = wanted @ (upper.mT @ upper)
        return w + trust * step.reshape(w.shape)

    def bias(self, w: Tensor, q: Tensor, bias: Tensor | None) -> Tensor:
        """Return the best bias with rounded weights q [R, C] instead of w: [R]."""
        groups, columns = self.mean.shape
        want = (w.view(groups, -1, columns) @ self.mean.unsqueeze(2)).view(-1)
        got = (q.view(groups, -1, columns) @ self.mean_rounded.unsqueeze(2)).view(-1)
        return want - got + (0 if bias is None else bias)


class StatisticsCollector:
    """Gathers the statistics of one convolution's inputs, batch by batch."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        groups = conv.groups
        columns = conv.weight[0].numel()
        self.square, self.cross = (torch.zeros(groups, columns, columns) for _ in range(2))
        self.sums = [torch.zeros(groups, columns) for _ in range(2)]
        self.total, self.count, self.same = 0.0, 0, True

    def add(self, x: Tensor, rounded: Tensor, at: Tensor, weight: Tensor) -> None:
        """Add samples at flat output positions, int64 [N, K], with weights, float32 [N, K].

        `x` is the float graph's input, [N, I, H, W], `rounded` the rounded graph's: the same object
        where nothing differs.
        """
        q = gather_patches(rounded, self.conv, at)
        root = weight.reshape(1, -1, 1).sqrt()
        scaled = q * root
        self.square.baddbmm_(scaled.transpose(1, 2), scaled)
        sums = (q * weight.reshape(1, -1, 1)).sum(1)
        self.sums[1] += sums
        if x is rounded:
            self.sums[0] += sums
        else:
            self.same = False
            off = gather_patches(x, self.conv, at) - q
            self.cross.baddbmm_((off * root).transpose(1, 2), scaled)
            self.sums[0] += sums + (off * weight.reshape(1, -1, 1)).sum(1)
        self.total += float(weight.sum())
        self.count += weight.numel()

    def result(self) -> InputStatistics:
        """Return the statistics of all samples."""
        total = max(self.total, 1e-12)
        mean, rounded = (s / total for s in self.sums)
        square = self.square / total - rounded.unsqueeze(2) * rounded.unsqueeze(1)
        off = mean - rounded
        cross = self.cross / total - off.unsqueeze(2) * rounded.unsqueeze(1)
        if self.same:
            cross = torch.zeros_like(cross)
        return InputStatistics(square, cross, mean, rounded, self.count)


def gather_patches(x: Tensor, conv: nn.Conv2d, at: Tensor) -> Tensor:
    """Return the inputs of a convolution at flat output positions, int64 [N, K].

    They are rows for its flattened weight: float32 [groups, N * K, I / groups * kh * kw].
    """
    (kh, kw), (sh, sw), (dh, dw) = (
        as_pair(v) for v in (conv.kernel_size, conv.stride, conv.dilation)
    )
    x = pad_input(x.float(), conv)
    width = x.shape[3]
    out_width = (width - dw * (kw - 1) - 1) // sw + 1
    top, left = (at // out_width) * sh, (at % out_width) * sw
    offsets = (torch.arange(kh) * dh * width).view(-1, 1) + torch.arange(kw) * dw
    index = (top * width + left).unsqueeze(2) + offsets.view(1, 1, -1)
    batch, count, kernel = index.shape
    channels = x.shape[1]
    flat = index.view(batch, 1, -1).expand(-1, channels, -1)
    seen = x.flatten(2).gather(2, flat).view(batch, conv.groups, -1, count, kernel)
    return seen.permute(1, 0, 3, 2, 4).reshape(conv.groups, batch * count, -1)


def pad_input(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad an input as a convolution does."""
    padding = conv.padding
    if padding == "same":
        sides = []
        for k, d in zip(
            reversed(as_pair(conv.kernel_size)), reversed(as_pair(conv.dilation)), strict=True
        ):
            whole = d * (k - 1)
            sides += [whole // 2, whole - whole // 2]
    elif isinstance(padding, str):
        return x
    else:
        ph, pw = as_pair(padding)
        sides = [pw, pw, ph, ph]
    if not any(sides):
        return x
    return F.pad(x, sides) if conv.padding_mode == "zeros" else F.pad(x, sides, conv.padding_mode)


def as_pair(value: Any) -> tuple[int, int]:  # noqa: ANN401  # an int or a tuple of two
    """Return a convolution's setting for height and width."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def convolve_with(x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a convolution with another weight and bias."""
    if conv.padding_mode != "zeros":
        return F.conv2d(
            pad_input(x, conv), weight, bias, conv.stride, 0, conv.dilation, conv.groups
        )
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
