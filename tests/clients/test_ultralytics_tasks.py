"""Ultralytics' own validation of files of the tasks beyond detection, beside an outside judge.

Masks alone are measured otherwise there: the true ones are drawn with cv2.fillPoly on whole pixels,
about an eighth larger. So for them the loss from float to int8 is compared, not the figure.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

import yqc

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
ultralytics = pytest.importorskip(
    "ultralytics", reason="needs ultralytics: pip install yqc[clients]"
)
pytestmark = pytest.mark.filterwarnings("default")

MODELS = {
    "segment": "yolov8n-seg-figures",
    "pose": "yolo11n-pose-figures",
    "obb": "yolov8n-obb-figures",
    "classify": "yolo11n-cls-figures",
}
SIZES = {"segment": 160, "pose": 160, "obb": 160, "classify": 64}
KEYS = {
    "segment": "metrics/mAP50-95(M)",
    "pose": "metrics/mAP50-95(P)",
    "obb": "metrics/mAP50-95(B)",
    "classify": "metrics/accuracy_top1",
}
CLOSE = 0.01

Measure = Callable[[str, str], float]


@pytest.fixture(scope="module")
def figures(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is evaluated on: Ultralytics writes beside it.

    All of it, since its average precision is another than pycocotools' on fewer pictures.
    """
    source = shared / "data" / "figures"
    folder = tmp_path_factory.mktemp("figures")
    shutil.copytree(source / "classify", folder / "classify")
    for task in MODELS.keys() - {"classify"}:
        for part in ("images/val", "labels/val"):
            shutil.copytree(source / task / part, folder / task / part)
    return folder


@pytest.fixture(scope="module")
def judge(shared: Path) -> ModuleType:
    path = shared / "tools" / "eval_tasks.py"
    spec = importlib.util.spec_from_file_location("eval_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compiled(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compiles the model of a task, each pipeline once."""
    folder, data = tmp_path_factory.mktemp("tasks"), shared / "data" / "figures"

    def make(task: str, passes: str) -> Path:
        path = folder / f"{task}-{passes}.onnx"
        if not path.exists():
            yqc.compile(
                shared / "models" / f"{MODELS[task]}.pt",
                passes,
                output=path,
                data=data / ("classify" if task == "classify" else f"{task}.yaml"),
                imgsz=SIZES[task],
                calib_images=32,
                evaluate=False,
                html=False,
            )
        return path

    return make


@pytest.fixture(scope="module")
def validated(
    shared: Path,
    figures: Path,
    compiled: Callable[[str, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Measure:
    """Returns what Ultralytics measures."""
    folder = tmp_path_factory.mktemp("runs")

    def measure(task: str, passes: str) -> float:
        data = figures / task
        if task != "classify":
            described = yaml.safe_load((shared / f"data/figures/{task}.yaml").read_text())
            described |= {"path": str(data), "train": "images/val"}
            data = folder / f"{task}.yaml"
            data.write_text(yaml.safe_dump(described))
        model = ultralytics.YOLO(compiled(task, passes), task=task)
        with without_changes():
            found = model.val(
                data=str(data), imgsz=SIZES[task], batch=1, rect=False, device="cpu",
                verbose=False, plots=False, workers=0, project=str(folder),
            )  # fmt: skip
        return float(found.results_dict[KEYS[task]])

    return measure


@contextmanager
def without_changes() -> Iterator[None]:
    """Leave PyTorch's threads and mode as they are: Ultralytics sets both."""
    threads, graded = torch.get_num_threads(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(graded)


@pytest.fixture(scope="module")
def judged(
    shared: Path, judge: ModuleType, figures: Path, compiled: Callable[[str, str], Path]
) -> Measure:
    """Returns what the judge measures on the same pictures."""

    def measure(task: str, passes: str) -> float:
        images = figures / (f"{task}/val" if task == "classify" else f"{task}/images/val")
        truth = figures / "obb/labels/val"
        if task != "obb":
            truth = shared / "data/figures/annotations/val.json"
        found: dict[str, Any] = judge.evaluate(
            str(compiled(task, passes)), task, images, truth, SIZES[task]
        )
        return float(found["mAP"])

    return measure


@pytest.mark.parametrize("passes", ["fold-bn", "int8"])
@pytest.mark.parametrize("task", ["pose", "obb", "classify"])
def test_its_figure_is_that_of_the_judge(
    validated: Measure, judged: Measure, task: str, passes: str
) -> None:
    assert validated(task, passes) == pytest.approx(judged(task, passes), abs=CLOSE)


def test_masks_lose_as_much_as_by_the_judge(validated: Measure, judged: Measure) -> None:
    losses = [
        1 - figure("segment", "int8") / figure("segment", "fold-bn")
        for figure in (validated, judged)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=CLOSE)
