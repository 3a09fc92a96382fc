"""Which evaluation images the page shows."""

from pathlib import Path

import numpy as np
from PIL import Image

from yqc import evaluation as ev
from yqc.data import Split
from yqc.facts import OutputForm
from yqc.job.measure import Evidence
from yqc.job.pictures import PICTURES, choose_pictures


def boxes(*rows: tuple[float, float, float, float, int, float]) -> ev.Boxes:
    found = np.array(rows, np.float32).reshape(-1, 6)
    return ev.Boxes(found[:, :4], found[:, 5], found[:, 4].astype(np.int64))


def chosen(
    folder: Path, before: dict[int, ev.Boxes], after: dict[int, ev.Boxes], form: OutputForm
) -> list[str]:
    paths = tuple(folder / f"{i}.png" for i in range(len(before)))
    for path in paths:
        Image.new("RGB", (40, 40)).save(path)
    sides = (ev.Detections(one, form, (), 0.0, 0.0) for one in (before, after))
    evidence = Evidence(Split("val", paths), (next(sides), next(sides)))
    return [one.name for one in choose_pictures(evidence, ("a", "b"))]


def test_pictures_where_the_models_disagree_come_first(tmp_path: Path) -> None:
    here, moved = (0, 0, 20, 20, 0, 0.9), (8, 0, 28, 20, 0, 0.9)
    before = {i: boxes(here) for i in range(PICTURES + 2)}
    after = dict(before)
    after[7] = boxes(moved)  # two objects without a counterpart
    after[5] = boxes(here, (0, 0, 20, 20, 1, 0.9))  # one of another class
    after[3] = boxes(here, (0, 0, 9, 9, 0, 0.1))  # too unsure to be drawn
    names = chosen(tmp_path, before, after, OutputForm("yolov8", 2))
    assert names[:3] == ["7.png", "5.png", "0.png"]
    assert len(names) == PICTURES


def test_of_a_classifier_changed_classes_come_first_then_moved_probabilities(
    tmp_path: Path,
) -> None:
    def sure(cls: int, score: float) -> ev.Boxes:
        return boxes((0, 0, 0, 0, cls, score))

    before = {0: sure(0, 0.9), 1: sure(0, 0.9), 2: sure(0, 0.5)}
    after = {0: sure(0, 0.8), 1: sure(0, 0.6), 2: sure(1, 0.5)}
    form = OutputForm("classes", 2, "classify")
    assert chosen(tmp_path, before, after, form) == ["2.png", "1.png", "0.png"]
