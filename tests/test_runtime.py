"""The decoding on a device: equal to the graph's, in a process that has numpy alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import yqc
from yqc import runtime
from yqc.data import letterbox, to_float
from yqc.emit import CutForm, cut_decode
from yqc.graph.values import list_tensors
from yqc.models.source import open_model

Floats = NDArray[np.float32]
DECODES: tuple[CutForm, ...] = ("raw", "scores")

FILE = Path(runtime.__file__)
EXAMPLE = Path(__file__).parents[1] / "examples" / "on_device.py"
NAMES = [
    *("yolov5n", "yolov7-tiny", "yolov8n", "yolo26n", "yolo11n-seg", "yolo11n-pose"),
    *("yolov8n-obb", "yolo26n-pose", "yolo26n-obb", "yolo26n-seg", "yolo11n-cls"),
]
ALONE = """
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top not in sys.stdlib_module_names and top not in ('numpy', 'runtime'):
            raise ImportError(name)
sys.meta_path.insert(0, Only())
import json
import numpy as np
sys.path.insert(0, '.')
import runtime
for name in sys.argv[1:]:
    with np.load(name + '.npz') as file:
        outputs = {key: file[key] for key in file.files}
    with open(name + '.json') as file:
        found = runtime.decode(outputs, file.read())
    np.savez('found-' + name + '.npz', *found)
"""


@pytest.fixture(scope="module")
def decoded(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[Floats], list[Floats]]]:
    """What the runtime decodes alone with numpy, and what the graph does, of each golden file."""
    folder, wanted = tmp_path_factory.mktemp("alone"), {}
    x = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 96), np.float32))
    for name in NAMES:
        two: Literal["one2many"] | None = "one2many" if "26" in name else None
        source = open_model(shared / "golden" / f"{name}.pt", imgsz=(64, 96), head=two)
        form, head = source.facts.form, source.facts.head
        assert form is not None
        assert head is not None
        with torch.no_grad():
            wanted[name] = [one.numpy() for one in list_tensors(source.gm(x))]
        for decode in DECODES:
            cut, entry = cut_decode(source.gm, form, head, decode)
            with torch.no_grad():
                found = {
                    o["name"]: y.numpy() for o, y in zip(entry["outputs"], cut(x), strict=True)
                }
            np.savez(folder / f"{name}-{decode}.npz", **found)
            (folder / f"{name}-{decode}.json").write_text(json.dumps(entry))
    (folder / "runtime.py").write_text(FILE.read_text())
    cases = [f"{name}-{decode}" for name in NAMES for decode in DECODES]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *cases], cwd=folder, check=True)  # noqa: S603
    result = {}
    for case in cases:
        with np.load(folder / f"found-{case}.npz") as file:
            result[case] = [file[k] for k in file.files], wanted[case.rpartition("-")[0]]
    return result


@pytest.mark.parametrize("decode", DECODES)
@pytest.mark.parametrize("name", NAMES)
def test_decodes_as_the_graph_does(
    decoded: dict[str, tuple[list[Floats], list[Floats]]], name: str, decode: str
) -> None:
    found, wanted = decoded[f"{name}-{decode}"]
    assert len(found) == len(wanted)
    for got, expected in zip(found, wanted, strict=True):
        largest = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got, expected, atol=1e-4 * largest, rtol=0)


@pytest.mark.parametrize(
    "heads",
    ["", "[]", "{}", "[" * 10_000, json.dumps({"version": 9}), json.dumps({"version": 1})],
)
def test_a_damaged_entry_is_one_error(heads: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        runtime.decode({}, heads)


def test_the_example_finds_objects_with_a_copy_of_the_file(
    checkpoint: Path, tmp_path: Path
) -> None:
    yqc.compile(
        checkpoint, "", output=tmp_path / "m.onnx", evaluate=False, html=False, decode="raw"
    )
    np.save(tmp_path / "p.npy", np.full((40, 60, 3), 90, np.uint8))
    for name, source in (("runtime.py", FILE), ("run.py", EXAMPLE)):
        (tmp_path / name).write_text(source.read_text())
    done = subprocess.run(  # this Python, our own example
        [sys.executable, "run.py", "m.onnx", "p.npy"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert all(len(line.split()) >= 2 for line in done.stdout.splitlines())


@pytest.mark.parametrize("size", [(40, 60), (90, 30), (31, 200), (64, 64)])
def test_letterboxes_as_yqc_does(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    image, placement = runtime.letterbox(picture, (64, 96))
    pixels, place = letterbox(Image.fromarray(picture), (64, 96))
    assert image.shape == (1, 3, 64, 96)
    assert np.abs(image - to_float(pixels)).max() <= 1.01 / 255
    assert (placement.dx, placement.dy) == (place.dx, place.dy)
