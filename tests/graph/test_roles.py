"""Roles are told from structure: the same on detectors that yqc has never seen."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import role, trace
from yqc.graph.edit import tidy

BACKBONE = {"images", "body_stem_0", "body_stem_1", "body_stem_2", "body_deep", "body_pool"}
NECK = {"body_upsample", "body_lateral", "cat", "body_high", "body_down", "cat_1", "body_low"}


def by_role(gm: fx.GraphModule) -> dict[str, set[str]]:
    """Names of nodes by role; the three nodes of a Conv block as one name."""
    found: dict[str, set[str]] = {}
    for node in gm.graph.nodes:
        *name, last = node.name.split("_")
        block = len(name) > 1 and last in {"0", "1", "2"} and "body" in name
        found.setdefault(role(node), set()).add("_".join(name) if block else node.name)
    return found


def test_v8_like_head_has_two_branches_a_level(v8: fx.GraphModule) -> None:
    found = by_role(v8)
    assert found["backbone"] == BACKBONE
    assert found["neck"] == NECK
    for kind, name in ("head.box", "boxes"), ("head.cls", "scores"):
        assert found[kind] == {
            f"{name}_{level}_{i}" for level in (0, 1) for i in ("0_0", "0_1")
        } | {f"{name}_{level}_{i}" for level in (0, 1) for i in ("0_2", "1")}
    assert "expect" in found["head.decode"], "the convolution of a distribution is decoding"
    assert {"softmax", "sigmoid", "output"} <= found["head.decode"]


def test_v5_like_head_has_one_convolution_a_level(v5: fx.GraphModule) -> None:
    found = by_role(v5)
    assert found["backbone"] == BACKBONE
    assert found["neck"] == NECK
    assert found["head.box"] == {"m_0", "m_1"}, "boxes and scores in one count as boxes"
    assert "head.cls" not in found
    assert {"unflatten", "sigmoid", "pow_1", "output"} <= found["head.decode"]


def test_names_and_classes_do_not_matter(v8: fx.GraphModule, images: Tensor) -> None:
    """The same graph under other module paths has the same roles, node by node."""
    before = [role(n) for n in v8.graph.nodes]
    assert [role(n) for n in trace(v8, images).graph.nodes] == before

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = v8

        def forward(self, images: Tensor) -> Tensor:
            return self.x(images)  # type: ignore[no-any-return]

    assert [role(n) for n in trace(Wrapped(), images).graph.nodes] == before


def test_a_classifier_has_no_head(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert by_role(trace(net, images)).keys() == {"backbone"}


class OneLevel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.box, self.cls = (nn.Conv2d(c, 4, 1) for c in (3, 4, 4))

    def forward(self, images: Tensor) -> Tensor:
        y = self.stem(images)
        return torch.cat((self.box(y).flatten(2) * 8, self.cls(y).flatten(2).sigmoid()), 1)


class Tasks(nn.Module):
    """Boxes, scores and further numbers of one level, and perhaps maps."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.box, self.cls = (nn.Conv2d(c, 4, 1) for c in (3, 4, 4))
        self.more, self.maps = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Any:
        y = self.stem(images)
        more = self.more(y).flatten(2)
        box = self.box(y).flatten(2) * 8
        if self.kind == "point":
            more = more * 8 + 1
        if self.kind == "angle":
            box = box * torch.cos(more)
        rows = torch.cat((box, self.cls(y).flatten(2).sigmoid(), more), 1)
        return (rows, self.maps(y).relu()) if self.kind == "mask" else rows


@pytest.mark.parametrize(
    ("kind", "role_of_it"),
    [("mask", "head.mask"), ("point", "head.keypoint"), ("angle", "head.angle")],
)
def test_further_numbers_are_known_by_what_is_done_with_them(
    kind: str, role_of_it: str, images: Tensor
) -> None:
    found = by_role(trace(Tasks(kind), images))
    assert (found["head.box"], found["head.cls"]) == ({"box"}, {"cls"})
    assert found[role_of_it] == {"more"}
    assert found.get("head.proto") == ({"maps", "relu"} if kind == "mask" else None)
    assert found["backbone"] == {"images", "stem"}


def test_a_classifier_with_a_softmax_has_logits(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = by_role(trace(nn.Sequential(net, nn.Softmax(1)), images))
    assert found["head.logits"] == {"_0_3"}
    assert found["head.decode"] == {"_1", "output"}


def test_one_level_without_a_neck(images: Tensor) -> None:
    found = by_role(trace(OneLevel(), images))
    assert (found["head.box"], found["head.cls"]) == ({"box"}, {"cls"})
    assert found["backbone"] == {"images", "stem"}, "a stem that both branches read is no head"
    assert "neck" not in found


def test_new_nodes_take_the_role_of_their_first_input(v8: fx.GraphModule) -> None:
    nodes = {n.name: n for n in v8.graph.nodes}
    for name in ("body_stem_0_2", "boxes_0_0_2"):
        with v8.graph.inserting_after(nodes[name]):
            new = v8.graph.call_function(torch.relu, (nodes[name],))
        nodes[name].replace_all_uses_with(new, lambda user, new=new: user is not new)
    tidy(v8)
    roles = {n.name: role(n) for n in v8.graph.nodes if n.target is torch.relu}
    assert roles == {"relu": "backbone", "relu_1": "head.box"}
