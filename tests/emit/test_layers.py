"""Modules with weights, activations and pools: the emitted numbers are PyTorch's."""

from collections.abc import Callable
from typing import TypeAlias

import onnx
import pytest
import torch
from torch import Tensor, nn

Agrees: TypeAlias = Callable[..., onnx.ModelProto]

X = torch.randn(1, 8, 11, 14, generator=torch.Generator().manual_seed(0))

LAYERS: dict[str, nn.Module] = {
    "conv": nn.Conv2d(8, 6, 3),
    "conv-all": nn.Conv2d(8, 6, (3, 5), stride=(2, 1), padding=(1, 4), dilation=(1, 2), groups=2),
    "conv-depthwise": nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    "conv-same": nn.Conv2d(8, 4, (4, 3), padding="same", dilation=(1, 2)),
    "conv-valid": nn.Conv2d(8, 4, 3, padding="valid"),
    "conv-reflect": nn.Conv2d(8, 4, 3, padding=(2, 1), padding_mode="reflect"),
    "conv-replicate": nn.Conv2d(8, 4, (4, 3), padding="same", padding_mode="replicate"),
    "conv-circular": nn.Conv2d(8, 4, 3, padding=(1, 2), padding_mode="circular"),
    "conv-transpose": nn.Sequential(nn.ConvTranspose2d(8, 4, 2, stride=2)),
    "conv-transpose-all": nn.Sequential(
        nn.ConvTranspose2d(8, 6, (3, 4), (2, 3), (1, 2), (1, 2), groups=2, dilation=(2, 1))
    ),
    "batch-norm": nn.BatchNorm2d(8, eps=1e-3),
    "batch-norm-no-affine": nn.BatchNorm2d(8, affine=False),
    "linear": nn.Linear(14, 5),
    "linear-no-bias": nn.Linear(14, 5, bias=False),
    "layer-norm": nn.LayerNorm(14),
    "layer-norm-two-axes": nn.LayerNorm((11, 14), eps=1e-3),
    "layer-norm-no-affine": nn.LayerNorm(14, elementwise_affine=False),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "relu": nn.ReLU(),
    "relu6": nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU6()),
    "leaky-relu": nn.LeakyReLU(0.1),
    "sigmoid": nn.Sigmoid(),
    "mish": nn.Mish(),
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU("tanh"),
    "identity": nn.Sequential(nn.Identity(), nn.Tanh()),
    "dropout": nn.Sequential(nn.Dropout(0.5), nn.Tanh()),
    "softmax": nn.Softmax(1),
    "softmax-last": nn.Softmax(-1),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.3, 0.7),
    "elu": nn.ELU(0.7),
    "prelu-one": nn.PReLU(),
    "prelu-channels": nn.PReLU(8),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "max-pool": nn.MaxPool2d(2),
    "max-pool-spp": nn.MaxPool2d(5, 1, 2),
    "max-pool-ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max-pool-ceil-padded": nn.MaxPool2d((2, 3), (2, 4), (1, 1), ceil_mode=True),
    "max-pool-dilated": nn.MaxPool2d(3, 2, 1, dilation=(2, 3)),
    "max-pool-dilated-ceil": nn.MaxPool2d(2, 3, 1, dilation=3, ceil_mode=True),
    "avg-pool": nn.AvgPool2d(2),
    "avg-pool-padded": nn.AvgPool2d(3, 2, 1),
    "avg-pool-padded-uncounted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg-pool-ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "avg-pool-ceil-padded": nn.AvgPool2d((2, 3), (2, 4), 1, ceil_mode=True),
    "avg-pool-ceil-uncounted": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "avg-pool-divisor": nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    "adaptive-avg-pool": nn.AdaptiveAvgPool2d(1),
    "adaptive-avg-pool-blocks": nn.AdaptiveAvgPool2d((11, 7)),
    "adaptive-max-pool": nn.AdaptiveMaxPool2d((1, 1)),
    "upsample": nn.Upsample(scale_factor=2),
    "upsample-non-integer": nn.Upsample(scale_factor=(1.5, 0.7)),
    "upsample-size": nn.Upsample(size=(22, 21)),
    "upsample-recomputed": nn.Upsample(scale_factor=1.7, recompute_scale_factor=True),
    "upsample-exact": nn.Upsample(size=(5, 31), mode="nearest-exact"),
    "upsample-bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "upsample-bilinear-size": nn.Upsample(size=(7, 29), mode="bilinear"),
    "upsample-bilinear-to-one": nn.Upsample(size=(1, 3), mode="bilinear"),
    "upsample-bilinear-corners": nn.Upsample(size=(23, 9), mode="bilinear", align_corners=True),
    "upsample-bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "zero-pad": nn.ZeroPad2d((1, 2, 3, 0)),
    "zero-pad-crop": nn.ZeroPad2d((-1, 2, 0, -3)),
    "constant-pad": nn.ConstantPad2d(2, 3.5),
    "reflection-pad": nn.ReflectionPad2d((1, 2, 3, 0)),
    "replication-pad": nn.ReplicationPad2d(2),
    "zero-pad-max-pool": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)),
    "zero-pad-max-pool-strided": nn.Sequential(nn.ZeroPad2d((1, 2, 2, 1)), nn.MaxPool2d(5, 3, 2)),
    "zero-pad-max-pool-wide": nn.Sequential(nn.ZeroPad2d((2, 0, 0, 0)), nn.MaxPool2d(2)),
    "zero-pad-avg-pool": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1)),
    "zero-pad-conv": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(8, 4, 2, padding=1)),
    "pixel-shuffle": nn.PixelShuffle(2),
    "pixel-unshuffle": nn.Sequential(nn.ZeroPad2d((0, 0, 0, 1)), nn.PixelUnshuffle(2)),
    "flatten": nn.Flatten(),
    "flatten-middle": nn.Flatten(1, 2),
    "unflatten": nn.Unflatten(1, (2, 4)),
}


EVEN = "ignore:Using padding='same' with even kernel:UserWarning"  # PyTorch on its own copy


@pytest.mark.slow
@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("name", LAYERS)
def test_module_computes_the_same_at_the_highest_opset(name: str, agrees: Agrees) -> None:
    """As the child of another module a layer is a `call_module` node."""
    agrees(nn.Sequential(LAYERS[name]), X, opset=23)


@pytest.mark.filterwarnings(EVEN)
@pytest.mark.parametrize("name", LAYERS)
def test_function_computes_the_same_at_the_default_opset(name: str, agrees: Agrees) -> None:
    """As the root of the graph a layer is traced into, and its function becomes a node."""
    agrees(LAYERS[name], X, dynamic=True)


def test_negative_activations_survive_zero_padding_before_a_pool(agrees: Agrees) -> None:
    """The border of a pool over negative numbers is the zero of the padding, nowhere else."""
    layers = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
    model = agrees(layers, -X.abs() - 1)
    assert [node.op_type for node in model.graph.node] == ["MaxPool", "Max"]
    assert sum(len(t.raw_data) for t in model.graph.initializer) == 4 * (11 + 14)


def test_linear_of_a_matrix_is_one_gemm(agrees: Agrees) -> None:
    model = agrees(nn.Linear(14, 5), X[0, 0])
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    assert [t.name for t in model.graph.initializer] == ["weight", "bias"]


def test_one_dimensional_layers(agrees: Agrees) -> None:
    layers = nn.Sequential(nn.Conv1d(8, 6, 3, padding=1), nn.BatchNorm1d(6), nn.MaxPool1d(2))
    agrees(layers, X[:, :, 0], dynamic=True)


class Shared(nn.Module):
    """Two convolutions with one weight, and a third with its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 1, bias=False) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x) * self.c(x)  # type: ignore[no-any-return]


def test_equal_tensors_are_stored_once(agrees: Agrees) -> None:
    model = agrees(Shared(), X)
    assert [t.name for t in model.graph.initializer if len(t.dims) == 4] == ["a.weight", "c.weight"]
