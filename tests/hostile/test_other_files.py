"""Pipes, devices, nested and nonsensical files in every place that takes a file."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.conftest import Bounded
from yqc.graph.serial import save_graph
from yqc.models.source import open_model

pytestmark = pytest.mark.slow

QUICK = ("--no-eval", "--no-html", "--no-verify", "-q")
KINDS = ("pipe", "device", "folder", "absent", "loop", "long", "no-utf8", "empty", "noise")


@pytest.fixture(params=KINDS)
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Makes something that is no good file, with a suffix."""

    def make(suffix: str) -> Path:
        path = tmp_path / f"strange{suffix}"
        match request.param:
            case "pipe":
                os.mkfifo(path)
            case "device":
                path.symlink_to("/dev/zero")
            case "folder":
                path.mkdir()
            case "loop":
                path.symlink_to(path.name)
            case "long":
                path = tmp_path / f"{'x' * 300}{suffix}"
            case "no-utf8":
                path = tmp_path / os.fsdecode(b"\xff\xfe" + suffix.encode())
                path.write_bytes(b"\xff\xfe\0")
            case "empty":
                path.touch()
            case "noise":
                path.write_bytes(bytes(range(256)) * 40)
        return path

    return make


@pytest.mark.parametrize("suffix", [".pt", ".yqc", ".onnx"])
def test_as_a_model(
    bounded: Bounded, strange: Callable[[str], Path], suffix: str, data: Path
) -> None:
    path = strange(suffix)
    assert bounded("inspect", path).code == 1
    assert bounded("inspect", path, "--as", "text").code == 1
    assert bounded("compile", path, "--passes", "dce", "-q").code == 1
    assert bounded("eval", path, "--data", data, "-q").code == 1
    assert bounded("diff", path, path).code == 1
    assert bounded("explain", "dce", path).code == 1
    if suffix == ".onnx":
        assert bounded("lint", path).code == 1
        assert bounded("bench", path, "-q").code == 1
    if suffix == ".yqc":
        assert bounded("replay", path).code == 1


def test_as_another_file(
    bounded: Bounded, strange: Callable[[str], Path], checkpoint: Path
) -> None:
    path = strange(".toml")
    assert bounded("compile", checkpoint, "--config", path, *QUICK, seconds=30).code in {0, 1}
    assert bounded("compile", checkpoint, "--passes", "dce", "--load", path, "-q").code == 1
    assert bounded("inspect", checkpoint, "--arch", path).code == 1


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".txt"])
def test_as_data(
    bounded: Bounded, strange: Callable[[str], Path], suffix: str, checkpoint: Path
) -> None:
    path = strange(suffix)
    done = bounded("compile", checkpoint, "--passes", "int8", "--data", path, "-q")
    assert done.code == 1
    assert not list(Path().iterdir())


def test_as_images(
    bounded: Bounded, strange: Callable[[str], Path], checkpoint: Path, data: Path
) -> None:
    """Beside good images it is left out, and counted."""
    path = strange(".jpg")
    folder = path.parent / "images"
    folder.mkdir()
    for image in sorted(data.parent.rglob("*.[jp][pn]g"))[:10]:
        shutil.copy(image, folder)
    if path.name == "strange.jpg" and os.path.lexists(path):
        path.rename(folder / path.name)
    done = bounded(
        "compile", checkpoint, "--passes", "dce", "--data", folder, "-q", "-o", "x.onnx", seconds=30
    )
    assert done.code in {0, 1}


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 50_000,
        "a" + ".a" * 100_000 + " = 1",
        "[" * 100_000,
        "seed = " + "9" * 10_000,
        "seed = 99999999999999999999999999",
        "threads = 99999999999999999999",
        "imgsz = 99999999999999999999",
        "imgsz = [1000000000, 1000000000]",
        "calib_images = 0",
        'passes = "' + "a," * 100_000 + '"',
        'passes = "prune{' + "[" * 10_000 + '}"',
        'data = "\\u0000"',
        'arch = "\\u0000"',
        "load = 5",
        "input = [[[[]]]]",
    ],
    ids=range(16),
)
def test_a_recipe(bounded: Bounded, checkpoint: Path, text: str) -> None:
    path = Path("r.toml")
    path.write_text(text)
    done = bounded("compile", checkpoint, "--config", path, *QUICK, seconds=30)
    assert done.code in {0, 1}


@pytest.fixture(scope="module")
def graph_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = open_model(checkpoint)
    path = tmp_path_factory.mktemp("graph") / "sound.yqc"
    save_graph(source.gm, path, source.info())
    return path


Change = Callable[[dict[str, Any]], object]


def first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the description of the first module of a kind."""
    found: dict[str, Any] = next(m for m in document["modules"].values() if kind in json.dumps(m))
    return found


def options(document: dict[str, Any], kind: str) -> dict[str, Any]:
    module = first(document, kind)
    return next(v for v in module.values() if isinstance(v, dict))


CHANGES: dict[str, Change] = {
    "stride-0": lambda d: options(d, "Conv2d").update(stride=[0, 0]),
    "stride-negative": lambda d: options(d, "Conv2d").update(stride=[-1, -1]),
    "stride-huge": lambda d: options(d, "Conv2d").update(stride=[2**40, 2**40]),
    "channels-huge": lambda d: options(d, "Conv2d").update(out_channels=2**40),
    "channels-large": lambda d: options(d, "Conv2d").update(
        in_channels=30_000, out_channels=30_000
    ),
    "channels-text": lambda d: options(d, "Conv2d").update(out_channels="many"),
    "kernel-huge": lambda d: options(d, "Conv2d").update(kernel_size=[10**6, 10**6]),
    "padding-huge": lambda d: options(d, "Conv2d").update(padding=[10**6, 10**6]),
    "groups-0": lambda d: options(d, "Conv2d").update(groups=0),
    "upsample-huge": lambda d: options(d, "Upsample").update(scale_factor=10**6),
    "size-million": lambda d: d["info"].update(imgsz=[10**6, 10**6]),
    "size-negative": lambda d: d["info"].update(imgsz=[-64, -64]),
    "size-float": lambda d: d["info"].update(imgsz=[64.5, 1e300]),
    "size-none": lambda d: d["info"].update(imgsz=None),
    "strides-nonsense": lambda d: d["info"].update(strides=[0, -8, 10**30]),
    "names-nonsense": lambda d: d["info"].update(names={"a": [1]}),
    "names-many": lambda d: d["info"].update(names=["x"] * 10**4),
    "channels-0": lambda d: d["info"].update(channels=0),
    "channels-many": lambda d: d["info"].update(channels=10**9),
    "layout": lambda d: d["info"].update(layout="nonsense"),
    "no-nodes": lambda d: d.update(nodes=[]),
    "no-output": lambda d: d["nodes"].pop(),
    "node-twice": lambda d: d["nodes"].insert(1, d["nodes"][1]),
    "nodes-text": lambda d: d.update(nodes="nodes"),
    "modules-list": lambda d: d.update(modules=[1, 2]),
    "args-nested": lambda d: d["nodes"][1].update(args=nested(500)),
    "shape-million": lambda d: meta(d, [1, 3, 10**6, 10**6]),
    "shape-negative": lambda d: meta(d, [-1, 3, -5, 0]),
    "shape-text": lambda d: meta(d, ["a", None]),
    "version": lambda d: d.update(version=99),
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def meta(document: dict[str, Any], shape: list[Any]) -> None:
    """Give every node another shape."""
    for node in document["nodes"]:
        if "shape" in node["meta"]:
            node["meta"]["shape"] = shape


def rewrite(source: Path, target: Path, change: Change) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        document = json.loads(old.read("graph.json"))
        change(document)
        new.writestr("graph.json", json.dumps(document))
        new.writestr("tensors.safetensors", old.read("tensors.safetensors"))


@pytest.mark.parametrize("name", CHANGES)
def test_a_graph_file(bounded: Bounded, graph_file: Path, name: str) -> None:
    path = Path("hostile.yqc").absolute()
    rewrite(graph_file, path, CHANGES[name])
    assert bounded("inspect", path).code in {0, 1}
    assert bounded("inspect", path, "--as", "table").code in {0, 1}
    assert bounded("diff", graph_file, path).code in {0, 1}
    assert bounded("compile", path, "--passes", "fold-bn", *QUICK, seconds=30).code in {0, 1}
    assert bounded("replay", path).code == 1


def test_names_that_are_no_utf8(bounded: Bounded, checkpoint: Path, data: Path) -> None:
    """Of the model, the data and an image of it, the output, the recipe and the snapshots."""
    name = os.fsdecode(b"\xff\xfe")
    model, folder, out = Path(f"{name}.pt"), Path(name), f"{name}.onnx"
    shutil.copy(checkpoint, model)
    shutil.copytree(data.parent, folder)
    pictures = folder / "images" / "train"
    (pictures / "000000.png").rename(pictures / f"{name}.png")
    data = (folder / data.name).rename(folder / f"{name}.yaml")
    more = ("--data", data, "-q", "--no-latency")
    passes = "prune{ratio=0.2 recover=0},recover{steps=1 batch=2}"
    snapshots = ("--save-temps", f"{name}.d")
    done = bounded(
        "compile", model, "--passes", passes, "-o", out, "--resume", *snapshots, *more, seconds=60
    )
    assert done.code == 0, done.err
    again = ("--config", f"{name}.recipe.toml", "-o", "again.onnx", "--no-eval", "--no-html")
    done = bounded("compile", model, *again, *more, seconds=60)
    assert done.code == 0, done.err
    assert Path("again.onnx").read_bytes() == Path(out).read_bytes()
    assert bounded("eval", out, "--data", data, "-q").code == 0
    assert bounded("lint", out).code == 0
    assert bounded("bench", out, "--runs", 1, "-q").code == 0
    assert bounded("inspect", out).code == 0
    assert bounded("diff", model, next(Path(f"{name}.d").glob("*.yqc"))).code == 0
