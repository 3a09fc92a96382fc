"""Blocks of forks and of rare configurations, against what their papers and torch compute."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.checkpoints import randomise
from yqc.errors import CheckpointError
from yqc.models.blocks.conv import Conv2
from yqc.models.blocks.csp import C2f, C2fV2
from yqc.models.blocks.hgnet import AIFI, RepC3, waves
from yqc.models.blocks.weighting import CBAM, ECA
from yqc.models.heads import DistanceHead
from yqc.models.heads.branched import BranchedHead, DualHead, PlainDualHead, TripleHead
from yqc.models.load import load

X = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(0))


def made(module: nn.Module) -> Any:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.4)
    randomise(module)
    return module.eval()


def test_cbam_weights_channels_then_positions() -> None:
    m = made(CBAM(8))
    channel, spatial = m.channel_attention, m.spatial_attention
    y = X * torch.sigmoid(channel.fc(X.mean((2, 3), keepdim=True)))
    seen = torch.cat((y.mean(1, keepdim=True), y.max(1, keepdim=True)[0]), 1)
    want = y * torch.sigmoid(F.conv2d(seen, spatial.cv1.weight, padding=3))
    torch.testing.assert_close(m(X), want)


@pytest.mark.parametrize("names", [("gap", "conv"), ("avg_pool", "conv1", "sigmoid")])
def test_eca_weights_each_channel_by_its_neighbours(names: tuple[str, ...]) -> None:
    m = made(ECA(8))
    for name, part in zip(names, [m.gap, m.conv, nn.Sigmoid()], strict=False):
        m.add_module(name, part)
    for name in {"gap", "conv"} - set(names):
        del m._modules[name]
    m.finish()
    kernel = next(part for part in m.children() if isinstance(part, nn.Conv1d)).weight[0, 0]
    padded = F.pad(X.mean((2, 3)), (1, 1))
    sums = torch.stack([padded[:, i : i + 8] * kernel[i] for i in range(3)]).sum(0)
    torch.testing.assert_close(m(X), X * torch.sigmoid(sums)[:, :, None, None])
    m.extra = nn.ReLU()
    with pytest.raises(ValueError, match="forward is not known"):
        m.finish()


def test_conv2_is_two_convolutions_under_one_norm() -> None:
    m = made(Conv2(8, 6, 3, 2))
    want = F.silu(m.bn(m.conv(X) + F.conv2d(X, m.cv2.weight, stride=2)))
    torch.testing.assert_close(m(X), want)


def test_repc3_adds_its_two_ways() -> None:
    m = made(RepC3(8, 12, 2, 0.5))
    torch.testing.assert_close(m(X), m.cv3(m.m(m.cv1(X)) + m.cv2(X)))
    assert isinstance(made(RepC3(8, 12)).cv3, nn.Identity)


@pytest.mark.parametrize("first", [False, True])
def test_aifi_is_torchs_encoder_layer_with_positions(first: bool) -> None:
    m = made(AIFI(8, 12, 2))
    m.normalize_before = first
    m.ma.finish()
    x, places = X.flatten(2).transpose(1, 2), waves((6, 5), 8)
    seen = m.norm1(x) if first else x
    q = k = seen + places
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    parts = (m.ma.q, m.ma.k, m.ma.v)
    attention.in_proj_weight.data = torch.cat([p.weight.data for p in parts])
    attention.in_proj_bias.data = torch.cat([p.bias.data for p in parts])
    attention.out_proj = m.ma.out_proj
    y = x + attention(q, k, value=seen)[0]
    if first:
        want = y + m.fc2(F.gelu(m.fc1(m.norm2(y))))
    else:
        y = m.norm1(y)
        want = m.norm2(y + m.fc2(F.gelu(m.fc1(y))))
    torch.testing.assert_close(m(X).flatten(2).transpose(1, 2), want)
    assert places[0, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert places[0, 1, 0] == 0  # columns first, as the project counts
    assert places[0, 1, 4] == torch.tensor(1.0).sin()


def test_c2f_v2_is_a_c2f_whose_first_convolution_was_cut() -> None:
    whole = made(C2f(8, 8, 2, True))
    cut = made(C2fV2(8, 8, 2, True))
    cut.m, cut.cv2 = whole.m, whole.cv2
    for i, conv in enumerate((cut.cv0, cut.cv1)):
        part = slice(4 * i, 4 * i + 4)
        conv.conv.weight.data = whole.cv1.conv.weight.data[part]
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(conv.bn, name).data = getattr(whole.cv1.bn, name).data[part]
    torch.testing.assert_close(cut(X), whole(X), rtol=1e-4, atol=1e-4)


def test_a_block_of_a_script_is_known(
    tmp_path: Path, checkpoints: ModuleType, specs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = checkpoints.make(specs["ultralytics-rare"])
    detector.model[8].pickle_as = "__main__.C2f_v2"
    path = checkpoints.save(tmp_path / "m.pt", detector, "ultralytics")
    monkeypatch.delattr(sys.modules["__main__"], "C2f_v2", raising=False)
    x = checkpoints.images(1)
    with torch.no_grad():
        torch.testing.assert_close(load(path).module(x), detector(x))


def maps() -> list[Tensor]:
    g = torch.Generator().manual_seed(3)
    return [torch.randn(2, c, h, w, generator=g) for c, h, w in ((4, 3, 5), (6, 2, 4))]


@pytest.mark.parametrize(
    ("kind", "branches"), [(BranchedHead, 1), (DualHead, 2), (PlainDualHead, 2), (TripleHead, 3)]
)
def test_the_last_branch_of_a_yolov9_head_makes_the_output(
    kind: type[BranchedHead], branches: int
) -> None:
    head = made(kind(3, (4, 6) * branches))
    head.stride = (8.0, 16.0)
    for module in head.modules():
        if type(module).__name__ == "DFL":
            module.conv.weight.data[:] = torch.arange(16.0).view(1, 16, 1, 1)
    box, score = (head.get_submodule(f"cv{2 * branches + i}") for i in (0, 1))
    before = head(maps())
    plain = DistanceHead(3, (4, 6))
    plain.cv2, plain.cv3, plain.stride = box, score, head.stride
    plain.finish()
    torch.testing.assert_close(before, plain(maps()))
    head.finish()
    assert sorted(name for name, _ in head.named_children()) == ["cv2", "cv3"]
    torch.testing.assert_close(head(maps()), before)
    assert head.used(tuple(range(2 * branches))) == (2 * branches - 2, 2 * branches - 1)


def test_yolov9s_detect_is_told_from_yolov5s_by_its_branches(
    tmp_path: Path, checkpoints: ModuleType, specs: Any
) -> None:
    detector = checkpoints.make(specs["yolov9-gelan"])
    detector.head.pickle_as = "models.yolo.Detect"
    found = load(checkpoints.save(tmp_path / "m.pt", detector, "yolov9", names=["a", "b", "c"]))
    assert (found.family, found.layout) == ("yolov9", "yolov8")
    assert found.warnings == ()


def test_a_dual_heads_auxiliary_branch_is_left_out(
    tmp_path: Path, checkpoints: ModuleType, specs: Any
) -> None:
    detector = checkpoints.make(specs["yolov9-dual"])
    path = checkpoints.save(tmp_path / "m.pt", detector, "yolov9", names=["a", "b", "c"])
    found = load(path)
    assert found.warnings == ("the auxiliary heads serve training only and were left out",)
    names = {name.rpartition(".")[0] for name, _ in found.module.named_parameters()}
    assert not any(name.startswith(("model.15.", "model.16.", "model.17.cv4")) for name in names)
    torch.save(detector.state_dict(), tmp_path / "w.pt")
    (tmp_path / "yolov9-dual.yaml").write_text(str(dict(specs["yolov9-dual"])), encoding="utf-8")
    again = load(tmp_path / "w.pt", arch=tmp_path / "yolov9-dual.yaml")
    x = checkpoints.images(1)
    torch.testing.assert_close(again.module(x), found.module(x))
    assert again.family == "yolov9"


def test_an_edited_attention_block_is_refused(
    tmp_path: Path, checkpoints: ModuleType, specs: Any
) -> None:
    detector = checkpoints.make(specs["ultralytics-rare"])
    block = detector.model[4].channel_attention
    block.max_pool = nn.AdaptiveMaxPool2d(1)
    path = checkpoints.save(tmp_path / "m.pt", detector, "ultralytics")
    with pytest.raises(CheckpointError, match=r"\(ChannelAttention\) also holds max_pool"):
        load(path)
