"""A YOLOv8-like detector of 0.2 million parameters, built from yqc's own blocks."""

import torch
from torch import Tensor, nn

from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import C2f
from yqc.models.blocks.pool import SPPF
from yqc.models.heads.dfl import DistanceHead

STRIDES = (8, 16, 32)
BINS = 8
"""Bins of a side's distribution: a side reaches at most 7 strides from its point."""


class ShapesNet(nn.Module):
    """Five stages, a pyramid down and up again (Liu et al., PANet, 2018), three decoupled heads.

    Input float32 [N, 3, H, W], RGB in 0..1, sides divisible by 32; output float32
    [N, 4 + classes, points], rows centre x, centre y, width, height in pixels, then scores.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (16, 24, 24, 32, 48)) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = widths
        self.stem = nn.Sequential(Conv(3, w1, 3, 2), Conv(w1, w2, 3, 2), C2f(w2, w2, 1, True))
        self.stage3 = nn.Sequential(Conv(w2, w3, 3, 2), C2f(w3, w3, 1, True))
        self.stage4 = nn.Sequential(Conv(w3, w4, 3, 2), C2f(w4, w4, 1, True))
        self.stage5 = nn.Sequential(Conv(w4, w5, 3, 2), C2f(w5, w5, 1, True), SPPF(w5, w5, 5))
        self.upsample = nn.Upsample(scale_factor=2.0)
        self.down4 = C2f(w5 + w4, w4, 1)
        self.down3 = C2f(w4 + w3, w3, 1)
        self.half3 = Conv(w3, w3, 3, 2)
        self.up4 = C2f(w3 + w4, w4, 1)
        self.half4 = Conv(w4, w4, 3, 2)
        self.up5 = C2f(w4 + w5, w5, 1)
        self.detect = DistanceHead(classes, (w3, w4, w5), BINS, legacy=True)
        self.detect.stride = tuple(map(float, STRIDES))
        self.detect.finish()
        for layer in self.detect.cv3.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.constant_(
                    layer.bias, -4.6
                )  # Scores begin at 0.01: most points show nothing.

    def features(self, images: Tensor) -> list[Tensor]:
        """The three maps that the heads look at, at strides 8, 16 and 32."""
        c3 = self.stage3(self.stem(images))
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        d4 = self.down4(torch.cat((self.upsample(c5), c4), 1))
        p3 = self.down3(torch.cat((self.upsample(d4), c3), 1))
        p4 = self.up4(torch.cat((self.half3(p3), d4), 1))
        p5 = self.up5(torch.cat((self.half4(p4), c5), 1))
        return [p3, p4, p5]

    def raw(self, images: Tensor) -> list[tuple[Tensor, ...]]:
        """What the heads say before decoding: for each level the sides' and the classes' logits."""
        return self.detect.raw(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """The decoded detections."""
        return self.detect(self.features(images))
