"""Small nets that several pass tests share; their batch norms are never the identity."""

import torch
from torch import Tensor, fx, nn

import yqc
from yqc.graph.compare import sqnr_db

X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(outputs), nn.SiLU()
        nn.init.normal_(self.bn.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        nn.init.uniform_(self.bn.weight, 0.5, 2.0)
        nn.init.normal_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class Residual(nn.Module):
    """A unit, a residual addition, a concat, a pooling, and a last convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = Unit(3, 4, 3), Unit(4, 4), Unit(4, 4)
        self.pool, self.out = nn.MaxPool2d(2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.a(x)
        out: Tensor = self.out(self.pool(torch.cat([y, x + self.b(y)], 1)))
        return out


def traced(pipeline: str, ctx: yqc.Context | None = None) -> fx.GraphModule:
    """Trace `Residual` and run a pipeline on it."""
    gm = yqc.trace(Residual(), X)
    yqc.Pipeline.parse(pipeline).run(gm, ctx or yqc.Context(example=X))
    return gm


def calibrated() -> yqc.Context:
    """Return a context with the images below to calibrate on."""
    return yqc.Context(example=X, calibration=images)


def quality(gm: fx.GraphModule) -> float:
    """Return the signal-to-noise ratio in dB of what a graph computes of the images below."""
    plain = traced("fold-bn")
    with torch.no_grad():
        return sqnr_db([plain(x) for x in images()], [gm(x) for x in images()])


def expanded(passes: str) -> str:
    """Return the passes that a pipeline text stands for."""
    return ",".join(map(str, yqc.Pipeline.parse(passes).expand()))


def images() -> list[Tensor]:
    """Make eight calibration images."""
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, 8, 8, generator=generator) for _ in range(8)]
