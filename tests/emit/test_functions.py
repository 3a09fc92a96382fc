"""Functions and tensor methods: the emitted numbers, shapes and dtypes are PyTorch's."""

from collections.abc import Callable
from typing import Any, TypeAlias

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

Agrees: TypeAlias = Callable[..., onnx.ModelProto]

NOISE = torch.randn(2, 8, 6, 10, generator=torch.Generator().manual_seed(0))
X, Y = NOISE[:1], NOISE[1:]
INTS = torch.randint(-9, 9, (1, 4, 12), generator=torch.Generator().manual_seed(1))
DIVISORS = torch.tensor([-5, -3, -1, 1, 2, 3, 4, 7, 8, -8, 5, 6]).reshape(1, 1, 12)
ROW = torch.linspace(-2, 3, 10)

FLOAT: dict[str, Callable[[Tensor], Any]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "exp": torch.exp,
    "exp-method": lambda x: x.exp(),
    "log": lambda x: (x.abs() + 0.1).log(),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "square": torch.square,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": lambda x: torch.round(x * 4 + 0.5),
    "sign": torch.sign,
    "erf": torch.erf,
    "sin-cos": lambda x: x.sin() * torch.cos(x),
    "reciprocal": lambda x: (x.abs() + 1).reciprocal(),
    "sigmoid": torch.sigmoid,
    "sigmoid-method": lambda x: x.sigmoid(),
    "tanh": torch.tanh,
    "relu": torch.relu,
    "relu-method": lambda x: x.relu(),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "leaky-relu": lambda x: F.leaky_relu(x, 0.2),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, max_val=0.25),
    "relu6": lambda x: F.relu6(x * 5),
    "elu": lambda x: F.elu(x, alpha=0.5),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "softmax": lambda x: torch.softmax(x, 1),
    "softmax-method": lambda x: x.softmax(-1),
    "softmax-functional": lambda x: F.softmax(x, dim=2),
    "dropout": lambda x: F.dropout(x, 0.5, training=False) + 1,
    "add-number": lambda x: x + 2,
    "add-reversed": lambda x: 2.5 + x,
    "add-alpha": lambda x: torch.add(x, ROW, alpha=3),
    "sub-reversed": lambda x: 1 - x,
    "sub-alpha": lambda x: torch.sub(x, 2, alpha=0.5),
    "mul-number": lambda x: x * -0.3,
    "div-number": lambda x: x / 3,
    "div-reversed": lambda x: 1 / (x.abs() + 1),
    "div-floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div-trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "pow": lambda x: x**2,
    "pow-half": lambda x: x.abs().pow(0.5),
    "pow-reversed": lambda x: 2**x,
    "floor-divide": lambda x: x // 0.7,
    "remainder": lambda x: x % 0.7,
    "remainder-negative": lambda x: torch.remainder(x, -0.3),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp-low": lambda x: torch.clamp(x, min=0.1),
    "clamp-high": lambda x: x.clamp(max=0.1),
    "clamp-min-method": lambda x: x.clamp_min(0.2),
    "where": lambda x: torch.where(x > 0, x, 0.5),
    "where-method": lambda x: x.where(x < 0.3, x * 2),
    "masked-fill": lambda x: x.masked_fill(x <= 0, -7.0),
    "logic": lambda x: torch.where((x > -1) & (x < 1) | ~(x >= -2), x, 0.0),
    "compare": lambda x: ((x == x.round()) != (x > 1)).float(),
    "to-int": lambda x: (x * 10).to(torch.int64),
    "to-half": lambda x: x.half().float(),
    "to-device": lambda x: x.to("cpu").contiguous() + 1,
    "type-as": lambda x: (x > 0).type_as(x),
    "mean": lambda x: x.mean((2, 3)),
    "mean-keep": lambda x: x.mean(dim=1, keepdim=True),
    "mean-negative": lambda x: torch.mean(x, -1),
    "sum": lambda x: x.sum(2),
    "sum-all-but-batch": lambda x: x.sum((1, 2, 3)),
    "sum-of-truths": lambda x: (x > 0).sum(-1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: torch.amin(x, (1, 3), keepdim=True),
    "max": lambda x: x.max(1),
    "max-keep": lambda x: torch.max(x, dim=-1, keepdim=True)[0],
    "max-indices": lambda x: x.max(2)[1],
    "max-of-two": lambda x: torch.max(x, -x),
    "maximum": lambda x: torch.maximum(x, x.neg()),
    "min": lambda x: x.min(3)[0],
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: torch.argmin(x, dim=-1, keepdim=True),
    "topk": lambda x: x.flatten(1).topk(5),
    "topk-smallest": lambda x: torch.topk(x, 3, dim=1, largest=False)[0],
    "sort": lambda x: torch.sort(x, dim=2, descending=True),
    "argsort": lambda x: x.argsort(-1),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "matmul-constant": lambda x: x @ torch.linspace(-1, 1, 30).reshape(10, 3),
    "bmm": lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
    "einsum": lambda x: torch.einsum("bchw, bkhw -> bck", x, x),
    "cat": lambda x: torch.cat([x, x * 2, x[:, :3]], 1),
    "cat-negative": lambda x: torch.cat((x, -x), dim=-2),
    "cat-of-chunks": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "cat-promotes": lambda x: torch.cat([x, (x > 0)], 1),
    "stack": lambda x: torch.stack([x, -x, x * x], -1),
    "stack-front": lambda x: torch.stack((x, -x), 1),
    "chunk": lambda x: x.chunk(2, 1),
    "chunk-uneven": lambda x: torch.chunk(x, 3, dim=-1),
    "split": lambda x: x.split(3, 1),  # type: ignore[no-untyped-call]
    "split-list": lambda x: torch.split(x, [1, 5, 2], dim=1),
    "split-one-used": lambda x: x.split([2, 6], 1)[1],  # type: ignore[no-untyped-call]
    "unbind": lambda x: x.unbind(2)[4],
    "unpacked": lambda x: torch.mul(*x.chunk(2, 1)),
    "focus": lambda x: torch.cat(
        [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1
    ),
    "index-integer": lambda x: x[:, 3],
    "index-negative": lambda x: x[:, -2, ..., -1],
    "index-ellipsis": lambda x: x[..., 2:5],
    "index-new-axis": lambda x: x[:, None, 2, :, 1:, None],
    "index-beyond": lambda x: x[:, 5:100, -100:4],
    "index-tensor": lambda x: x[:, :, torch.tensor([[4, 0], [1, -1]])],
    "index-select": lambda x: x.index_select(1, torch.tensor([3, 1, 7, 1])),
    "select": lambda x: x.select(2, 1),
    "narrow": lambda x: x.narrow(1, 2, 3),
    "gather": lambda x: x.flatten(2).gather(2, x.flatten(2).topk(7, 2)[1]),
    "gather-narrower": lambda x: torch.gather(x, 1, x[:, :3, :2, :5].argmax(1, keepdim=True)),
    "view": lambda x: x.view(-1, 8, 60),
    "view-tuple": lambda x: x.view((-1, 4, 2, 60)),
    "reshape": lambda x: x.reshape(-1, 2, 4, 6, 10).permute(0, 2, 1, 3, 4),
    "reshape-inferred": lambda x: torch.reshape(x, (-1, 4, 120)),
    "reshape-with-the-batch-in-it": lambda x: x.reshape(x.shape[0] * 4, -1, 10) * 2,
    "flatten": lambda x: x.flatten(1),
    "flatten-batch": lambda x: x.flatten(0, 1).unflatten(0, (-1, 8)) + 1,  # type: ignore[no-untyped-call]
    "flatten-permuted-batch": lambda x: x.permute(1, 0, 2, 3).flatten(1).sum(1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),  # type: ignore[no-untyped-call]
    "unflatten-last": lambda x: torch.unflatten(x, -1, (5, 2)),
    "area-attention": lambda x: x.flatten(2).transpose(1, 2).unflatten(1, (4, 15)).flatten(0, 1),  # type: ignore[no-untyped-call]
    "area-and-back": lambda x: (
        x.flatten(2).unflatten(2, (4, 15)).transpose(1, 2).flatten(0, 1).unflatten(0, (-1, 4)) * 2  # type: ignore[no-untyped-call]
    ),
    "permute": lambda x: x.permute(0, 2, -1, 1),
    "permute-list": lambda x: torch.permute(x, [0, 3, 1, 2]),
    "transpose": lambda x: x.transpose(-1, 1),
    "matrix-transpose": lambda x: x.mT,
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "squeeze-nothing": lambda x: x.squeeze(1) + 1,
    "unsqueeze": lambda x: x.unsqueeze(-1).unsqueeze(1),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "expand-rank": lambda x: x[0, 0, 0].expand(3, 4, 10),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat-rank": lambda x: x[:, 0, 0].repeat(2, 1, 1).sum(0),
    "add-row-and-column": lambda x: x + ROW + torch.arange(6.0).reshape(6, 1),
    "max-pool": lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    "padded-max-pool": lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1),
    "constant-padded-max-pool": lambda x: F.max_pool2d(F.pad(x, (0, 1), value=0.3), 2),
    "avg-pool": lambda x: F.avg_pool2d(x, 2, 1, 0, False, True),
    "adaptive-avg-pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive-max-pool": lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "interpolate-size": lambda x: F.interpolate(x, (9, 17), mode="bilinear", align_corners=False),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3)),
    "pad-value": lambda x: F.pad(x, [1, 0], value=-2.5),
    "pad-mode": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "pixel-shuffle": lambda x: F.pixel_shuffle(x, 2),
    "conv": lambda x: F.conv2d(x, NOISE[:, :, :3, :3], torch.tensor([0.5, -1.0]), padding=1),
    "conv-computed-weight": lambda x: F.conv2d(x, NOISE[:, :, :3, :3] * 2 - ROW[1:4], stride=2),
    "linear": lambda x: F.linear(x, NOISE[0, 0], ROW[:6]),
    "layer-norm": lambda x: F.layer_norm(x, (10,), ROW),
    "batch-norm": lambda x: F.batch_norm(x, ROW[:8], ROW[:8].abs() + 1, ROW[1:9], None, eps=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT)
def test_function_computes_the_same_at_the_highest_opset(name: str, agrees: Agrees) -> None:
    agrees(FLOAT[name], X, opset=23)


@pytest.mark.parametrize("name", FLOAT)
def test_function_takes_any_batch_at_the_default_opset(name: str, agrees: Agrees) -> None:
    takes_no_batch = name in {"expand-rank", "repeat-rank"}  # They mix it with other dimensions.
    agrees(FLOAT[name], X, dynamic=not takes_no_batch)


INTEGER: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "floor-divide": lambda i, j: i // j,
    "floor-divide-number": lambda i, _: i // 3,
    "floor-divide-negative": lambda i, _: torch.floor_divide(i, -4),
    "div-floor": lambda i, j: torch.div(i, j, rounding_mode="floor"),
    "div-trunc": lambda i, j: torch.div(i, j, rounding_mode="trunc"),
    "remainder": lambda i, j: i % j,
    "remainder-number": lambda i, _: torch.remainder(i, 5),
    "remainder-negative": lambda i, _: i.remainder(-5),
    "true-divide": lambda i, j: i / j,
    "times-float": lambda i, _: i * 0.5,
    "times-float-tensor": lambda i, j: i * j.float().reciprocal(),
    "add": lambda i, j: i + j,
    "power": lambda i, _: i**2,
    "clamp": lambda i, _: i.clamp(-3, 4),
    "exp-promotes": lambda i, _: torch.exp(i),
    "mean": lambda i, _: i.float().mean(1),
    "sum": lambda i, _: i.sum(1, keepdim=True),
    "maximum": torch.maximum,
    "where": lambda i, j: torch.where(i > j, i, -1),
    "compare-float": lambda i, _: (i < 1.5).int(),
    "to-int32": lambda i, j: i.int() - j,
    "one-hot-by-compare": lambda i, _: (i.unsqueeze(-1) == torch.arange(9)).float(),
}


@pytest.mark.parametrize("name", INTEGER)
def test_integers_and_promotion(name: str, agrees: Agrees) -> None:
    agrees(INTEGER[name], INTS, DIVISORS, dynamic=True)


TWO: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": torch.add,
    "sub-method": lambda x, y: x.sub(y),
    "mul": torch.mul,
    "div": lambda x, y: x.div(y.abs() + 1),
    "pow": lambda x, y: x.abs() ** y,
    "remainder": lambda x, y: x % y,
    "clamp-tensors": lambda x, y: x.clamp(y - 1, y),
    "where": lambda x, y: torch.where(x > y, x, y),
    "cat": lambda x, y: torch.cat((x, y), 2),
    "view-as": lambda x, y: x.view_as(y) + x.reshape_as(y),
    "expand-as": lambda x, y: x[:, :1].expand_as(y),
    "several-outputs": lambda x, y: (x + y, [x, (x - y).chunk(2, 1)]),
    "in-place-add": lambda x, y: (x + 0).add_(y) * 2,
    "in-place-is-seen-by-others": lambda x, y: _in_place(x + 0, y),
    "in-place-twice": lambda x, y: _in_place_twice(x + 0, y),
    "in-place-on-a-copy": lambda x, y: x.clone().mul_(y) + x,
    "in-place-relu": lambda x, y: _in_place_relu(x + y),
}


def _in_place(x: Tensor, y: Tensor) -> Tensor:
    z = x.mul_(y)
    return x + z


def _in_place_twice(x: Tensor, y: Tensor) -> Tensor:
    z = x.add_(y).mul_(2)
    return z - x * 0.5


def _in_place_relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True) + x


@pytest.mark.parametrize("name", TWO)
def test_two_inputs(name: str, agrees: Agrees) -> None:
    agrees(TWO[name], X, Y, dynamic=True)


def end2end(x: Tensor) -> Tensor:
    """Pick the best 7 of 60 positions x 4 classes, as the end-to-end heads do."""
    boxes, scores = x.flatten(2).transpose(1, 2).split([4, 4], -1)  # type: ignore[no-untyped-call]
    boxes, scores = boxes * 20, scores.sigmoid()
    index = scores.amax(-1).topk(7)[1].unsqueeze(-1)
    boxes = boxes.gather(1, index.expand(-1, -1, 4))
    scores = scores.gather(1, index.repeat(1, 1, 4))
    best, flat = scores.flatten(1).topk(7)
    rows = torch.div(flat, 4, rounding_mode="floor")
    picked = boxes.gather(1, rows.unsqueeze(-1).repeat(1, 1, 4))
    return torch.cat([picked, best[..., None], (flat % 4)[..., None].float()], -1)


@pytest.mark.parametrize("opset", [17, 21, 23])
def test_end_to_end_head(opset: int, agrees: Agrees) -> None:
    agrees(end2end, X, opset=opset, dynamic=True)
