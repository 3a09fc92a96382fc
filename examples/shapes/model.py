"""A YOLOv8-like detector of 0.2 million parameters for 160 x 160 pictures, built from yqc's own blocks."""

import torch
from torch import Tensor, nn

from yqc.models.blocks import SPPF, C2f, Conv
from yqc.models.heads import Detect

STRIDES = (8, 16, 32)
BINS = 8
"""Bins of a side's distribution: a side reaches at most 7 strides from its point."""


class ShapesNet(nn.Module):
    """Five stages, a pyramid down and up again (Liu et al., PANet, 2018), three decoupled heads.

    Input float32 [N, 3, H, W], RGB in 0..1, sides divisible by 32; output [N, 4 + classes, points] as YOLOv8 gives it.
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
        self.detect = Detect(classes, BINS, (w3, w4, w5), STRIDES)
        for branch in self.detect.cv3:
            nn.init.constant_(branch[-1].bias, -4.6)  # Every score begins at 0.01: most points show no object.

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

    def raw(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The heads' maps before any decoding: for each level the sides' and the classes' logits."""
        heads = zip(self.detect.cv2, self.detect.cv3, self.features(images), strict=True)
        return [(box(x), kind(x)) for box, kind, x in heads]

    def forward(self, images: Tensor) -> Tensor:
        """The decoded detections."""
        return self.detect(self.features(images))
