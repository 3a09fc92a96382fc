"""Small nets to try passes on. None of their parameters is the identity, which would hide bugs."""

import re
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def conv_bn(channels: int = 6, *, tap: bool = False, seed: int = 0) -> nn.Module:
    """Make a convolution and its batch norm; with `tap`, something else reads the convolution."""
    return seeded(ConvBn(channels, tap=tap), seed)


def chain(*modules: nn.Module, seed: int = 0) -> nn.Module:
    """Make a sequence of modules; nodes are called after their classes: `conv2d`, `relu_1`."""
    return seeded(Chain(*modules), seed)


def residual(channels: int = 6, seed: int = 0) -> nn.Module:
    """Make two convolutions with batch norms and SiLU whose result is added to their input."""
    return seeded(Residual(channels), seed)


def mixed(channels: int = 4, seed: int = 0) -> "Mixed":
    """Make a residual and a concat behind it, then a pooling and a convolution of two outputs."""
    return seeded(Mixed(channels), seed)


def summed(*branches: nn.Module, seed: int = 0) -> nn.Module:
    """Make the sum of branches that read one input; nodes are called `branches_0`, ..."""
    return seeded(Summed(*branches), seed)


def rep_conv(channels: int = 4, seed: int = 0) -> nn.Module:
    """Make a RepConv as it is in training: two convolutions and the identity, each with a norm."""
    return seeded(TrainedRepConv(channels), seed)


def csp(channels: int = 4, seed: int = 0) -> nn.Module:
    """Make a split whose halves are a concat's inputs, one through a residual (YOLOv8's C2f)."""
    return seeded(Csp(channels), seed)


def detector(classes: int = 2, seed: int = 0) -> nn.Module:
    """Make a detector of two scales with separate heads for boxes and scores, decoded [N,4+nc,A].

    It takes [N,3,H,W] with H and W multiples of 4.
    """
    return seeded(TwoScaleDetector(classes), seed)


def seeded(net: N, seed: int = 0) -> N:
    """Give a net seeded parameters, none of them the identity, and set it to evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in net.modules():
            if isinstance(each, nn.BatchNorm2d):
                _unlike_identity(each, g)
            elif isinstance(each, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                each.weight.normal_(0, each.weight[0].numel() ** -0.5, generator=g)
                if each.bias is not None:
                    each.bias.uniform_(-0.5, 0.5, generator=g)
            else:
                for own in each.parameters(recurse=False):
                    own.uniform_(0.5, 1.5, generator=g)
    return net.eval()


def _unlike_identity(bn: nn.BatchNorm2d, g: torch.Generator) -> None:
    if bn.running_mean is not None and bn.running_var is not None:
        bn.running_mean.uniform_(-1, 1, generator=g)
        bn.running_var.uniform_(0.5, 2, generator=g)
    if bn.affine:
        bn.weight.uniform_(0.5, 2, generator=g)
        bn.bias.uniform_(-1, 1, generator=g)


class ConvBn(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, channels: int, *, tap: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.tap = nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), tap

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, channels, H-2, W-2]."""
        y = self.conv(x)
        z: Tensor = self.bn(y) + y if self.tap else self.bn(y)
        return z


class Chain(nn.Module):
    """Modules one after the other."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.order: list[str] = []
        for each in modules:
            stem = type(each).__name__.lower()
            count = sum(re.fullmatch(rf"{stem}(_\d+)?", name) is not None for name in self.order)
            self.order.append(f"{stem}_{count}" if count else stem)
            self.add_module(self.order[-1], each)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last module returns."""
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


class Unit(nn.Module):
    """A convolution, its batch norm and SiLU."""

    def __init__(self, given: int, made: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, size, stride, size // 2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(made), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, made, H/stride, W/stride]."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class Residual(nn.Module):
    """Two units whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.a, self.b = (
            Unit(3, channels, 3),
            Unit(channels, channels, 3),
            Unit(channels, channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, channels, H, W]."""
        y = self.stem(x)
        z: Tensor = y + self.b(self.a(y))
        return z


class Mixed(nn.Module):
    """A residual, a concat, a pooling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = Unit(3, channels, 3)
        self.a, self.b = Unit(channels, channels), Unit(channels, channels)
        self.pool, self.out = nn.MaxPool2d(2, 1), nn.Conv2d(2 * channels, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 [N, 2, H-1, W-1]."""
        y = self.stem(images)
        z = self.a(y)
        made: Tensor = self.out(self.pool(torch.cat([z, y + self.b(z)], 1)))
        return made


class Summed(nn.Module):
    """The sum of branches of one input, added up in order."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the shape of what each branch returns."""
        total, *rest = (branch(x) for branch in self.branches)
        for y in rest:
            total = total + y
        made: Tensor = total
        return made


class TrainedRepConv(nn.Module):
    """A convolution and ReLU, a RepConv, and SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.stem, self.relu = nn.Conv2d(3, c, 1), nn.ReLU()
        self.wide, self.wide_bn = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.thin, self.thin_bn = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        self.bn, self.act = nn.BatchNorm2d(c), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, channels, H, W]."""
        y = self.relu(self.stem(x))
        made: Tensor = self.act(
            self.wide_bn(self.wide(y)) + self.thin_bn(self.thin(y)) + self.bn(y)
        )
        return made


class Csp(nn.Module):
    """YOLOv8's C2f with one bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Unit(3, 2 * channels), Unit(3 * channels, channels)
        self.m = Unit(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, channels, H, W]."""
        left, right = self.cv1(x).chunk(2, 1)
        y: Tensor = self.cv2(torch.cat((left, right, right + self.m(right)), 1))
        return y


class TwoScaleDetector(nn.Module):
    """Two scales, heads for boxes and for scores, and a decode with grids."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.p2, self.p4 = Unit(3, 6, 3, 2), Unit(6, 8, 3, 2)
        self.box = nn.ModuleList(nn.Conv2d(c, 4, 1) for c in (6, 8))
        self.cls = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (6, 8))

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 [N, 4 + classes, anchors]: cx cy w h in pixels, scores."""
        fine = self.p2(images)
        coarse = self.p4(fine)
        found = [
            torch.cat(
                (
                    self.box[i](x).flatten(2).sigmoid() * (4 * 2**i),
                    self.cls[i](x).flatten(2).sigmoid(),
                ),
                1,
            )
            for i, x in enumerate((fine, coarse))
        ]
        return torch.cat(found, 2)
