"""What is compared is found from the structure of the graph."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.errors import TraceError
from yqc.models.source import open_model
from yqc.testing import task_nets, traced
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


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("segment", ["box", "mask", "cls", "box", "mask", "cls", "proto"]),
        ("pose", ["box", "keypoint", "cls"] * 2),
        ("obb", ["box", "angle", "cls"] * 2),
        ("classify", ["logits"]),
    ],
)
def test_maps_of_every_task_are_told_by_their_roles(task: str, kinds: list[str]) -> None:
    gm = traced(task_nets.task_net(task), (1, 3, 32, 32))  # type: ignore[arg-type]  # a literal
    taps = head_taps(gm)
    assert [tap.kind for tap in taps] == kinds
    assert {tap.numbers for tap in taps if tap.kind == "keypoint"} <= {3}
    features = {"classify": ["body_act"]}.get(task, ["p8_act", "p16_act"])
    assert [tap.name for tap in feature_taps(gm, gm)] == features


class AnchorMasks(nn.Module):
    """One level of an anchor head with two coefficients an anchor, and prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 18, 1), nn.Conv2d(3, 18, 2, 2)
        self.proto = nn.Sequential(nn.Conv2d(3, 2, 1), nn.SiLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for m in (self.a(x), self.b(x)):
            boxes, masks = m.unflatten(1, (2, 9)).split([7, 2], 2)
            joined = torch.cat((torch.sigmoid(boxes) * 2, masks), 2)
            found.append(joined.permute(0, 1, 3, 4, 2).flatten(1, 3))
        return torch.cat(found, 1), self.proto(x)


def test_an_anchor_head_s_last_numbers_are_coefficients() -> None:
    gm = yqc.trace(AnchorMasks(), torch.zeros(1, 3, 4, 4))
    *anchors, proto = head_taps(gm)
    assert anchors == [Tap("a", "anchor", 9, 2), Tap("b", "anchor", 9, 2)]
    assert proto == Tap("proto_1", "proto")
