"""Networks made from programs: lists of operations on a pool of tensors of one size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

OPS = (
    *("conv", "wide", "depthwise", "doubled", "grouped", "transposed", "linear", "norm", "act"),
    *("prelu", "add", "mul", "scale", "cat", "chunk", "split", "slice", "pool", "resample"),
    *("view", "squeeze-excite", "heads", "attention", "spatial", "softmax"),
    "group-norm",
)
Program = Sequence[tuple[str, int, int]]
SIZE = 4


class Net(nn.Module):
    """Runs a program; every operation adds a tensor (or two) of `[N, C, 4, 4]` to the pool."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program, self.layers = list(program), nn.ModuleDict()
        self.factors = nn.ParameterDict()
        with torch.no_grad():
            pool = self.run(torch.rand(1, 3, SIZE, SIZE))
            self.last = nn.Conv2d(sum(t.shape[1] for t in pool[-4:]), 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.cat(self.run(x)[-4:], 1))
        return y

    def run(self, x: Tensor) -> list[Tensor]:
        pool = [self.layer("stem", nn.Conv2d, 3, 8, 3, padding=1)(x)]
        for i, (name, first, second) in enumerate(self.program):
            a, b = pool[first % len(pool)], pool[second % len(pool)]
            pool += self.apply_op(f"{name}{i}", name, a, b)
        return pool

    def layer(self, key: str, kind: type[nn.Module], *args: int, **kwargs: int) -> nn.Module:
        if key not in self.layers:
            self.layers[key] = kind(*args, **kwargs)
        return self.layers[key]

    def apply_op(self, key: str, name: str, a: Tensor, b: Tensor) -> list[Tensor]:  # noqa: C901, PLR0911, PLR0912
        c = a.shape[1]
        if name == "conv":
            return [self.layer(key, nn.Conv2d, c, 8, 3, padding=1)(a)]
        if name == "wide":
            return [self.layer(key, nn.Conv2d, c, 12, 1)(a)]
        if name == "depthwise":
            return [self.layer(key, nn.Conv2d, c, c, 3, padding=1, groups=c)(a)]
        if name == "doubled":
            return [self.layer(key, nn.Conv2d, c, 2 * c, 1, groups=c)(a)] if c < 40 else []
        if name == "grouped":
            return [self.layer(key, nn.Conv2d, c, 8, 1, groups=2)(a)] if c % 2 == 0 else []
        if name == "transposed":
            up = self.layer(key, nn.ConvTranspose2d, c, 6, 2, stride=2)
            return [nn.functional.max_pool2d(up(a), 2)]
        if name == "linear":
            y = self.layer(key, nn.Linear, c, 8)(a.permute(0, 2, 3, 1))
            return [y.permute(0, 3, 1, 2)]
        if name == "norm":
            return [self.layer(key, nn.BatchNorm2d, c)(a)]
        if name == "group-norm":
            return [self.layer(key, nn.GroupNorm, c // 2, c)(a)] if c % 2 == 0 else []
        if name == "act":
            return [self.layer(key, nn.SiLU)(a)]
        if name == "prelu":
            return [self.layer(key, nn.PReLU, c)(a)]
        if name in {"add", "mul"}:
            return [(a + b if name == "add" else a * b)] if c == b.shape[1] else []
        if name == "scale":
            if key not in self.factors:
                self.factors[key] = nn.Parameter(torch.rand(1, c, 1, 1) + 0.5)
            return [a * self.factors[key]]
        if name == "cat":
            return [torch.cat((a, b), 1)] if c + b.shape[1] < 64 else []
        if name == "chunk":
            return list(a.chunk(2, 1)) if c % 2 == 0 else []
        if name == "split":
            return list(torch.split(a, [2, c - 2], 1)) if c > 3 else []
        if name == "slice":
            return [a[:, 1 : c - 1]] if c > 3 else []
        if name == "pool":
            return [nn.functional.max_pool2d(a, 3, 1, 1)]
        if name == "resample":
            return [nn.functional.avg_pool2d(nn.functional.interpolate(a, scale_factor=2.0), 2)]
        if name == "view":
            return [a.flatten(2).view(-1, c, SIZE, SIZE)]
        if name == "squeeze-excite":
            return [a * self.layer(key, nn.Conv2d, c, c, 1)(a.mean((2, 3), keepdim=True)).sigmoid()]
        if name == "heads":
            y = unflatten(a.flatten(2), 2, (SIZE, SIZE))
            return [unflatten(y, 1, (2, c // 2)).flatten(1, 2)] if c % 2 == 0 else [y]
        if name == "attention":
            q = a.flatten(2)
            weights = torch.softmax(q.transpose(1, 2) @ q, -1)
            return [unflatten(q @ weights, 2, (SIZE, SIZE))]
        if name == "spatial":
            return [a * b.mean(1, keepdim=True).sigmoid()]
        return [torch.softmax(a, 1)]


def unflatten(x: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    y: Tensor = x.unflatten(dim, sizes)  # type: ignore[no-untyped-call]  # torch
    return y
