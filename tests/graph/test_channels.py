"""Which channels go together, told of small networks one operation at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yqc import trace
from yqc.graph import channel_groups
from yqc.graph.channels.groups import dependencies, find_channels
from yqc.pruning.surgery import remove_channels
from yqc.testing import nets

X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Middle = Callable[[Any, Tensor], Tensor]
"""Given the net, for its layers, and what its stem made."""


class Net(nn.Module):
    """A stem, something in the middle, and a last convolution."""

    def __init__(
        self,
        middle: Middle,
        layers: Mapping[str, nn.Module] | None = None,
        read: int = 4,
    ) -> None:
        super().__init__()
        self.a, self.middle, self.z = nn.Conv2d(3, 4, 1), middle, nn.Conv2d(read, 2, 1)
        for name, layer in (layers or {}).items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.z(self.middle(self, self.a(x)))
        return y


def lines(middle: Middle, read: int = 4, **layers: nn.Module) -> list[str]:
    """Return the dependencies without those of the last convolution's outputs."""
    found = dependencies(find_channels(trace(Net(middle, layers, read), X)))
    return [line for line in found if not line.startswith("z.out")]


def test_batch_norm_and_activation_pass_on() -> None:
    got = lines(lambda m, x: m.act(m.bn(x)), bn=nn.BatchNorm2d(4), act=nn.SiLU())
    assert got == ["a.out[0:4] => bn[0:4]", "a.out[0:4] => z.in[0:4]"]


def test_addition_ties_what_it_adds() -> None:
    assert lines(lambda m, x: x + m.b(x), b=nn.Conv2d(4, 4, 1)) == [
        "a.out[0:4] => b.out[0:4]",
        "a.out[0:4] => b.in[0:4]",
        "a.out[0:4] => z.in[0:4]",
    ]


def test_concatenation_and_chunk_keep_channels_apart() -> None:
    def middle(m: Any, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return torch.cat((right, left, m.b(right)), 1)

    assert lines(middle, 9, b=nn.Conv2d(2, 5, 1)) == [
        "a.out[0:2] => z.in[2:4]",
        "a.out[2:4] => b.in[0:2]",
        "a.out[2:4] => z.in[0:2]",
        "b.out[0:5] => z.in[4:9]",
    ]


def test_depthwise_convolution_passes_on_and_multiplies() -> None:
    got = lines(lambda m, x: m.d(x), 8, d=nn.Conv2d(4, 8, 1, groups=4))
    assert got[0] == "a.out[0:1] => d[0:1]"
    assert got[1:3] == ["a.out[0:1] => z.in[0:1]", "a.out[0:1] => z.in[1:2]"]


def test_grouped_convolution_ties_the_same_place_of_every_group() -> None:
    assert lines(lambda m, x: m.g(x), 6, g=nn.Conv2d(4, 6, 1, groups=2)) == [
        "a.out[0:2] => a.out[2:4]",
        "a.out[0:2] => g.in[0:2]",
        "a.out[0:2] => g.in[2:4]",
        "g.out[0:3] => g.out[3:6]",
        "g.out[0:3] => z.in[0:3]",
        "g.out[0:3] => z.in[3:6]",
    ]


def test_linear_layer_on_flattened_maps_reads_every_channel_many_times() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.pool, self.b = (
                nn.Conv2d(3, 4, 1),
                nn.AdaptiveAvgPool2d(2),
                nn.Linear(16, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.b(self.pool(self.a(x)).flatten(1))
            return y

    got = dependencies(find_channels(trace(Flat(), X)))
    assert got[:4] == [f"a.out[0:1] => b.in[{i}:{i + 1}]" for i in range(4)]


def test_one_module_called_twice_has_one_set_of_channels() -> None:
    got = lines(lambda m, x: m.b(m.b(x)), b=nn.Conv2d(4, 4, 1))
    assert "a.out[0:4] => b.out[0:4]" in got


@pytest.mark.parametrize(
    ("middle", "layers", "why"),
    [
        (lambda _, x: x.softmax(1), {}, "softmax at softmax mixes channels"),
        (
            lambda m, x: m.n(x),
            {"n": nn.LocalResponseNorm(3)},
            "LocalResponseNorm at n mixes channels",
        ),
        (
            lambda _, x: x.unflatten(1, (2, 2)).flatten(1, 2),
            {},
            "unflatten at unflatten lays the channels out anew",
        ),
        (lambda _, x: x[:, ::2].repeat(1, 2, 1, 1), {}, "getitem at getitem mixes channels"),
        (
            lambda _, x: x * x.mean(1, keepdim=True),
            {},
            "mean at mean mixes channels",
        ),
    ],
)
def test_what_mixes_channels_pins_them_and_says_so(
    middle: Middle, layers: dict[str, nn.Module], why: str
) -> None:
    channels = find_channels(trace(Net(middle, layers), X))
    pins = {b.pin for b in channels.blocks if channels.slots[b.places[0][0]].target == "a"}
    assert pins == {why}
    assert any(f"(pinned: {why})" in line for line in lines(middle, 4, **layers))


def test_output_is_pinned() -> None:
    channels = find_channels(trace(Net(lambda _, x: x), X))
    assert {b.pin for b in channels.blocks} == {"", "it is the graph's output"}


def test_groups_as_networkx() -> None:
    graph = channel_groups(trace(Net(lambda m, x: x + m.b(x), {"b": nn.Conv2d(4, 4, 1)}), X))
    assert sorted(graph) == ["a.out[0:4]", "b.in[0:4]", "b.out[0:4]", "z.in[0:4]", "z.out[0:2]"]
    assert graph.nodes["z.in[0:4]"] == {
        "target": "z",
        "side": "in",
        "first": 0,
        "last": 4,
        "group": graph.nodes["a.out[0:4]"]["group"],
        "pinned": "",
    }
    assert graph.nodes["z.out[0:2]"]["pinned"] == "it is the graph's output"
    assert set(graph.neighbors("a.out[0:4]")) == {"b.in[0:4]", "b.out[0:4]", "z.in[0:4]"}


def test_weights_that_are_read_as_tensors_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.z = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.z(self.a(x)) + self.a.weight.sum()
            return y

    pins = {b.pin for b in find_channels(trace(Tied(), X)).blocks}
    assert "a_weight reads the weights of a" in pins


def test_channels_that_a_group_norm_joins_go_together() -> None:
    torch.manual_seed(0)
    norm, last = nn.GroupNorm(4, 12), nn.Conv2d(12, 5, 1)
    net = nn.Sequential(nn.Conv2d(3, 12, 1), norm, last)
    gm = trace(nets.seeded(net, 0), torch.rand(1, 3, 4, 4))
    channels = find_channels(gm)
    (slot,) = (s for s in channels.slots if s.target == "1")
    assert slot.ids.reshape(4, 3).T.tolist() == [slot.ids[::3].tolist()] * 3
    keep = np.ones(channels.count, dtype=np.bool_)
    keep[slot.ids[3]] = False
    with torch.no_grad():
        last.weight[:, 3:6] = 0
    x = torch.rand(2, 3, 4, 4)
    want = gm(x)
    remove_channels(gm, channels, keep)
    assert (norm.num_groups, norm.num_channels) == (3, 9)
    torch.testing.assert_close(gm(x), want)
