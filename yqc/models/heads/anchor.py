"""Heads with anchor boxes: YOLOv5's Detect, YOLOv7's Detect, IDetect and IAuxDetect.

With s the sigmoid of a raw output, (col, row) the cell, t its stride and a the anchor in pixels:

    x = (2 s_x - 0.5 + col) t    y = (2 s_y - 0.5 + row) t    w = (2 s_w)^2 a_w    h = (2 s_h)^2 a_h
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError
from yqc.facts import HeadFacts, Layout
from yqc.models.blocks.base import Block
from yqc.models.heads.base import DetectionHead, cell_centres, check_outputs


class AnchorHead(DetectionHead):
    """One convolution a level gives, for each anchor, a box, an objectness and class scores."""

    na: int
    """How many anchors a level."""
    no: int
    """How many numbers an anchor: 5 + nc, and mask coefficients."""
    anchors: Tensor
    """`f32[nl, na, 2]`, width and height in cells of the level."""

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        super().__init__()
        self.nc, self.no, self.nl, self.na = nc, nc + 5, len(anchors), len(anchors[0]) // 2
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch[: self.nl])

    @property
    def layout(self) -> Layout:
        return "yolov5"

    def facts(self) -> HeadFacts:
        pixels = self.anchors * torch.tensor(self.stride).view(-1, 1, 1)
        return HeadFacts(anchors=tuple(tuple((w, h) for w, h in lv) for lv in pixels.tolist()))

    def finish(self) -> None:
        """Drop the grid of anchors that older releases store beside the anchors."""
        self._buffers.pop("anchor_grid", None)

    def check(self) -> None:
        shape = (self.nl, self.na, 2)
        if self.no != self.nc + 5 + self.coefficients or tuple(self.anchors.shape) != shape:
            raise CheckpointError(
                f"the head has {self.nc} classes, {self.no} numbers an anchor and anchors of shape"
                f" {list(self.anchors.shape)}: the checkpoint is damaged"
            )
        check_outputs(self.child("m"), self.nl, self.na * self.no, "m")

    def scale_anchors(self) -> None:
        """Turn anchors given in pixels, as model YAMLs hold them, into cells of each level."""
        self.anchors = self.anchors / torch.tensor(self.stride).view(-1, 1, 1)

    def level(self, i: int, x: Tensor) -> Tensor:
        """Return level i's raw output, `f32[N, na * no, h, w]`."""
        y: Tensor = self.m[i](x)
        return y

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return `f32[N, na, no, h, w]` for each level."""
        return [
            (torch.unflatten(self.level(i, x), 1, (self.na, self.no)),)
            for i, x in zip(range(self.nl), xs, strict=False)
        ]

    def forward(self, xs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        levels = [self.decode(i, self.level(i, xs[i])) for i in range(self.nl)]
        return torch.cat(levels, 1)

    def decode(self, i: int, y: Tensor) -> Tensor:
        """Decode level i: boxes and scores, `f32[N, na * h * w, 5 + nc]`.

        They are joined where a channel is one run of memory, so that only one copy is transposed.
        """
        return to_rows(self.decode_cells(i, y))

    def decode_cells(self, i: int, y: Tensor) -> Tensor:
        """Decode level i: boxes and scores, `f32[N, na, 5 + nc, h, w]`."""
        h, w = y.shape[-2:]
        numbers = y.shape[1] // self.na
        t = self.stride[i]
        size = (self.anchors[i] * (4 * t)).view(self.na, 2, 1, 1)
        parts = torch.unflatten(torch.sigmoid(y), 1, (self.na, numbers))
        col, row, side, score = torch.split(parts, [1, 1, 2, numbers - 4], 2)
        x = col * (2 * t) + cell_centres(w, t, -0.5)
        y = row * (2 * t) + cell_centres(h, t, -0.5)[:, None]
        return torch.cat((x, y, side**2 * size, score), 2)


def to_rows(x: Tensor) -> Tensor:
    """`[N, na, C, h, w]` to `[N, na * h * w, C]`."""
    return x.permute(0, 1, 3, 4, 2).flatten(1, 3)


class ImplicitA(Block):
    """Learned numbers that are added to a map, one a channel (YOLOv7)."""

    def __init__(self, channel: int, mean: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.empty(1, channel, 1, 1).normal_(mean, std))

    def forward(self, x: Tensor) -> Tensor:
        return self.implicit + x


class ImplicitM(ImplicitA):
    """Learned numbers that a map is multiplied by, one a channel (YOLOv7)."""

    def __init__(self, channel: int, mean: float = 1.0, std: float = 0.02) -> None:
        super().__init__(channel, mean, std)

    def forward(self, x: Tensor) -> Tensor:
        return self.implicit * x


class ImplicitHead(AnchorHead):
    """YOLOv7's IDetect: im(m(ia(x))), with ia and im folded into m once weights are loaded.

    m(x) = W x + b   gives   im * (W (x + ia) + b) = (im W) x + im (b + W ia).
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        super().__init__(nc, anchors, ch)
        self.ia = nn.ModuleList(ImplicitA(c) for c in ch[: self.nl])
        self.im = nn.ModuleList(ImplicitM(self.no * self.na) for _ in range(self.nl))

    def finish(self) -> None:
        """Fold the implicit knowledge into the convolutions; it is gone afterwards."""
        super().finish()
        if self.child("ia") is None:
            return
        check_outputs(self.child("m"), self.nl, self.na * self.no, "m")
        for conv, ia, im in zip(self.m, self.ia, self.im, strict=True):
            added, factor = (next(part.parameters(), None) for part in (ia, im))
            if added is None or factor is None:
                raise CheckpointError("the head's implicit knowledge has lost its numbers")
            fold_implicit(conv, added.data, factor.data)
        del self.ia, self.im

    def level(self, i: int, x: Tensor) -> Tensor:
        if self.child("ia") is None:
            return super().level(i, x)
        y: Tensor = self.im[i](self.m[i](self.ia[i](x)))
        return y


def fold_implicit(conv: nn.Module, ia: Tensor, im: Tensor) -> None:
    """Fold what is added before and multiplied after a pointwise convolution into it, in place."""
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (1, 1) or conv.bias is None:
        raise CheckpointError("the head's last convolutions are not pointwise with a bias")
    weight, factor = conv.weight.data, im.flatten()
    shift = weight.flatten(1) @ ia.flatten()
    conv.weight = nn.Parameter(weight * factor.view(-1, 1, 1, 1), requires_grad=False)
    conv.bias = nn.Parameter(factor * (conv.bias.data + shift), requires_grad=False)


class AuxiliaryHead(ImplicitHead):
    """YOLOv7's IAuxDetect: more maps and convolutions `m2` for training, dropped for inference."""

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        super().__init__(nc, anchors, ch)
        self.m2 = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch[self.nl :])

    def finish(self) -> None:
        """Fold the implicit knowledge and drop the auxiliary convolutions."""
        super().finish()
        if self.child("m2") is not None:
            del self.m2
