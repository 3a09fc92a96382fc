"""Modules of torch.nn, all of them: rebuilt from files, saved, and written as ONNX, or named."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.emit.conftest import randomise
from yqc.emit import TABLE
from yqc.graph.serial import load_graph, save_graph
from yqc.graph.torch_layers import TORCH_LAYERS
from yqc.models.load import read_any
from yqc.models.pickles.read import Inert
from yqc.models.rebuild import Rebuilder
from yqc.models.trace import trace

Agrees: TypeAlias = Callable[..., onnx.ModelProto]

G = torch.Generator().manual_seed(0)
IMAGE = torch.randn(1, 8, 11, 14, generator=G)
LINE = torch.randn(1, 8, 14, generator=G)
VOLUME = torch.randn(1, 4, 6, 8, 10, generator=G)

MODULES: dict[str, tuple[nn.Module, Tensor]] = {
    **{
        f"{type(m).__name__}-{i}": (m, IMAGE)
        for i, m in enumerate(
            (
                *(nn.AdaptiveAvgPool2d((3, 5)), nn.AdaptiveAvgPool2d((None, 7))),
                *(nn.AdaptiveMaxPool2d((4, 3)), nn.AdaptiveAvgPool2d(13)),
                *(nn.GroupNorm(4, 8, eps=1e-3), nn.GroupNorm(2, 8, affine=False)),
                *(nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True, eps=1e-3)),
                nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
                *(nn.RMSNorm(14), nn.RMSNorm((11, 14), eps=1e-3, elementwise_affine=False)),
                *(nn.LocalResponseNorm(5, 0.1, 0.6, 2.0), nn.SyncBatchNorm(8)),
                *(nn.LPPool2d(2, 3, 2), nn.ChannelShuffle(4), nn.Unfold((2, 3), (2, 1), 1, 2)),
                *(nn.PixelShuffle(2), nn.UpsamplingBilinear2d(scale_factor=2)),
                *(nn.UpsamplingNearest2d((22, 28)), nn.CircularPad2d((1, 2, 0, 1))),
                *(nn.SELU(), nn.CELU(0.7), nn.Softsign(), nn.LogSigmoid(), nn.Tanhshrink()),
                *(nn.Hardshrink(0.3), nn.Softshrink(0.3), nn.Threshold(0.1, -2.0), nn.RReLU()),
                *(nn.GLU(1), nn.LogSoftmax(1), nn.Softmin(2), nn.Softmax2d(), nn.Hardtanh(-2, 1)),
                *(nn.PReLU(8), nn.Dropout3d(), nn.AlphaDropout()),
                *(nn.FeatureAlphaDropout(), nn.Linear(14, 3), nn.LayerNorm((11, 14))),
            )
        )
    },
    **{
        f"{type(m).__name__}-{i}-line": (m, LINE)
        for i, m in enumerate(
            (
                *(nn.Conv1d(8, 6, 3, 2, 1, groups=2), nn.Conv1d(8, 8, 5, padding="same")),
                *(nn.Conv1d(8, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(8)),
                *(nn.ConvTranspose1d(8, 4, 3, 2, 1, 1), nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2)),
                *(nn.AdaptiveAvgPool1d(5), nn.AdaptiveMaxPool1d(4), nn.GroupNorm(2, 8)),
                *(nn.InstanceNorm1d(8), nn.LPPool1d(2, 2), nn.ReflectionPad1d(2), nn.Dropout1d()),
                *(nn.ReplicationPad1d((1, 2)), nn.ZeroPad1d(1), nn.ConstantPad1d(1, 0.5)),
            )
        )
    },
    **{
        f"{type(m).__name__}-{i}-volume": (m, VOLUME)
        for i, m in enumerate(
            (
                *(nn.Conv3d(4, 3, 3, 2, 1), nn.ConvTranspose3d(4, 3, 2, 2), nn.BatchNorm3d(4)),
                *(nn.MaxPool3d(2), nn.AvgPool3d(3, 2, 1), nn.AdaptiveAvgPool3d((2, 3, 5))),
                *(nn.AdaptiveMaxPool3d(1), nn.AdaptiveAvgPool3d((4, 5, 3)), nn.InstanceNorm3d(4)),
                *(nn.ZeroPad3d(1), nn.ConstantPad3d(1, 0.5), nn.ReplicationPad3d(1)),
                nn.ReflectionPad3d(1),
            )
        )
    },
    "Fold": (nn.Fold((7, 8), (2, 3), (2, 1), 1, (2, 2)), torch.randn(1, 12, 16, generator=G)),
    "Fold-odd": (nn.Fold((8, 9), 3, 1, 0, 2), torch.randn(1, 18, 12, generator=G)),
    "Embedding": (nn.Embedding(5, 3), torch.tensor([[0, 4, 2]])),
}

UNWRITTEN = {
    *("Bilinear", "EmbeddingBag", "GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"),
    *("LPPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "PairwiseDistance"),
}
"""Modules that are rebuilt and have no ONNX form here; a compile says so before its passes."""


@pytest.mark.parametrize("name", MODULES)
def test_the_file_computes_what_the_module_does(name: str, agrees: Agrees) -> None:
    module, x = MODULES[name]
    agrees(nn.Sequential(module), x)


def rebuilt(module: nn.Module, path: Path) -> nn.Module:
    """Write a module into a file, and rebuild it from what the reader finds."""
    torch.save({"model": module}, path)
    top, _ = read_any(path)
    assert isinstance(top, dict)
    tree = top["model"]
    assert isinstance(tree, Inert)
    return Rebuilder().module(tree, "model.0")


@pytest.mark.parametrize("name", [*MODULES, "GRU", "LSTM"])
def test_rebuilding_and_saving_keep_what_it_computes(name: str, tmp_path: Path) -> None:
    more = {"GRU": nn.GRU(14, 3, batch_first=True), "LSTM": nn.LSTM(14, 3, 2, bidirectional=True)}
    module, x = (more[name], LINE) if name in more else MODULES[name]
    randomise(module)
    made = rebuilt(module, tmp_path / "m.pt")
    with torch.no_grad():
        want, got = module(x), made(x)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    if name not in more:
        gm = trace(nn.Sequential(module), x)
        save_graph(gm, tmp_path / "m.yqc")
        back, _, _ = load_graph(tmp_path / "m.yqc")
        torch.testing.assert_close(back(x), want, rtol=0, atol=0)


def test_every_module_of_torch_has_a_lowering_or_is_known_to_have_none() -> None:
    have = {
        cls.__name__
        for cls in TORCH_LAYERS
        if any(base in TABLE for base in cls.__mro__ if getattr(base, "forward", 0) is cls.forward)
    }
    assert {cls.__name__ for cls in TORCH_LAYERS} - have == UNWRITTEN
    assert len(TORCH_LAYERS) > 90


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "roll": lambda x: torch.roll(x, (3, -5), (2, 3)),
    "roll method": lambda x: x.roll(1, -1).roll(14, 3),
    "flip": lambda x: torch.flip(x, (1, -1)),
    "group norm": lambda x: F.group_norm(x, 2, torch.arange(8.0), torch.ones(8), 1e-3),
    "instance norm": lambda x: F.instance_norm(x, eps=1e-3),
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "fold": lambda x: F.fold(F.unfold(x, 2), (11, 14), 2),
    "grid sample": lambda x: F.grid_sample(
        x, torch.tanh(x[:, :2, :5, :6].permute(0, 2, 3, 1)), align_corners=False
    ),
    "grid sample nearest": lambda x: F.grid_sample(
        x, torch.tanh(x[:, :2].permute(0, 2, 3, 1)), "nearest", "border", align_corners=True
    ),
    "affine grid": lambda x: F.grid_sample(
        x,
        F.affine_grid(x[:, :2, 0, :3] * 0.1, [1, 8, 5, 6], align_corners=False),
        align_corners=False,
    ),
    "normalize": lambda x: F.normalize(x, dim=1),
    "norm": lambda x: torch.norm(x, dim=1, keepdim=True) + x.norm(p=1, dim=1, keepdim=True),
    "var": lambda x: torch.var(x, 1, keepdim=True) + x.var((2, 3), unbiased=False)[..., None, None],
    "std": lambda x: x.std(dim=(1, 2)),
    "cumsum": lambda x: torch.cumsum(x, 2),
    "prod": lambda x: torch.prod(x, 1),
    "shuffle": lambda x: torch.channel_shuffle(x, 2),
    "cosine": lambda x: F.cosine_similarity(x[:, :4], x[:, 4:], dim=1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 0.5, x + 1),
    "glu": lambda x: F.glu(x, 3),
    "pools": lambda x: F.adaptive_avg_pool2d(x, (5, 3)) + F.adaptive_max_pool2d(x, (5, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, agrees: Agrees) -> None:
    agrees(FUNCTIONS[name], IMAGE)


@pytest.mark.parametrize(
    "module",
    [nn.GroupNorm(2, 8), nn.ChannelShuffle(2), nn.Unfold(3), nn.AdaptiveAvgPool2d((3, 4))],
)
def test_any_batch(module: nn.Module, agrees: Agrees) -> None:
    agrees(module, IMAGE, dynamic=True)


@pytest.mark.parametrize("opset", [20, 21])
def test_sampling_has_other_names_in_later_opsets(opset: int, agrees: Agrees) -> None:
    agrees(FUNCTIONS["grid sample"], IMAGE, opset=opset)


def test_a_view_of_what_lies_otherwise_in_memory_is_no_error() -> None:
    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(1, -1).view(size=(8, 154))

    gm = trace(View(), IMAGE)
    last = IMAGE.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gm(last), IMAGE.reshape(8, 154))
