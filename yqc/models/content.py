"""What a checkpoint holds: which of its objects is the model, and what stands beside it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from torch import Tensor

from yqc.errors import CheckpointError, UnsupportedTaskError
from yqc.models.pickles.read import Inert

TASKS = {
    "Seg": "segmentation",
    "Pose": "pose estimation",
    "Keypoint": "pose estimation",
    "OBB": "oriented boxes",
    "Classif": "classification",
    "World": "open-vocabulary detection",
    "YOLOE": "open-vocabulary detection",
    "RTDETR": "transformer detection (RT-DETR)",
    "Ensemble": "several models at once",
}
"""What parts of the class names of models and heads say is not a plain detector."""

V7_ONLY = {"IDetect", "IAuxDetect", "RepConv", "SPPCSPC", "SP", "MP", "ReOrg"}
V5_ONLY = {"C3", "C3TR", "C3SPP", "C3Ghost", "C3x", "SPPF", "Focus", "BottleneckCSP"}

LARGEST_SIDE = 1 << 14
"""Pixels a side; a training size beyond is none."""
CLASS_DIGITS = 7
"""A class number has fewer digits than this."""

NOT_A_MODEL = (
    "the file holds no YOLO model; yqc reads what YOLOv5, YOLOv7 and Ultralytics trainings write"
)


@dataclass(frozen=True)
class Content:
    """The parts of a checkpoint that loading needs."""

    family: str
    name: str
    layers: tuple[Inert, ...] = ()
    """The pickled layers in order; none where the file is a state dict."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The state dict, where there is no model."""
    names: object = None
    """Class names as stored: a dict, a list, or nothing."""
    settings: tuple[Mapping[str, Any], ...] = ()
    """Settings of the training that the file records, the best source first."""


def find_content(top: object) -> Content:
    """Find the model, or the state dict, in what a checkpoint file holds.

    Raises:
        CheckpointError: there is neither.
        UnsupportedTaskError: the model is not a detector.
    """
    ckpt = top if isinstance(top, Mapping) else {"model": top}
    for value in (ckpt.get("ema"), ckpt.get("model")):
        if (model := _unwrap(value)) is not None:
            return _of_model(model, ckpt)
    for value in (ckpt.get("ema"), ckpt.get("model"), ckpt.get("state_dict"), ckpt):
        if tensors := _state_dict(value):
            return Content("", "", tensors=tensors)
    raise CheckpointError(NOT_A_MODEL)


def _unwrap(value: object) -> Inert | None:
    """Return a pickled detection model: bare, averaged (`ModelEMA`), in a pair, or in a wrapper."""
    for _ in range(4):  # Deeper than any release wraps it.
        if isinstance(value, tuple) and value:
            value = value[0]
        elif not isinstance(value, Inert):
            return None
        elif isinstance(value.state.get("ema"), Inert):
            value = value.state["ema"]
        elif set(children(value)) == {"module"}:
            value = children(value)["module"]
        else:
            return value
    return None


def children(tree: Inert) -> Mapping[str, Any]:
    """Return the modules that a pickled module holds, by name."""
    found = tree.state.get("_modules")
    return found if isinstance(found, Mapping) else {}


def _of_model(model: Inert, ckpt: Mapping[Any, Any]) -> Content:
    stack = children(model).get("model")
    refuse_other_tasks([model.class_path])
    if not isinstance(stack, Inert) or not children(stack):
        raise CheckpointError(f"{NOT_A_MODEL}, and this is a {model.class_path}")
    layers = tuple(children(stack).values())
    if not all(isinstance(layer, Inert) for layer in layers):
        raise CheckpointError("the model has empty layers: the checkpoint is damaged")
    refuse_other_tasks([layers[-1].class_path])
    family = _family(model, layers)
    settings = (ckpt.get("train_args"), ckpt.get("opt"), model.state.get("args"))
    return Content(
        family=family,
        name=_name(model) or family,
        layers=layers,
        names=model.state.get("names"),
        settings=tuple(filter(None, map(_settings, settings))),
    )


def refuse_other_tasks(class_paths: list[str]) -> None:
    """Raise an UnsupportedTaskError if a class is that of a model or head of another task."""
    for path in class_paths:
        name = path.rpartition(".")[2]
        for part, task in TASKS.items():
            if part in name:
                raise UnsupportedTaskError(
                    f"the checkpoint is for {task} ({name}); yqc compiles detectors only"
                )


def _family(model: Inert, layers: tuple[Inert, ...]) -> str:
    """Tell the project; YOLOv5 and YOLOv7 share class paths and differ in what they are made of."""
    if model.class_path.startswith("ultralytics."):
        return "ultralytics"
    names = {layer.class_path.rpartition(".")[2] for layer in layers}
    if names & V7_ONLY:
        return "yolov7"
    if names & V5_ONLY or "inplace" in layers[-1].state:
        return "yolov5"
    return "yolov7"


def _name(model: Inert) -> str:
    """Return the stem of the model's YAML, with the scale that was chosen from it."""
    spec = model.state.get("yaml")
    spec = spec if isinstance(spec, Mapping) else {}
    file = model.state.get("yaml_file") or spec.get("yaml_file")
    return scaled_name(PurePath(file).stem, spec.get("scale")) if isinstance(file, str) else ""


def scaled_name(stem: str, scale: object) -> str:
    """Put a scale's letter behind a family's number: `yolov8-p2` and `s` make `yolov8s-p2`."""
    bare = re.fullmatch(r"(yolov?\d+)(-.*)?", stem)
    if bare is None or not isinstance(scale, str):
        return stem
    return f"{bare[1]}{scale}{bare[2] or ''}"


def _settings(value: object) -> Mapping[str, Any]:
    value = value.state if isinstance(value, Inert) else value
    return value if isinstance(value, Mapping) else {}


def training_size(content: Content) -> tuple[int, int] | None:
    """Return the height and width that the model was trained at, if they are recorded."""
    for settings in content.settings:
        size = settings.get("imgsz", settings.get("img_size"))
        if isinstance(size, (list, tuple)) and size:
            size = size[0]  # YOLOv5 up to release 5: one for training, one for testing.
        if type(size) is int and 0 < size <= LARGEST_SIDE:
            return size, size
    return None


def class_names(stored: object, nc: int) -> tuple[tuple[str, ...], list[str]]:
    """Return one name a class, and warnings where names and classes do not agree."""
    pairs: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(stored, Mapping):
        pairs = iter(stored.items())
    elif isinstance(stored, (list, tuple)):
        pairs = iter(enumerate(stored))
    found = {int(key): str(name) for key, name in pairs if _is_number(key)}
    names = tuple(found.get(i, str(i)) for i in range(nc))
    if set(found) == set(range(nc)):
        return names, []
    return names, [f"the file names {len(found)} classes, but its head has {nc}"]


def _is_number(key: object) -> bool:
    """Tell whether a key of `names` is a class number, as text or as itself."""
    text = str(key)
    return text.isdecimal() and len(text) < CLASS_DIGITS


def _state_dict(value: object) -> dict[str, Tensor]:
    """Return a mapping's tensors if it is a state dict; a parallel wrapper's prefix is cut off."""
    if not isinstance(value, Mapping) or not value:
        return {}
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return {}
    return {key.removeprefix("module."): tensor for key, tensor in value.items()}
