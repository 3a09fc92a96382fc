"""Find the model in what a checkpoint file holds, and the settings stored beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from torch import Tensor

from yqc.errors import CheckpointError, UnsupportedTaskError
from yqc.models.pickles.read import Inert
from yqc.models.unknown import children, is_loss
from yqc.models.weights import find_weights

TASKS = {
    "Semantic": "semantic segmentation",
    "SemSeg": "semantic segmentation",
    "Panoptic": "panoptic segmentation",
    "Depth": "depth estimation",
    "ISegment": "segmentation by YOLOv7's project",
    "IRSegment": "segmentation by YOLOv7's project",
    "DSegment": "segmentation by the project of YOLOv9's authors",
    "DualDSegment": "segmentation by the project of YOLOv9's authors",
    "Keypoint": "pose estimation by YOLOv7's project",
    "World": "open-vocabulary detection",
    "YOLOE": "open-vocabulary detection",
    "RTDETR": "transformer detection (RT-DETR)",
    "Ensemble": "several models at once",
}
"""Parts of class names of models and heads of other tasks -> the task in words."""

V7_ONLY = {"IDetect", "IAuxDetect", "RepConv", "SPPCSPC", "SP", "MP", "ReOrg"}
V5_ONLY = {"C3", "C3TR", "C3SPP", "C3Ghost", "C3x", "SPPF", "Focus", "BottleneckCSP"}
V9_ONLY = {"DDetect", "DualDDetect", "TripleDDetect", "DualDetect", "TripleDetect", "RepNCSPELAN4"}
"""Blocks that occur in only one of the three projects that share class paths."""

LARGEST_SIDE = 1 << 14
"""Pixels a side; a larger recorded size is not believed."""
CLASS_DIGITS = 7
"""A class number has fewer digits than this."""

BESIDE_LAYERS = frozenset({"model", "criterion", "total_ops", "total_params"})
"""Parts of the projects' model objects: the layers, the loss, and a profiler's counts."""

MOST_WRAPPERS = 8
"""Objects around a model, one in another: an averaged, compiled, parallel one in a pair has 5."""

QUANTIZATION_STATES = ("modelopt", "modelopt_state", "quantizer_state")
"""Keys under which tools of quantization-aware training keep their ranges beside the model."""

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
    beside: tuple[str, ...] = ()
    """Names of what the model object holds beside its layers."""
    class_path: str = ""
    """The model's class."""
    transforms: object = None
    """How a classifier's images are made, as stored."""
    ignored: tuple[str, ...] = ()
    """Sentences about what the file holds and yqc does not use."""


def find_content(top: object) -> Content:
    """Find the model, or the state dict, in what a checkpoint file holds.

    Raises:
        CheckpointError: there is neither.
        UnsupportedTaskError: the model is not a detector.
    """
    ckpt = top if isinstance(top, Mapping) else {"model": top}
    values = (ckpt.get("ema"), ckpt.get("model"), *ckpt.values())
    models = [model for value in values if (model := _unwrap(value)) is not None]
    for model in filter(_has_layers, models):
        return replace(_of_model(model, ckpt), ignored=_ignored(ckpt))
    if tensors := find_weights(ckpt):
        settings = (ckpt.get("train_args"), ckpt.get("opt"), ckpt)
        return Content(
            family="",
            name="",
            tensors=tensors,
            names=ckpt.get("names"),
            settings=tuple(filter(None, map(_settings, settings))),
            ignored=_ignored(ckpt),
        )
    if models:
        refuse_other_tasks([models[0].class_path])
        raise CheckpointError(f"{NOT_A_MODEL}, and this is a {models[0].class_path}")
    raise CheckpointError(NOT_A_MODEL)


def _unwrap(value: object) -> Inert | None:
    """Return the pickled model in a value: bare, averaged, in a pair, compiled, or in a wrapper.

    Wrappers are those of training (`ModelEMA`, `DataParallel`, a trainer), of `torch.compile`, and
    of the projects (`YOLO`, `AutoShape`, `DetectMultiBackend`, an `Ensemble` of one).
    """
    for _ in range(MOST_WRAPPERS):
        if isinstance(value, tuple | list) and value:
            value = value[0]
        elif not isinstance(value, Inert):
            return None
        elif _has_layers(value) or (inner := _inner(value)) is None:
            return value
        else:
            value = inner
    return None


def _has_layers(tree: Inert) -> bool:
    """Whether a pickled object is a model as the projects make it: a row of layers in `model`."""
    stack = children(tree).get("model")
    return (
        isinstance(stack, Inert)
        and bool(children(stack))
        and all(name.isdecimal() for name in children(stack))
    )


def _inner(tree: Inert) -> Inert | None:
    """Return what a wrapper is put around."""
    parts = children(tree)
    found = [tree.state.get("ema"), *(parts.get(name) for name in ("module", "_orig_mod", "model"))]
    found += [tree.state.get("model"), parts["0"] if set(parts) == {"0"} else None, *tree.args[:1]]
    return next((part for part in found if isinstance(part, Inert)), None)


def _ignored(ckpt: Mapping[Any, Any]) -> tuple[str, ...]:
    """Say which ranges of quantization-aware training stand beside the model."""
    return tuple(
        f"the file holds ranges of quantization-aware training ({key}), which yqc ignores:"
        " it chooses its own"
        for key in QUANTIZATION_STATES
        if ckpt.get(key)
    )


def _held(tree: Inert, section: str) -> set[str]:
    """Return the names of a pickled module's parameters or buffers that are not None."""
    found = tree.state.get(section)
    return {k for k, v in found.items() if v is not None} if isinstance(found, Mapping) else set()


def _of_model(model: Inert, ckpt: Mapping[Any, Any]) -> Content:
    refuse_other_tasks([model.class_path])
    layers = tuple(children(children(model)["model"]).values())
    if not all(isinstance(layer, Inert) for layer in layers):
        raise CheckpointError("the model has empty layers: the checkpoint is damaged")
    refuse_other_tasks([layers[-1].class_path])
    family = _family(model, layers)
    settings = (ckpt.get("train_args"), ckpt.get("opt"), model.state.get("args"), ckpt)
    parts = {name for name, part in children(model).items() if not is_loss(part)}
    held = {*parts, *_held(model, "_parameters"), *_held(model, "_buffers")}
    return Content(
        family=family,
        name=_name(model) or family,
        layers=layers,
        names=model.state.get("names"),
        settings=tuple(filter(None, map(_settings, settings))),
        beside=tuple(sorted(held - BESIDE_LAYERS)),
        class_path=model.class_path,
        transforms=model.state.get("transforms"),
    )


def refuse_other_tasks(class_paths: list[str]) -> None:
    """Raise an UnsupportedTaskError if a class is that of a model or head of another task."""
    for path in class_paths:
        name = path.rpartition(".")[2]
        for part, task in TASKS.items():
            if part in name:
                raise UnsupportedTaskError(
                    f"the checkpoint is for {task} ({name}), which yqc does not compile"
                )


def _family(model: Inert, layers: tuple[Inert, ...]) -> str:
    """Return the project; YOLOv5 and YOLOv7 share class paths and differ in their blocks."""
    if model.class_path.startswith("ultralytics."):
        return "ultralytics"
    names = {layer.class_path.rpartition(".")[2] for layer in layers}
    if names & V9_ONLY or "cv2" in children(layers[-1]):
        return "yolov9"
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
    """Return the height and width that the model was trained at, if they are recorded.

    A list under `imgsz` is height and width; one under `img_size` is one side for training and one
    for testing (YOLOv5 up to release 5, YOLOv7).
    """
    for settings in content.settings:
        match settings.get("imgsz"), settings.get("img_size"):
            case (int(side) | [int(side)], _) | (None, int(side) | [int(side), *_]):
                sides = side, side
            case ([int(high), int(wide)], _):
                sides = high, wide
            case _:
                continue
        if all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
            return sides
    return None


def class_names(stored: object, nc: int) -> tuple[tuple[str, ...], list[str]]:
    """Return one name a class, and warnings where names and classes do not agree."""
    listed = dict(enumerate(stored)) if isinstance(stored, (list, tuple)) else stored
    pairs = listed.items() if isinstance(listed, Mapping) else ()
    found = {
        int(key): str(name)
        for key, name in pairs
        if str(key).isdecimal() and len(str(key)) < CLASS_DIGITS
    }
    names = tuple(found.get(i, str(i)) for i in range(nc))
    if set(found) == set(range(nc)):
        return names, []
    return names, [f"the file names {len(found)} classes, but its head has {nc}"]
