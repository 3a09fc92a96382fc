"""Two small detectors in plain torch.nn: one with the head of YOLOv8, one with that of YOLOv5."""

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import trace

CLASSES, BINS = 3, 4


class Conv(nn.Sequential):
    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__(nn.Conv2d(c1, c2, k, s, k // 2, bias=False), nn.BatchNorm2d(c2), nn.SiLU())


class Body(nn.Module):
    """Strides 8 and 16, up once and down once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 8, 3, 2), Conv(8, 16, 3, 2))
        self.deep = Conv(16, 16, 3, 2)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.lateral = Conv(16, 8)
        self.upsample = nn.Upsample(scale_factor=2.0)
        self.high = Conv(24, 16, 3)
        self.down = Conv(16, 16, 3, 2)
        self.low = Conv(32, 16, 3)

    def forward(self, images: Tensor) -> list[Tensor]:
        c3 = self.stem(images)
        c4 = self.pool(self.deep(c3))
        p3 = self.high(torch.cat((self.upsample(c4), self.lateral(c3)), 1))
        return [p3, self.low(torch.cat((self.down(p3), c4), 1))]


class V8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(16, 8, 3), nn.Conv2d(8, 4 * BINS, 1)) for _ in range(2)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(Conv(16, 8, 3), nn.Conv2d(8, CLASSES, 1)) for _ in range(2)
        )
        self.expect = nn.Conv2d(BINS, 1, 1, bias=False)
        self.expect.weight = nn.Parameter(torch.arange(BINS).float().view(1, BINS, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.body(images)
        sides = torch.cat([b(m).flatten(2) for b, m in zip(self.boxes, maps, strict=True)], 2)
        logits = torch.cat([c(m).flatten(2) for c, m in zip(self.scores, maps, strict=True)], 2)
        bins = sides.view(-1, 4, BINS, sides.shape[2]).transpose(1, 2).softmax(1)
        lt, rb = self.expect(bins).flatten(1, 2).chunk(2, 1)
        points, strides = self.points(maps)
        x1y1, x2y2 = points - lt, points + rb
        boxes = torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * strides
        return torch.cat((boxes, logits.sigmoid()), 1)

    def points(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        points, strides = [], []
        for stride, each in zip((8, 16), maps, strict=True):
            high, wide = each.shape[-2:]
            y, x = torch.arange(high) + 0.5, torch.arange(wide) + 0.5
            grid = torch.stack((x.repeat(high), y.repeat_interleave(wide)))
            points.append(grid)
            strides.append(torch.full((1, high * wide), float(stride)))
        return torch.cat(points, 1), torch.cat(strides, 1)


class V5(nn.Module):
    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.m = nn.ModuleList(nn.Conv2d(16, 2 * (5 + CLASSES), 1) for _ in range(2))
        self.register_buffer("anchors", torch.rand(2, 1, 2, 1, 1, 2) * 20 + 5)

    def forward(self, images: Tensor) -> Tensor:
        found = []
        for i, (stride, each) in enumerate(zip((8, 16), self.body(images), strict=True)):
            high, wide = each.shape[-2:]
            y = self.m[i](each).unflatten(1, (2, 5 + CLASSES)).permute(0, 1, 3, 4, 2).sigmoid()
            xy, wh, conf = y.split((2, 2, 1 + CLASSES), 4)
            column = torch.arange(wide).view(1, wide).expand(high, wide)
            row = torch.arange(high).view(high, 1).expand(high, wide)
            xy = (xy * 2 - 0.5 + torch.stack((column, row), 2)) * stride
            wh = (wh * 2) ** 2 * self.anchors[i]
            found.append(torch.cat((xy, wh, conf), 4).flatten(1, 3))
        return torch.cat(found, 1)


def unlike_identity(net: nn.Module) -> nn.Module:
    """Fresh batch norms are identities: they hide bugs."""
    for bn in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert bn.running_mean is not None
        assert bn.running_var is not None
        for tensor, low in ((bn.running_mean, -1), (bn.running_var, 0.5), (bn.weight, 0.5)):
            nn.init.uniform_(tensor, low, 2.0)
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def v8(images: Tensor) -> fx.GraphModule:
    torch.manual_seed(8)
    return trace(unlike_identity(V8()), images)


@pytest.fixture
def v5(images: Tensor) -> fx.GraphModule:
    torch.manual_seed(5)
    return trace(unlike_identity(V5()), images)
