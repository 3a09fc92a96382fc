"""The float model is evaluated once for a model and its data, whatever the passes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import yqc
from yqc import evaluation as ev
from yqc.data import Split, Unreadable
from yqc.job.baseline import pack_boxes, unpack_boxes
from yqc.job.inputs import find_data, make_context, open_source
from yqc.pipeline import base
from yqc.progress import Silent
from yqc.settings import Settings
from yqc.store import Store


def compiled(checkpoint: Path, passes: Any, out: Path, **more: Any) -> yqc.Result:
    return yqc.compile(checkpoint, passes, output=out, latency=False, html=False, **more)


def test_a_second_compile_does_not_evaluate_the_float_model(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled(checkpoint, "dce", tmp_path / "a.onnx", data=data)
    assert first.report.accuracy.baseline == "measured"
    runs, detect = list[str](), ev.detect

    def counting(model: Any, *args: Any, **how: Any) -> ev.Detections:
        runs.append(str(model))
        return detect(model, *args, **how)

    monkeypatch.setattr(ev, "detect", counting)
    second = compiled(checkpoint, "fold-bn,dce", tmp_path / "b.onnx", data=data)
    assert [Path(run).name for run in runs] == ["x.onnx"]
    assert second.report.accuracy.baseline == "kept"
    assert second.report.accuracy.float_ == first.report.accuracy.float_
    third = compiled(checkpoint, "dce", tmp_path / "c.onnx", data=data, imgsz=96)
    assert third.report.accuracy.baseline == "measured"


def test_what_agreement_is_judged_against_is_computed_once_for_these_images(
    checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, detect = list[int](), ev.detect

    def counting(model: Any, split: Split, **how: Any) -> ev.Detections:
        runs.append(len(split.images))
        return detect(model, split, **how)

    monkeypatch.setattr(ev, "detect", counting)

    source = open_source(checkpoint, Settings(imgsz=(64, 64)))

    other = copy.deepcopy(source.gm)
    next(other.parameters()).data.mul_(1.01)

    def judged(seed: int = 0) -> int:
        """Count the runs that one judgement takes."""
        settings = Settings(data=str(data), seed=seed)
        ctx = make_context(settings, source, find_data(settings, source), Silent())
        assert ctx.agreement is not None
        runs.clear()
        assert ctx.agreement(other) is not None
        return len(runs)

    both = 2
    assert [judged(), judged()] == [both, 1]
    assert judged(seed=1) == both  # on other images


def test_other_labels_count_with_what_is_kept(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """The hash of the data holds the labels, too."""
    compiled(checkpoint, "dce", tmp_path / "a.onnx", data=data)
    label = next(iter(sorted((data.parent / "labels" / "val").glob("*.txt"))))
    text = label.read_text()
    label.write_text(text + text.splitlines()[0] + "\n")
    try:
        again = compiled(checkpoint, "dce", tmp_path / "b.onnx", data=data)
    finally:
        label.write_text(text)
    assert again.report.accuracy.baseline == "measured"


def test_a_damaged_store_is_measured_anew(
    checkpoint: Path, data: Path, tmp_path: Path, cache_folder: Path
) -> None:
    first = compiled(checkpoint, "dce", tmp_path / "a.onnx", data=data)
    for entry in Store(cache_folder).entries():
        content = bytearray(entry.path.read_bytes())
        content[-5] ^= 4
        entry.path.write_bytes(content)
    second = compiled(checkpoint, "dce", tmp_path / "b.onnx", data=data)
    assert second.report.accuracy.baseline == "measured"
    assert second.report.accuracy.float_ == first.report.accuracy.float_


def test_boxes_are_packed_and_unpacked() -> None:
    rng = np.random.default_rng(0)
    boxes = {
        i: ev.Boxes(
            rng.random((n, 4), np.float32), rng.random(n, np.float32), rng.integers(0, 5, n)
        )
        for i, n in ((0, 3), (2, 0), (3, 1))
    }
    split = Split("val", tuple(Path(f"{i}.jpg") for i in range(4)))
    skipped = (Unreadable(1, split.images[1], "broken"),)
    found = ev.Detections(boxes, ev.OutputForm("yolov8", 5), skipped, 1.5, 0.5)
    again = unpack_boxes(pack_boxes(found), split)
    assert again is not None
    assert list(again.boxes) == [0, 2, 3]
    for i, one in boxes.items():
        np.testing.assert_array_equal(again.boxes[i].xyxy, one.xyxy)
        np.testing.assert_array_equal(again.boxes[i].scores, one.scores)
        np.testing.assert_array_equal(again.boxes[i].classes, one.classes)
    assert (again.head, again.skipped) == (found.head, skipped)
    assert unpack_boxes(b"nonsense", split) is None


def test_a_killed_evaluation_goes_on_behind_its_last_image(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    monkeypatch.setattr(base, "LONGEST", 0.0)
    want = compiled(checkpoint, "dce", tmp_path / "x.onnx", data=data).report
    runs, run = list[Path](), ev.OnnxModel.run

    def dying(self: ev.OnnxModel, images: Any) -> Any:
        if runs.count(self.path) == 2:
            raise KeyboardInterrupt
        runs.append(self.path)
        return run(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(ev.OnnxModel, "run", dying)
        with pytest.raises(KeyboardInterrupt):
            compiled(checkpoint, "dce", tmp_path / "x.onnx", data=data)

    def counting(self: ev.OnnxModel, images: Any) -> Any:
        runs.append(self.path)
        return run(self, images)

    runs.clear()
    monkeypatch.setattr(ev.OnnxModel, "run", counting)
    found = compiled(checkpoint, "dce", tmp_path / "x.onnx", data=data, resume=True).report
    assert found.accuracy.compiled == want.accuracy.compiled
    assert len(runs) == 2  # of three images; one was still on its way as the run was killed
