"""The figures of every task on real files against an outside judge that shares no code with us."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from yqc.data import Labelling, load_data
from yqc.emit import emit, save, yolo_metadata
from yqc.evaluation import evaluate
from yqc.models.source import open_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)

MODELS = {
    "segment": "yolov8n-seg-figures",
    "pose": "yolo11n-pose-figures",
    "obb": "yolov8n-obb-figures",
    "classify": "yolo11n-cls-figures",
}
IMAGES = 12


@pytest.fixture(scope="module")
def judge(shared: Path) -> ModuleType:
    path = shared / "tools" / "eval_tasks.py"
    spec = importlib.util.spec_from_file_location("eval_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", MODELS)
def test_agrees_with_the_judge(judge: ModuleType, shared: Path, tmp_path: Path, task: str) -> None:
    figures, size = shared / "data/figures", 64 if task == "classify" else 160
    source = open_model(shared / "models" / f"{MODELS[task]}.pt", imgsz=(size, size))
    about = yolo_metadata(
        source.names, source.strides, source.imgsz, task=task, kpt_shape=source.facts.kpt_shape
    )
    path = tmp_path / "model.onnx"
    save(emit(source.gm, metadata=about), path)
    images = figures / ("classify/val" if task == "classify" else f"{task}/images/val")
    truth = figures / ("obb/labels/val" if task == "obb" else "annotations/val.json")
    spec = {"classify": figures / "classify", "obb": figures / "obb.yaml"}.get(task, truth)
    where = images if spec.suffix == ".json" else None
    data = load_data(spec, images=where, labelling=Labelling.of(source.form))
    split = data.val if where is None else data.train  # of a JSON, the first half of its images
    limit = None if task == "classify" else IMAGES
    got = evaluate(path, replace(split, images=split.images[:limit]), threads=1)
    want = judge.evaluate(str(path), task, images, truth, size, limit=limit)
    assert got.images == want["images"]
    assert 0.3 < want["mAP"] < 0.95
    if task == "classify":
        assert (round(got.top1 or 0, 4), got.top5) == (want["top1"], want["top5"])
        return
    assert got.main_figure == pytest.approx(want["mAP"], abs=0.003)
    part = {"segment": got.mask, "pose": got.keypoints, "obb": got.rotated}[task]
    assert part is not None
    assert part.map50 == pytest.approx(want["mAP50"], abs=0.003)
    if task != "obb":
        assert got.map == pytest.approx(want["box_mAP"], abs=0.005)
