"""Graph files that are damaged or hostile: they are refused, and nothing in them is run."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from yqc import trace
from yqc.errors import CheckpointError
from yqc.graph.serial import is_graph_file, load_graph, save_graph

X = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

Document = dict[str, Any]


class Small(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.register_buffer("table", torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sum((self.conv(x) + self.table).sigmoid(), dim=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.yqc"
    save_graph(trace(Small(), X), path, {"kind": "model"})
    return path


def rewrite(source: Path, target: Path, change: Callable[[Document], object]) -> Path:
    with zipfile.ZipFile(source) as file:
        document, tensors = json.loads(file.read("graph.json")), file.read("tensors.safetensors")
    change(document)
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("graph.json", json.dumps(document))
        file.writestr("tensors.safetensors", tensors)
    return target


def nodes(document: Document, op: str) -> Document:
    return next(n for n in document["nodes"] if n["op"] == op)


def function(target: str) -> Callable[[Document], object]:
    return lambda d: nodes(d, "call_function").update(target=target)


def module(kind: str, **settings: object) -> Callable[[Document], object]:
    return lambda d: d["modules"]["conv"].update(type=kind, settings=settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (function("os.system"), "the graph calls 'os.system', which is not an allowed function"),
        (function("builtins.eval"), "calls 'builtins.eval', which is not an allowed function"),
        (function("torch.load"), "calls 'torch.load', which is not an allowed function"),
        (
            lambda d: nodes(d, "call_method").update(target="numpy"),
            "calls 'numpy', which is not an allowed method",
        ),
        (
            lambda d: nodes(d, "call_method").update(target="__reduce__"),
            "calls '__reduce__', which is not an allowed method",
        ),
        (module("subprocess.Popen"), "calls 'subprocess.Popen', which is not an allowed module"),
        (module("SiLU", forward="x"), "SiLU has no setting 'forward'"),
        (
            lambda d: nodes(d, "get_attr").update(op="exec"),
            "holds 'exec', which is no kind of node",
        ),
        (lambda d: d["nodes"][0]["meta"].update(role="brain"), "'brain', which is no role"),
        (
            lambda d: d["nodes"][0]["meta"].update({"yqc.mystery": {}}),
            "holds 'yqc.mystery', which this version does not know",
        ),
        (lambda d: d.update(version=99), "is of another version of yqc"),
    ],
)
def test_refuses_names_that_are_not_in_the_tables(
    small: Path, tmp_path: Path, change: Callable[[Document], object], message: str
) -> None:
    path = rewrite(small, tmp_path / "b.yqc", change)
    with pytest.raises(CheckpointError) as caught:
        load_graph(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def rename(document: Document, tensors: dict[str, Tensor], what: str, name: str) -> None:
    """Give a module or tensor another path, everywhere."""
    for node in document["nodes"]:
        if node["target"] == what:
            node["target"] = name
    for path in [p for p in document["modules"] if p == what]:
        document["modules"][name] = document["modules"].pop(path)
    for path in [p for p in tensors if p == what or p.startswith(f"{what}.")]:
        tensors[name + path.removeprefix(what)] = tensors.pop(path)


def call_conv(document: Document, name: str) -> None:
    """Give the node of the convolution another name, everywhere."""
    nodes(document, "call_module")["name"] = name
    function = nodes(document, "call_function")
    function["args"]["tuple"][0] = {"node": name}


NAMES: list[Callable[[Document, dict[str, Tensor], str], object]] = [
    lambda d, _, code: nodes(d, "placeholder").update(target=f"x={code}"),
    lambda d, _, code: nodes(d, "placeholder").update(target=f"x, y={code}"),
    lambda d, _, code: call_conv(d, f"globals()[({code}, 'k')[1]]"),
    lambda d, t, code: rename(d, t, "conv", f'conv"), {code}, ("'),
    lambda d, t, code: rename(d, t, "table", f'table"), {code}, ("'),
    lambda d, _, code: nodes(d, "call_function").update(kwargs={"dict": {f"alpha={code}, out": 1}}),
]
VALUES: list[Callable[[Document, dict[str, Tensor], str], object]] = [
    lambda d, _, code: d.update(name=f"X:\n {code}\nclass Y"),
    lambda d, _, code: nodes(d, "output").update(args={"tuple": [f"'+{code}+'"]}),
    lambda d, _, code: nodes(d, "output").update(args={"tuple": [{"dict": {f"'+{code}+'": 1}}]}),
    lambda d, _, code: nodes(d, "output").update(args={"tuple": [{"float": code}]}),
    lambda d, _, code: nodes(d, "output").update(args={"tuple": [{"dtype": code}]}),
    lambda d, _, code: nodes(d, "output").update(args={"tuple": [{"slice": [code, None, None]}]}),
]


@pytest.mark.parametrize("change", [*NAMES, *VALUES])
def test_nothing_that_a_file_holds_is_run(
    small: Path,
    tmp_path: Path,
    change: Callable[[Document, dict[str, Tensor], str], object],
) -> None:
    """Fx compiles Python from the names in a graph: no name may bring in more than a name."""
    mark, path = tmp_path / "run", tmp_path / "b.yqc"
    code = f"getattr(__import__('os'), 'mkdir')({str(mark)!r})"
    with zipfile.ZipFile(small) as file:
        document = json.loads(file.read("graph.json"))
        tensors = safetensors.torch.load(file.read("tensors.safetensors"))
    change(document, tensors, code)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("graph.json", json.dumps(document))
        file.writestr("tensors.safetensors", safetensors.torch.save(tensors))
    refused = ""
    try:
        gm, _, _ = load_graph(path)
        gm(X)
    except CheckpointError as error:
        refused = str(error)
    assert not mark.exists()
    assert change in VALUES or refused.endswith("which is not allowed")


def test_a_file_cut_short_is_damaged(small: Path, tmp_path: Path) -> None:
    whole, path = small.read_bytes(), tmp_path / "b.yqc"
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert not is_graph_file(path)
        with pytest.raises(CheckpointError, match="it is damaged"):
            load_graph(path)


def test_what_is_no_graph_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yqc"
    with pytest.raises(CheckpointError, match=r"a\.yqc"):
        load_graph(path)
    path.write_text("hello")
    assert not is_graph_file(path)
    with pytest.raises(CheckpointError, match=r"cannot read .*a\.yqc: it is damaged"):
        load_graph(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", "hello")
    assert not is_graph_file(path)
    with pytest.raises(CheckpointError, match="it is damaged"):
        load_graph(path)


def test_refuses_a_file_that_unpacks_to_too_much(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yqc.graph.serial.LIMIT", 100)
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        load_graph(small)


JUNK: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 1e300, "", "conv", "x.y", [], {}, [[]], {"node": "x"}]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_description_is_an_error_that_says_so(
    small: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """One value of the JSON, anywhere, is replaced or dropped: it loads, or is refused in order."""

    def damage(document: Document) -> None:
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not (
                isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans())
            ):
                break
            place = place[key]
        if data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(JUNK)

    path = rewrite(small, tmp_path / "b.yqc", damage)
    refused = ""
    try:
        load_graph(path)
    except CheckpointError as error:
        refused = str(error)
    assert not refused or str(path) in refused
