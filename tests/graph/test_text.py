"""The printer is an interface: exact, and the same every time."""

import torch
from torch import Tensor, fx, nn

from yqc import text, trace
from yqc.graph.text import show_argument

X = torch.zeros(2, 4, 8, 8)


class Everything(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.register_buffer("table", torch.ones(6, 1, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
        y = self.conv(images) * self.table
        a, b = y.chunk(2, 1)
        mask = a[:, 0, ..., ::2] > 0.5
        index = torch.argmax(b.flatten(2), dim=1, keepdim=True)
        return {"half": y.to(torch.float16), "rest": (mask, index.type(torch.int32), a.sum())}


def test_prints_every_kind_of_node() -> None:
    assert text(trace(Everything(), X)).splitlines() == [
        "%images: f32[2,4,8,8] = input",
        "%conv: f32[2,6,6,6] = Conv2d(%images)",
        "%table: f32[6,1,1] = attr(table)",
        "%mul: f32[2,6,6,6] = mul(%conv, %table)",
        "%chunk: (f32[2,3,6,6], f32[2,3,6,6]) = chunk(%mul, 2, 1)",
        "%getitem: f32[2,3,6,6] = getitem(%chunk, 0)",
        "%getitem_1: f32[2,3,6,6] = getitem(%chunk, 1)",
        "%getitem_2: f32[2,6,3] = getitem(%getitem, (:, 0, ..., ::2))",
        "%gt: bool[2,6,3] = gt(%getitem_2, 0.5)",
        "%flatten: f32[2,3,36] = flatten(%getitem_1, 2)",
        "%argmax: i64[2,1,36] = argmax(%flatten, dim=1, keepdim=True)",
        "%to: f16[2,6,6,6] = to(%mul, float16)",
        "%type_1: i32[2,1,36] = type(%argmax, int32)",
        "%sum_1: f32[] = sum(%getitem)",
        "return {half: %to, rest: (%gt, %type_1, %sum_1)}",
    ]


def test_prints_the_same_for_the_same_model_made_twice() -> None:
    first, second = (text(trace(Everything(), X)) for _ in range(2))
    assert first == second
    assert "0x" not in first


def test_prints_nodes_that_nothing_is_known_of() -> None:
    gm = fx.symbolic_trace(nn.Sequential(nn.SiLU()))
    assert text(gm).splitlines() == ["%input_1 = input", "%_0 = SiLU(%input_1)", "return %_0"]


def test_prints_torch_ops_with_their_namespace() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.ops.aten.relu.default, (x,)))
    assert "%relu_default = aten.relu(%x)" in text(fx.GraphModule(nn.Module(), graph))


def test_prints_arguments_as_python_would_read_them() -> None:
    cases: list[tuple[object, str]] = [
        (None, "None"),
        (True, "True"),
        ("nearest", "'nearest'"),
        (0.1, "0.1"),
        ((1,), "(1,)"),
        ((1, 2), "(1, 2)"),
        ([1, [2]], "[1, [2]]"),
        (slice(None), ":"),
        (slice(1, None), "1:"),
        (slice(None, -1, 2), ":-1:2"),
        (Ellipsis, "..."),
        (torch.int8, "int8"),
    ]
    for value, shown in cases:
        assert show_argument(value) == shown
