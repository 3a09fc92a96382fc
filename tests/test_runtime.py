"""The decoding on a device: equal to the graph's, in a process that has numpy alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import yqc
from yqc import runtime
from yqc.data import letterbox, to_float

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
import numpy as np
sys.path.insert(0, '.')
import runtime
held = np.load('outputs.npz')
heads = open('heads.json').read()
found = runtime.decode({name: held[name] for name in held.files}, heads)
np.savez('found.npz', *found)
"""


@pytest.mark.parametrize(
    ("name", "decode"),
    [*((name, "raw") for name in NAMES), ("yolov7-tiny", "scores"), ("yolo11n-cls", "scores")],
)
def test_decodes_as_the_graph_does(shared: Path, tmp_path: Path, name: str, decode: str) -> None:
    model, out = shared / "golden" / f"{name}.pt", tmp_path / "m.onnx"
    yqc.compile(model, "", output=out, imgsz=(64, 96), evaluate=False, html=False, decode=decode)
    session = ort.InferenceSession(out)
    x = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    names = [one.name for one in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"images": x}), strict=True))
    heads = session.get_modelmeta().custom_metadata_map["yqc.heads"]
    if decode == "raw":  # in a process of its own, with nothing but numpy
        (tmp_path / "runtime.py").write_text(FILE.read_text())
        (tmp_path / "heads.json").write_text(heads)
        np.savez(tmp_path / "outputs.npz", **outputs)
        subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, check=True)  # noqa: S603
        with np.load(tmp_path / "found.npz") as file:
            found = tuple(file[key] for key in file.files)
    else:
        found = runtime.decode(outputs, heads)
    head: dict[str, Any] = {"head": "one2many"} if "26" in name else {}
    yqc.compile(
        model, "", output=tmp_path / "f.onnx", imgsz=(64, 96), evaluate=False, html=False, **head
    )
    wanted = ort.InferenceSession(tmp_path / "f.onnx").run(None, {"images": x})
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
