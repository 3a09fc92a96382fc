"""The command line on bad input: exit status 1, one clear message, nothing written."""

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.command import Done, Run, here
from yqc.data import scenes
from yqc.errors import CheckpointError


@dataclass(frozen=True)
class Kit:
    """What bad input is made of."""

    folder: Path
    checkpoint: Path
    data: Path
    checkpoints: ModuleType

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def kit(tmp_path: Path, checkpoint: Path, data: Path, checkpoints: ModuleType) -> Kit:
    return Kit(tmp_path, checkpoint, data, checkpoints)


Case = tuple[list[object], str]


class Evil:
    """What a hostile checkpoint holds: an object whose unpickling is a call."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return self.call


def evil(kit: Kit, function: Callable[..., object], form: str) -> Case:
    mark = kit.folder / "run"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    ckpt, path = {"model": Evil(function, code)}, kit.folder / "evil.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(ckpt))
    else:
        torch.save(ckpt, path, _use_new_zipfile_serialization=form == "zip")
    name = "posix.system" if function is os.system else ".eval"
    return [path, "--passes", "fuse"], f"{name}, which is not among what a detector's"


def other_task(kit: Kit, task: str, head: str) -> list[object]:
    detector = kit.checkpoints.make(SMALLEST)
    detector.model[-1].pickle_as = f"ultralytics.nn.modules.head.{head}"
    path = kit.folder / "task.pt"
    kit.checkpoints.save(path, detector, "ultralytics", class_path=f"ultralytics.nn.tasks.{task}")
    return [path, "--passes", "fuse"]


SMALLEST = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], *([-1, 1, "Conv", [8, 3, 2]] for _ in range(4))],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
}


def data_yaml(kit: Kit) -> Case:
    names = json.dumps(list(scenes.NAMES))
    path = kit.file("d.yaml", f"path: .\nval: images/nowhere\nnames: {names}\n".encode())
    return [kit.checkpoint, "--passes", "fuse", "--data", path], "images/nowhere"


def coco_json(kit: Kit) -> Case:
    image = next((kit.data.parent / "images" / "val").iterdir())
    found = {
        "images": [{"id": 1, "file_name": image.name, "width": 160, "height": 160}],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = kit.file("d.json", json.dumps(found).encode())
    return (
        [kit.checkpoint, "--passes", "fuse", "--data", path, "--images", image.parent],
        f"{path} has 2 classes but the model predicts 6",
    )


def passing(kit: Kit, passes: str, *more: object) -> list[object]:
    return [kit.checkpoint, "--passes", passes, *more]


def damaged(kit: Kit, content: bytes) -> list[object]:
    return [kit.file("bad.pt", content), "--passes", "fuse"]


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


NO_SIZE = (
    "image size 100 does not fit this model: height and width must be multiples of 32, "
    "its largest stride; use 96 or 128"
)

BAD: dict[str, Callable[[Kit], Case]] = {
    "zip that runs os.system": lambda k: evil(k, os.system, "zip"),
    "zip that runs eval": lambda k: evil(k, eval, "zip"),
    "legacy file that runs os.system": lambda k: evil(k, os.system, "legacy"),
    "legacy file that runs eval": lambda k: evil(k, eval, "legacy"),
    "bare pickle that runs os.system": lambda k: evil(k, os.system, "pickle"),
    "truncated": lambda k: (damaged(k, k.checkpoint.read_bytes()[:9000]), "bad.pt"),
    "cut by a byte": lambda k: (damaged(k, k.checkpoint.read_bytes()[:-1]), "bad.pt"),
    "empty": lambda k: (damaged(k, b""), "bad.pt"),
    "text": lambda k: (damaged(k, b"hello, this is no checkpoint\n" * 20), "bad.pt"),
    "zip of something else": lambda k: (damaged(k, archive(word="hello")), "bad.pt"),
    "folder": lambda k: ([k.folder, "--passes", "fuse"], str(k.folder)),
    "absent": lambda k: ([k.folder / "no.pt", "--passes", "fuse"], "no.pt"),
    "segment without masks": lambda k: (
        other_task(k, "SegmentationModel", "Segment"),
        "no branches cv4: the checkpoint is damaged",
    ),
    "pose without keypoints": lambda k: (
        other_task(k, "PoseModel", "Pose"),
        "kpt_shape is missing: the checkpoint is damaged",
    ),
    "oriented boxes without angles": lambda k: (
        other_task(k, "OBBModel", "OBB"),
        "no branches cv4: the checkpoint is damaged",
    ),
    "classify without a layer": lambda k: (
        other_task(k, "ClassificationModel", "Classify"),
        "model.5 is incomplete",
    ),
    "data whose val is not there": data_yaml,
    "data with other classes": coco_json,
    "data that is not there": lambda k: (passing(k, "", "--data", "no.yaml"), "no.yaml"),
    "size between strides": lambda k: (
        passing(k, "fuse", "--imgsz", 100),
        NO_SIZE,
    ),
    "unknown pass": lambda k: (
        passing(k, "dce,fold"),
        "unknown pass 'fold'; did you mean 'fold-bn'?",
    ),
    "unknown option": lambda k: (
        passing(k, "fold-bn{min_vra=1}"),
        "fold-bn has no option 'min_vra'; did you mean 'min_var'?",
    ),
    "mistyped option": lambda k: (
        passing(k, "fold-bn{min_var=low}"),
        "fold-bn: min_var must be a number, not low",
    ),
    "grammar": lambda k: (passing(k, "fold-bn{"), "expected '}'"),
    "order that cannot be": lambda k: (passing(k, "quantize"), "needs a graph that is"),
    "unknown pass to print": lambda k: (
        passing(k, "dce", "--print-after", "fold"),
        "--print-after: unknown pass 'fold'; did you mean 'fold-bn'?",
    ),
    "recipe that is not there": lambda k: ([k.checkpoint, "--config", "r.toml"], "r.toml"),
    "file to load that is not there": lambda k: (
        passing(k, "dce", "--load", "no.py"),
        "cannot load no.py: it is not a Python file",
    ),
    "output of another kind": lambda k: (
        passing(k, "dce", "-o", "x.txt"),
        "x.txt must end in .onnx",
    ),
    "output in no folder": lambda k: (
        passing(k, "dce", "-o", "no/x.onnx"),
        "cannot write no/x.onnx: there is no folder no; make it first",
    ),
    "head that it has not": lambda k: (passing(k, "dce", "--head", "one2one"), "head"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_one_message_and_nothing_written(
    bad: Callable[[Kit], Case], kit: Kit, run: Run
) -> None:
    for name in ("x.onnx", "x.report.json", "x.recipe.toml"):
        Path(name).write_text("older")
    older = here()
    arguments, message = bad(kit)
    more = [] if "-o" in arguments else ["-o", "x.onnx"]
    done = run("compile", *arguments, *more, "--quiet")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("yqc: ")
    assert message in done.err
    assert "Traceback" not in done.err
    marks = re.findall(r"^ +\^+$", done.err, re.MULTILINE)
    assert len(done.err.splitlines()) == (3 if marks else 1)
    assert here() == older
    assert not (kit.folder / "run").exists(), "nothing that a checkpoint holds is run"


@pytest.mark.parametrize(
    "passes", ["dce,fold", "fold-bn{min_vra=1}", "fold-bn{min_var=low}", "a b"]
)
def test_mistakes_in_pipelines_are_pointed_at(passes: str, run: Run, checkpoint: Path) -> None:
    _, line, mark = run("compile", checkpoint, "--passes", passes).err.splitlines()
    assert line == f"  {passes}"
    pointed = line[mark.index("^") : mark.rindex("^") + 1]
    assert pointed in {"fold", "min_vra", "low", "b"}


def test_a_write_that_fails_half_way(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x.onnx", "x.report.json", "x.recipe.toml"):
        Path(name).write_text("older")
    older, write = here(), Path.write_text

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        if self.name == "x.recipe.toml":
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    done = run("compile", checkpoint, "--passes", "dce", "--no-eval", "-q", "-o", "x.onnx")
    assert done == Done(
        1,
        "",
        "yqc: cannot write x.onnx: No space left on device; older files are untouched\n",
    )
    assert here() == older
    assert len(list(Path().iterdir())) == 3


def test_a_folder_that_cannot_be_written(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    done = run("compile", checkpoint, "--passes", "dce")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "yqc: cannot write into .: Permission denied; choose another place with -o\n"
    )


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(CheckpointError, match="no file absent"):
        run("inspect", "absent.pt", "--debug")


def test_interrupting_says_that_nothing_was_written(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yqc.compiler.open_for", interrupt)
    done = run("compile", checkpoint, "--passes", "dce", "-q")
    assert done == Done(130, "", "yqc: interrupted; nothing was written\n")
