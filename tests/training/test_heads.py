"""What is compared is found from the structure of the graph."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.errors import TraceError
from yqc.models.source import open_model
from yqc.training.heads import Tap, feature_taps, head_taps, tap_graph


def test_a_split_head_gives_pairs_of_boxes_and_classes(checkpoint: Path) -> None:
    gm = open_model(checkpoint).gm
    taps = head_taps(gm)
    assert [tap.kind for tap in taps] == ["box", "cls"] * 3
    outputs = tap_graph(gm, taps)(torch.zeros(2, 3, 64, 64))
    assert [x.shape[2:] for x in outputs[::2]] == [x.shape[2:] for x in outputs[1::2]]
    assert {x.shape[1] for x in outputs[::2]} == {64}


class Anchors(nn.Module):
    """Two levels of an anchor head: 7 numbers, 2 anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 14, 1), nn.Conv2d(3, 14, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [torch.sigmoid(m).unflatten(1, (2, 7)) for m in (self.a(x), self.b(x))]  # type: ignore[no-untyped-call]  # torch
        return torch.cat([m.permute(0, 1, 3, 4, 2).flatten(1, 3) for m in maps], 1)


def test_an_anchor_head_is_told_by_its_rows() -> None:
    gm = yqc.trace(Anchors(), torch.zeros(1, 3, 4, 4))
    assert head_taps(gm) == [Tap("a", "anchor", 7), Tap("b", "anchor", 7)]


def test_anything_else_is_compared_number_by_number() -> None:
    gm = yqc.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), torch.zeros(1, 3, 4, 4))
    assert head_taps(gm) == [Tap("_1", "plain")]


def features(checkpoint: Path) -> tuple[fx.GraphModule, fx.GraphModule, list[str]]:
    gm, other = open_model(checkpoint).gm, open_model(checkpoint).gm
    return gm, other, [tap.name for tap in feature_taps(gm, other)]


def test_features_are_what_the_branches_of_the_head_read(checkpoint: Path) -> None:
    gm, other, names = features(checkpoint)
    assert len(names) == 3
    spec = yqc.TensorSpec((1, 5, 8, 8), torch.float32)
    next(n for n in gm.graph.nodes if n.name == names[0]).meta["yqc.value"] = spec
    assert [tap.name for tap in feature_taps(gm, other)] == names[1:]


def test_the_cut_graph_shares_modules_and_drops_the_decoding(checkpoint: Path) -> None:
    gm = open_model(checkpoint).gm
    cut = tap_graph(gm, head_taps(gm))
    shared = {id(p) for p in gm.parameters()}
    assert all(id(p) in shared for p in cut.parameters())
    assert not any(n.target is torch.sigmoid for n in cut.graph.nodes)


def test_a_missing_node_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(TraceError, match="the graph has no node nowhere"):
        tap_graph(open_model(checkpoint).gm, [Tap("nowhere", "plain")])
