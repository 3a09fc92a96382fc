"""Every task from a checkpoint to a file: P2 heads, kinds of input, timing with pictures.

Heads with three levels are held against their projects in `test_golden_tasks.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

import yqc
from tests.command import Run
from tests.slow import slow_but
from tests.tasks import SIZE, TASKS, write_checkpoint, write_data
from yqc.graph.values import list_tensors
from yqc.models.load import load

Compiled = Callable[..., Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the checkpoint of a task, with four levels where it has any; each once."""
    folder = tmp_path_factory.mktemp("models")

    def write(task: str) -> Path:
        path = folder / f"{task}.pt"
        return path if path.exists() else write_checkpoint(path, task, p2=task != "classify")

    return write


@pytest.fixture(scope="module")
def compiled(model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Compiles a checkpoint with options, each once."""
    folder = tmp_path_factory.mktemp("files")

    def make(task: str, **options: Any) -> Path:
        path = folder / f"{task}-{'-'.join(options)}.onnx"
        if not path.exists():
            yqc.compile(model(task), "fold-bn", output=path, evaluate=False, html=False, **options)
        return path

    return make


def pixels(batch: int = 1, size: tuple[int, int] = (SIZE, SIZE)) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(1).integers(0, 256, (batch, 3, *(s // 8 for s in size)))
    return coarse.repeat(8, 2).repeat(8, 3).astype(np.uint8)


def computed(path: Path, images: NDArray[Any]) -> list[NDArray[Any]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})  # type: ignore[no-any-return]


def wanted(path: Path, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What the module of a checkpoint computes."""
    with torch.no_grad():
        found = load(path).module(torch.from_numpy(images.astype(np.float32) / 255))
    return [one.numpy() for one in list_tensors(found)]


def assert_close(got: list[NDArray[Any]], want: list[NDArray[np.float32]], relative: float) -> None:
    """Compare each row of numbers in its own unit: boxes, scores and the others differ in size."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        axes = tuple(i for i in range(b.ndim) if i != 1 or b.ndim == 2)
        largest = np.abs(b).max(axes, keepdims=True)
        assert (np.abs(a.astype(np.float32) - b) <= relative * np.maximum(largest, 1)).all()


FORMS = {
    "segment": [(1, 4 + 2 + 8, 340), (1, 8, 32, 32)],
    "pose": [(1, 4 + 2 + 9, 340)],
    "obb": [(1, 4 + 2 + 1, 340)],
    "classify": [(1, 2)],
}
"""Outputs at 64 x 64: 16^2 + 8^2 + 4^2 + 2^2 cells; prototypes at twice the size of the finest."""


@pytest.mark.parametrize("task", TASKS)
def test_the_file_computes_what_the_checkpoint_does(
    model: Callable[[str], Path], compiled: Compiled, task: str
) -> None:
    path, images = compiled(task), pixels()
    found = computed(path, images.astype(np.float32) / 255)
    assert [one.shape for one in found] == FORMS[task]
    assert_close(found, wanted(model(task), images), 1e-4)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["task"] == task
    assert metadata["stride"] == ("1" if task == "classify" else "32")
    assert ("kpt_shape" in metadata) == (task == "pose")


@pytest.mark.parametrize("task", slow_but(TASKS, "segment"))
def test_bytes_in_of_any_batch_and_size(
    model: Callable[[str], Path], compiled: Compiled, task: str
) -> None:
    images = pixels(2, (96, 128))
    found = computed(compiled(task, dynamic=True, uint8_input=True), images)
    assert_close(found, wanted(model(task), images), 1e-4)


@pytest.mark.parametrize("task", slow_but(TASKS, "segment"))
def test_halves_in_and_out(compiled: Compiled, task: str) -> None:
    images = pixels().astype(np.float32) / 255
    found = computed(compiled(task, fp16_io=True), images.astype(np.float16))
    assert {one.dtype for one in found} == {np.dtype(np.float16)}
    assert_close(found, computed(compiled(task), images), 2e-3)


@pytest.mark.parametrize("task", TASKS)
def test_files_of_every_input_find_the_same(compiled: Compiled, tmp_path: Path, task: str) -> None:
    """`eval` reads the task from the file, and gives it the input that it takes."""
    data = write_data(tmp_path / "data", task, 2)
    files = compiled(task), compiled(task, dynamic=True, uint8_input=True)
    first, second = (yqc.evaluate(path, data=str(data), threads=1) for path in files)
    assert (first.task, first.images) == (second.task, second.images) == (task, 2)
    figure = first.scores.figure(first.main)
    assert figure is not None
    assert second.scores.figure(second.main) == pytest.approx(figure, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "with_data"), [*((task, True) for task in TASKS), ("classify", False)]
)
def test_timing_with_pictures(
    compiled: Compiled, run: Run, tmp_path: Path, task: str, with_data: bool
) -> None:
    data = ["--data", write_data(tmp_path / "data", task, 2)] if with_data else []
    done = run(
        "bench", compiled(task), "--end-to-end", *data, "--runs", 2, "--threads", 1, "--json", "-q"
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["end_to_end"], found["runs"]) == (True, 2)
    assert found["rows"][0]["median_ms"] > 0


def test_timing_with_pictures_of_a_folder(compiled: Compiled, run: Run, tmp_path: Path) -> None:
    """Files of two tasks, each decoded as its own says; the third leaves that to the host."""
    data = write_data(tmp_path / "data", "segment", 2)
    files = [compiled("segment"), compiled("obb"), compiled("pose", decode="raw")]
    folder = data.parent / "images/val"
    done = run("bench", *files, "--end-to-end", "--data", folder, "--runs", 1, "--json", "-q")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["rows"]) == len(files)
