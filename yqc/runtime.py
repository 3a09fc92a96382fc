"""Do on a device what stands around a compiled file: letterbox, decode, NMS, in NumPy alone.

This one file imports NumPy and the standard library only, so that it can be copied to a device.

    image, placement = letterbox(picture, (640, 640))        # `crop` for a classifier
    outputs = dict(zip(names, session.run(names, {"images": image})))
    arrays = decode(outputs, metadata["yqc.heads"])          # of a file with --decode raw or scores
    found = find(arrays, metadata, placement)                # boxes in pixels of the picture

In reading order: the picture (`letterbox`, `crop`), the metadata (`Heads`, `read_heads`), the
heads (`decode`), the detections (`find` and its parts), suppression (`nms`, `fast_nms`).
`yqc eval` runs the same functions.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Detected",
    "Heads",
    "Placement",
    "crop",
    "decode",
    "fast_nms",
    "find",
    "letterbox",
    "nms",
    "read_form",
    "read_heads",
]

Array = NDArray[Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]
Booleans = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

# The picture ----------------------------------------------------------------------------------

PAD = 114
"""The grey around the image: YOLOv5, YOLOv7 and Ultralytics pad with it in training. Half or double
of it shows a detector an edge that it has not learned to ignore."""
_SHIFT = 22
"""Fraction bits of the weights in `resize`, as Pillow's: eight for the pixel, two to spare."""


class Placement(NamedTuple):
    """The place of a picture in the model's input: input = picture * scale + (dx, dy), in pixels.

    The shifts are negative where the picture is cut.
    """

    scale: float
    dx: int
    dy: int
    size: tuple[int, int]
    """Width and height of the picture."""
    imgsz: tuple[int, int]
    """Height and width of the input."""


def letterbox(image: Pixels, imgsz: int | tuple[int, int]) -> tuple[Floats, Placement]:
    """Fit a picture into the input of a detector without changing its aspect; the rest is grey.

    Args:
        image: uint8 [h, w, C]; three channels in the order red, green, blue.
        imgsz: height and width of the input in pixels, or one number for both.

    Returns:
        float32 [1, C, H, W] in 0..1, and the place of the picture in it.
    """
    placement, (width, height) = place_whole(_size_of(image), _pair(imgsz))
    canvas = np.full((*placement.imgsz, image.shape[2]), PAD, np.uint8)
    rows = slice(placement.dy, placement.dy + height)
    canvas[rows, placement.dx : placement.dx + width] = resize(image, width, height)
    return _to_input(canvas), placement


def crop(image: Pixels, imgsz: int | tuple[int, int]) -> tuple[Floats, Placement]:
    """Fill the input of a classifier with the centre of a picture; see `letterbox`."""
    placement, (width, height) = place_centre(_size_of(image), _pair(imgsz))
    left, top = -placement.dx, -placement.dy
    whole = resize(image, width, height)
    rows = slice(top, top + placement.imgsz[0])
    return _to_input(whole[rows, left : left + placement.imgsz[1]]), placement


def place_whole(size: tuple[int, int], imgsz: tuple[int, int]) -> tuple[Placement, tuple[int, int]]:
    """Place all of a picture in an input; return that, and width and height to resize it to."""
    (w, h), (height, width) = size, imgsz
    scale = min(width / w, height / h)
    new_w, new_h = max(1, round(w * scale)), max(1, round(h * scale))
    dx, dy = (width - new_w) // 2, (height - new_h) // 2
    return Placement(scale, dx, dy, size, imgsz), (new_w, new_h)


def place_centre(
    size: tuple[int, int], imgsz: tuple[int, int]
) -> tuple[Placement, tuple[int, int]]:
    """Place the centre of a picture so that it fills an input; see `place_whole`."""
    (w, h), (height, width) = size, imgsz
    scale = max(width / w, height / h)
    new_w, new_h = max(width, int(w * scale)), max(height, int(h * scale))
    left, top = round((new_w - width) / 2), round((new_h - height) / 2)
    return Placement(scale, -left, -top, size, imgsz), (new_w, new_h)


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Resize uint8 [h, w, C] bilinearly, averaging where it shrinks.

    Values are within one grey level of Pillow's, which resizes some pictures vertically first.
    """
    if image.shape[1] != width:
        image = _resize_rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    if image.shape[0] != height:
        image = _resize_rows(image, height)
    return image


def _resize_rows(image: Pixels, size: int) -> Pixels:
    """Resize the first axis: each output is a weighted sum of the inputs that its triangle spans.

    In integers, with the weights rounded to `_SHIFT` bits.
    """
    first, weights = _triangles(len(image), size)
    total = np.full((size, *image.shape[1:]), 1 << (_SHIFT - 1), np.int32)
    for tap, weight in enumerate(weights):
        rows = image[np.minimum(first + tap, len(image) - 1)].astype(np.int32)
        total += rows * weight[:, None, None]
    return np.asarray(np.clip(total >> _SHIFT, 0, 255), np.uint8)


def _triangles(old: int, new: int) -> tuple[Indices, NDArray[np.int32]]:
    """Return for each output the first input of its triangle, and the weights [taps, new]."""
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + support + 0.5).astype(np.intp), old)
    taps = np.arange(int((end - first).max()))[:, None]
    weights = 1 - np.abs((taps + first - centre + 0.5) * (1 / support))
    weights = np.where(taps < end - first, np.maximum(weights, 0), 0)
    total = np.cumsum(weights, 0)[-1]
    return first, (weights / total * (1 << _SHIFT) + 0.5).astype(np.int32)


def _size_of(image: Pixels) -> tuple[int, int]:
    """Return width and height of uint8 [h, w, C]; a ValueError for anything else."""
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:  # noqa: PLR2004
        raise ValueError(
            f"a picture is uint8 [h, w, channels], not {image.dtype} {list(image.shape)}"
        )
    return image.shape[1], image.shape[0]


def _pair(imgsz: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    if height < 1 or width < 1:
        raise ValueError(f"an input of {height}x{width} pixels holds no picture")
    return int(height), int(width)


def _to_input(pixels: Pixels) -> Floats:
    whole = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    return np.asarray(np.divide(whole, np.float32(255)))


# The metadata ---------------------------------------------------------------------------------

VERSION = 1
"""Of the metadata entry `yqc.heads` that this file reads."""
LONGEST = 1 << 16
"""Characters of that entry at most. A head with five levels takes 2000; half of it suits it, too,
and double only lets a malicious file take longer."""
_LARGEST = 1e5
"""Largest number in that entry, of any kind: no stride, anchor or count comes near it, and products
of two stay far from overflow."""
_LEVEL_KINDS = {"detect": (), "segment": ("coef",), "pose": ("kpt",), "obb": ("angle",)}
"""Task -> what a level of an anchor-free head has beside `box` and `cls`."""


class OutputEntry(NamedTuple):
    """One output of a file without the decode."""

    name: str
    kind: str
    """`box` distances, `cls` class scores, `kpt` keypoints, `coef` mask coefficients, `angle`;
    `raw` all numbers of an anchor head; `proto` prototypes of masks; `logits` of a classifier."""
    stride: float
    """Input pixels a cell; 0 for `proto` and `logits`."""


@dataclass(frozen=True)
class Heads:
    """How the outputs of a file are read: the metadata entry `yqc.heads`, checked."""

    task: str
    """`detect`, `segment`, `pose`, `obb` or `classify`."""
    layout: str
    """Of the decoded output: `yolov8` [N, 4+nc+E, A], `yolov5` [N, A, 5+nc+E], `end2end`
    [N, rows, 6+E], `classes` [N, nc]."""
    nc: int
    """How many classes; 0 where it is not known."""
    decode: str = "full"
    """`raw`, or `scores` if the sigmoid (of classifiers the softmax) is within the file; `full`
    where its outputs are decoded."""
    outputs: tuple[OutputEntry, ...] = ()
    reg_max: int = 1
    """Bins of a distance; 1 where it is the number itself."""
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Width and height in pixels of each anchor, level by level."""
    coefficients: int = 0
    """Mask coefficients of a detection."""
    kpt_shape: tuple[int, int] | None = None
    """Keypoints of a detection and numbers of each."""
    factor: float = 1.0
    """A raw coordinate k of a keypoint lies at (factor * k + cell + offset) * stride."""
    offset: float = 0.0
    angle: str = "sigmoid"
    """An angle is (sigmoid - 1/4) pi of the raw number, or, with `radians`, that number."""

    @property
    def extra(self) -> int:
        """Numbers of a detection behind its box and scores, E."""
        keypoints, numbers = self.kpt_shape or (0, 0)
        return self.coefficients + keypoints * numbers + (self.task == "obb")

    def named(self, kind: str) -> list[OutputEntry]:
        """Return the outputs of a kind, level by level."""
        return [one for one in self.outputs if one.kind == kind]


def read_heads(entry: str | Mapping[str, Any]) -> Heads:
    """Read the metadata entry `yqc.heads`, as text or parsed.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    if isinstance(entry, str):
        if len(entry) > LONGEST:
            raise ValueError(f"yqc.heads is {len(entry)} characters long, {LONGEST} at most")
        try:
            entry = json.loads(entry)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"yqc.heads is no JSON: {str(error)[:80]}") from None
    if not isinstance(entry, Mapping):
        raise ValueError("yqc.heads is no JSON object")  # noqa: TRY004
    if entry.get("version") != VERSION:
        found = repr(entry.get("version"))[:40]
        raise ValueError(f"yqc.heads is of version {found}, and this file reads {VERSION}")
    try:
        heads = _parse(entry)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"yqc.heads is damaged: {type(error).__name__} {error!s:.80}") from None
    _check_kinds(heads)
    return heads


def _parse(entry: Mapping[str, Any]) -> Heads:
    task = _one_of(entry, "task", "detect", "segment", "pose", "obb", "classify")
    layout = _one_of(entry, "layout", "yolov8", "yolov5", "classes")
    outputs = [
        OutputEntry(_text(one["name"]), _text(one["kind"]), _number(one.get("stride", 0)))
        for one in _list(entry["outputs"])
    ]
    anchors = [
        tuple((_positive(w), _positive(h)) for w, h in _list(level))
        for level in _list(entry.get("anchors", []))
    ]
    points = entry["keypoints"] if task == "pose" else {}
    kpt_shape = tuple(map(_count, _list(entry["kpt_shape"]))) if task == "pose" else None
    return Heads(
        task,
        layout,
        _count(entry["nc"]),
        _one_of(entry, "decode", "raw", "scores"),
        tuple(outputs),
        _count(entry.get("reg_max", 1)),
        tuple(anchors),
        _count(entry["coefficients"]) if task == "segment" else 0,
        kpt_shape,  # type: ignore[arg-type]  # two numbers, by `_check_kinds`
        _number(points["factor"]) if task == "pose" else 1.0,
        _number(points["offset"]) if task == "pose" else 0.0,
        _one_of(entry, "angle", "sigmoid", "radians") if task == "obb" else "sigmoid",
    )


def _check_kinds(heads: Heads) -> None:
    """Raise a ValueError unless the outputs are those of a head of that layout and task."""
    names = [one.name for one in heads.outputs]
    kinds = {"yolov8": ["box", "cls"], "yolov5": ["raw"], "classes": ["logits"]}[heads.layout]
    single = {"logits"}
    if heads.layout == "yolov8" and heads.task in _LEVEL_KINDS:
        kinds += _LEVEL_KINDS[heads.task]
    if heads.task == "segment":
        kinds.append("proto")
        single.add("proto")
    fits = (heads.task == "classify") == (heads.layout == "classes")
    fits &= heads.layout != "yolov5" or heads.task in {"detect", "segment"}
    strides = [[one.stride for one in heads.named(kind)] for kind in kinds if kind not in single]
    if (
        not fits
        or len(set(names)) != len(names)
        or {one.kind for one in heads.outputs} != set(kinds)
        or any(len(heads.named(kind)) != 1 for kind in single & set(kinds))
        or any(each != strides[0] or min(each) <= 0 for each in strides)
        or (heads.layout == "yolov5" and len(heads.anchors) != len(strides[0]))
        or not all(heads.anchors)
        or (heads.kpt_shape and (len(heads.kpt_shape) != 2 or heads.kpt_shape[1] not in {2, 3}))  # noqa: PLR2004
    ):
        shown = ", ".join(f"{one.name[:20]} ({one.kind[:8]})" for one in heads.outputs[:8])
        raise ValueError(
            f"yqc.heads is damaged: its outputs {shown or 'none'} are not those of a head of "
            f"layout {heads.layout} for {heads.task}"
        )


def _one_of(entry: Mapping[str, Any], key: str, *values: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or value not in values:
        raise ValueError(
            f"yqc.heads is damaged: {key} is {repr(value)[:40]}, not one of {', '.join(values)}"
        )
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{repr(value)[:40]} is no list")
    return list(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{repr(value)[:40]} is no name")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        raise TypeError(f"{repr(value)[:40]} is no number")
    return value


def _positive(value: object) -> float:
    if _number(value) <= 0:
        raise TypeError(f"{value} is not positive")
    return _number(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or _positive(value) != value:
        raise TypeError(f"{repr(value)[:40]} is no count")
    return value


def read_form(metadata: Mapping[str, str], outputs: Sequence[Array]) -> Heads:
    """Return how decoded outputs, [N, ...] each, are read, by the metadata of their file.

    Files of other exporters, which have no entry `yqc.heads`, are read by their task, names and
    kpt_shape, and by the shapes and numbers of their outputs.
    """
    if "yqc.heads" in metadata:
        return read_heads(metadata["yqc.heads"])
    first, task = outputs[0], metadata.get("task", "detect")
    names, points = (_literal(metadata.get(key, "None")) for key in ("names", "kpt_shape"))
    nc = len(names) if isinstance(names, (list, dict)) else 0
    if task == "classify":
        return Heads(task, "classes", nc)
    if first.ndim != 3:  # noqa: PLR2004
        raise ValueError(f"an output of shape {list(first.shape)} is not that of a decoded head")
    kpt_shape = (int(points[0]), int(points[1])) if task == "pose" and points else None
    coefficients = outputs[1].shape[1] if task == "segment" and len(outputs) > 1 else 0
    form = Heads(task, "yolov8", nc, coefficients=coefficients, kpt_shape=kpt_shape)
    layout = guess_layout(first, nc, form.extra)
    return Heads(task, layout, nc, coefficients=coefficients, kpt_shape=kpt_shape)


def _literal(text: str) -> Any:  # noqa: ANN401
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


_END2END_ROWS = 300


def guess_layout(output: Array, nc: int, extra: int) -> str:
    """Guess the layout of a decoded output [N, rows, columns]; `nc` is 0 if it is not known."""
    rows, columns = output.shape[1:] if output.ndim == 3 else (0, 0)  # noqa: PLR2004
    if columns == _ROW + extra and rows <= _END2END_ROWS and _looks_final(output[0]):
        return "end2end"
    by_rows, by_columns = rows == _CORNERS + nc + extra, columns == _OBJECTNESS + nc + extra
    if by_rows != by_columns:
        return "yolov8" if by_rows else "yolov5"
    return "yolov8" if rows < columns else "yolov5"


def _looks_final(output: Array) -> bool:
    scores, classes = output[:, 4], output[:, 5]
    return bool((np.diff(scores) <= 1e-6).all() and (classes == np.round(classes)).all())  # noqa: PLR2004


# The heads ------------------------------------------------------------------------------------


def decode(
    outputs: Mapping[str, Array], heads: str | Mapping[str, Any] | Heads
) -> tuple[Floats, ...]:
    """Decode what a file without the decode gives.

    Args:
        outputs: the file's outputs by name, [N, ...] each; floats.
        heads: the file's metadata entry `yqc.heads`.

    Returns:
        What the file with the decode gives, float32: detections or class probabilities, and the
        prototypes if it segments.

    Raises:
        ValueError: an output is missing or of another shape; the entry is damaged.
    """
    heads = heads if isinstance(heads, Heads) else read_heads(heads)
    missing = [one.name for one in heads.outputs if one.name not in outputs]
    if missing:
        raise ValueError(f"the file gives no output {missing[0][:60]!r}, which yqc.heads names")
    arrays = {one.name: _check_output(outputs[one.name], one, heads) for one in heads.outputs}
    if len({len(array) for array in arrays.values()}) > 1:
        raise ValueError("the outputs are of different batch sizes")
    with np.errstate(over="ignore", invalid="ignore"):  # `find` drops what is not finite
        return _decode_checked(arrays, heads)


def _decode_checked(arrays: Mapping[str, Floats], heads: Heads) -> tuple[Floats, ...]:
    if heads.layout == "classes":
        logits = arrays[heads.outputs[0].name]
        return (logits if heads.decode == "scores" else _softmax(logits, 1),)
    prototypes = [arrays[one.name] for one in heads.named("proto")]
    if heads.layout == "yolov5":
        rows = [
            _decode_anchors(arrays[one.name], one.stride, anchors, heads)
            for one, anchors in zip(heads.named("raw"), heads.anchors)  # noqa: B905  # Python 3.9
        ]
        return np.concatenate(rows, 1), *prototypes
    kinds = ["box", "cls", *_LEVEL_KINDS[heads.task]]
    columns = []
    for level in zip(*map(heads.named, kinds)):  # noqa: B905  # Python 3.9
        maps = {one.kind: arrays[one.name] for one in level}
        if len({x.shape[2:] for x in maps.values()}) > 1:
            raise ValueError(f"the outputs of stride {level[0].stride} are of different sizes")
        columns.append(_decode_level(maps, level[0].stride, heads))
    return np.concatenate(columns, 2), *prototypes


def _check_output(array: Array, entry: OutputEntry, heads: Heads) -> Floats:
    """Return an output as float32; a ValueError if its type or shape is wrong."""
    if entry.kind == "raw":
        level = [one.name for one in heads.named("raw")].index(entry.name)
        channels = len(heads.anchors[level]) * (_OBJECTNESS + heads.nc + heads.coefficients)
    else:
        keypoints, numbers = heads.kpt_shape or (0, 0)
        channels = {
            "box": 4 * heads.reg_max,
            "cls": heads.nc,
            "logits": heads.nc,
            "kpt": keypoints * numbers,
            "angle": 1,
        }.get(entry.kind, heads.coefficients)
    rank = 2 if entry.kind == "logits" else 4
    if array.dtype.kind != "f":
        raise ValueError(
            f"the output {entry.name} is {array.dtype}: it must be float, (value - zero point) * "
            "scale where a runtime gives integers"
        )
    if array.ndim != rank or array.shape[1] != channels or 0 in array.shape:
        size = "" if entry.kind == "logits" else ", h, w"
        raise ValueError(
            f"the output {entry.name} has shape {list(array.shape)}, not [N, {channels}{size}]"
        )
    return array.astype(np.float32, copy=False)


def _decode_level(maps: Mapping[str, Floats], stride: float, heads: Heads) -> Floats:
    """Decode one level of an anchor-free head: float32 [N, 4 + nc + E, h * w].

    A cell gives its distances left, top, right and bottom of its centre to the sides of a box, in
    strides; of an oriented box along axes that are turned about the centre of the cell.
    """
    distances = _expect(maps["box"], heads.reg_max) * np.float32(stride)
    before, after = distances[:, :2], distances[:, 2:]
    shift, centres = (after - before) * np.float32(0.5), _cells(maps["box"], stride, 0.5)
    more = []
    if "angle" in maps:
        raw = maps["angle"]
        angle = raw if heads.angle == "radians" else (_sigmoid(raw) - np.float32(0.25)) * _PI
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = shift[:, :1], shift[:, 1:]
        shift = np.concatenate([along * cos - across * sin, along * sin + across * cos], 1)
        more = [angle]
    elif "kpt" in maps:
        more = [_decode_keypoints(maps["kpt"], stride, heads)]
    elif "coef" in maps:
        more = [maps["coef"]]
    scores = maps["cls"] if heads.decode == "scores" else _sigmoid(maps["cls"])
    joined = np.concatenate([shift + centres, before + after, scores, *more], 1)
    return joined.reshape(*joined.shape[:2], -1)


def _expect(raw: Floats, reg_max: int) -> Floats:
    """Return distances [N, 4, h, w]: of each the mean of a distribution over 0 .. reg_max - 1."""
    if reg_max == 1:
        return raw
    n, _, h, w = raw.shape
    shares = _softmax(raw.reshape(n, 4, reg_max, h * w), 2)
    mean = np.einsum("k,nckp->ncp", np.arange(reg_max, dtype=np.float32), shares)
    return np.asarray(mean.reshape(n, 4, h, w), np.float32)


def _decode_keypoints(raw: Floats, stride: float, heads: Heads) -> Floats:
    """Decode [N, K * D, h, w]: x and y in pixels, visibility by the sigmoid."""
    points = raw.reshape(len(raw), *(heads.kpt_shape or ()), *raw.shape[2:])
    where = points[:, :, :2] * np.float32(heads.factor * stride)
    where += _cells(raw, stride, heads.offset)[None, None]
    return np.concatenate([where, _sigmoid(points[:, :, 2:])], 2).reshape(raw.shape)


def _decode_anchors(
    raw: Floats, stride: float, anchors: Sequence[tuple[float, float]], heads: Heads
) -> Floats:
    """Decode one level of an anchor head: float32 [N, na * h * w, 5 + nc + E].

    With s the sigmoid of a raw number, t the stride and a the anchor in pixels:

    x = (2 s_x - 0.5 + col) t    y = (2 s_y - 0.5 + row) t    w = (2 s_w)^2 a_w    h = (2 s_h)^2 a_h
    """
    n, _, h, w = raw.shape
    cells = raw.reshape(n, len(anchors), -1, h, w)
    end = _OBJECTNESS + heads.nc
    found = cells[:, :, :end] if heads.decode == "scores" else _sigmoid(cells[:, :, :end])
    centre = found[:, :, :2] * np.float32(2 * stride) + _cells(raw, stride, -0.5)
    size = np.square(found[:, :, 2:4] * 2) * np.asarray(anchors, np.float32)[:, :, None, None]
    parts = [centre, size.astype(np.float32), found[:, :, 4:], cells[:, :, end:]]
    joined = np.concatenate(parts, 2)
    return joined.transpose(0, 1, 3, 4, 2).reshape(n, -1, joined.shape[2])


def _cells(maps: Floats, stride: float, offset: float) -> Floats:
    """Return x and y in pixels of a point in each cell, float32 [2, h, w]; 0.5 is the middle."""
    rows, columns = np.indices(maps.shape[-2:], np.float32)
    return np.asarray((np.stack([columns, rows]) + np.float32(offset)) * np.float32(stride))


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))  # at most 1, so that nothing overflows
    return np.asarray(np.where(x < 0, small, np.float32(1)) / (1 + small))


def _softmax(x: Floats, axis: int) -> Floats:
    shares = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(shares / shares.sum(axis, keepdims=True))


_PI = np.float32(math.pi)
"""In float32, so that angles stay so."""

# The detections -------------------------------------------------------------------------------

_CORNERS, _OBJECTNESS, _ROW = 4, 5, 6
_BEST = 5
"""Classes that are kept of a classifier's: top-5 accuracy needs no more."""


class HasForm(Protocol):
    """What `find` must know of decoded outputs: see `Heads`, which is one."""

    @property
    def layout(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def kpt_shape(self) -> tuple[int, int] | None: ...
    @property
    def extra(self) -> int: ...


@dataclass(frozen=True)
class Detected:
    """What is in a picture, by falling score."""

    boxes: Floats
    """[n, 4]: left, top, right, bottom in pixels of the picture. Of oriented boxes [n, 5]: centre
    x, centre y, width, height in pixels, angle in radians. Of classes [0, 4]."""
    scores: Floats
    """[n]; of a classifier those of the five likeliest classes."""
    classes: Indices
    """[n], from 0."""
    keypoints: Floats | None = None
    """[n, K, D]: x, y in pixels of the picture, and the visibility in 0..1 if D is 3."""
    masks: Booleans | None = None
    """[n, h, w], at the size of the picture."""
    probabilities: Floats | None = None
    """[nc], of a classifier."""


def find(
    outputs: Sequence[Array],
    form: Mapping[str, str] | HasForm,
    placement: Placement,
    *,
    conf: float = 0.25,
    iou: float = 0.7,
    top: int = 300,
) -> Detected:
    """Find the objects in one picture, or its class.

    A box counts once for each class whose score is above `conf`; boxes of one class suppress each
    other; rows of an end-to-end output are taken as they are.

    Args:
        outputs: decoded outputs for one picture, [1, ...] each.
        form: the file's metadata, or `Heads`.
        placement: of the picture in the input.
        conf: lowest score.
        iou: overlap above which the lower score goes.
        top: most boxes.
    """
    if any(one.shape[:1] != (1,) for one in outputs) or not outputs:
        shapes = ", ".join(str(list(one.shape)) for one in outputs)
        raise ValueError(f"the outputs are those of one picture, [1, ...] each, not {shapes}")
    form = read_form(form, outputs) if isinstance(form, Mapping) else form
    first, *others = (one[0].astype(np.float32, copy=False) for one in outputs)
    if form.layout == "classes":
        best = likeliest(first)
        return Detected(best.xyxy[:0], best.scores, best.classes, probabilities=first)
    rows = choose_rows(first, form, conf=conf, iou=iou, top=top)
    moved = move_rows(rows, form, placement)
    boxes = moved.xyxy
    if form.task == "obb":
        boxes = rotated_boxes(moved.xyxy, moved.extra).astype(np.float32)
    points = moved.extra.reshape(-1, *form.kpt_shape) if form.kpt_shape else None
    masks = None
    if form.task == "segment":
        if len(others) != 1:
            raise ValueError("masks need two outputs, detections and prototypes")
        masks = np.zeros((len(boxes), *placement.size[::-1]), np.bool_)
        for i, mask in enumerate(draw_masks(boxes, rows.extra, others[0], placement)):
            masks[i] = mask
    return Detected(boxes, moved.scores, moved.classes, points, masks)


class DetectionRows(NamedTuple):
    """Detections, one a row of each array."""

    xyxy: Floats
    """[n, 4]; of oriented boxes before they are turned about their centre."""
    scores: Floats
    classes: Indices
    extra: Floats
    """[n, E]: mask coefficients, keypoints, or the angle."""

    def select(self, which: Booleans | Indices) -> DetectionRows:
        """Return the rows that a mask or a list of indices selects."""
        xyxy, scores, classes, extra = self
        return DetectionRows(xyxy[which], scores[which], classes[which], extra[which])


def choose_rows(
    output: Floats, form: HasForm, *, conf: float, iou: float, top: int
) -> DetectionRows:
    """Return the detections of an output for one picture, without its batch dimension.

    Boxes are in pixels of the input. Scores that are no number and boxes that are not finite are no
    detections.

    Raises:
        ValueError: the output is not of that form.
    """
    columns = 0 if output.ndim != 2 else output.shape[form.layout != "yolov8"]  # noqa: PLR2004
    numbers = {"end2end": _ROW, "yolov8": _CORNERS + 1, "yolov5": _OBJECTNESS + 1}[form.layout]
    if columns < numbers + form.extra or (form.layout == "end2end" and columns > _ROW + form.extra):
        raise ValueError(f"an output of shape {list(output.shape)} is not that of a decoded head")
    if form.layout == "end2end":
        rows = _finite(_final(output, conf, turned=form.task == "obb"))
        return rows.select(np.argsort(-rows.scores, kind="stable")[:top])
    read = _yolov8 if form.layout == "yolov8" else _yolov5
    rows = _finite(read(output, conf, form.extra))
    if form.task == "obb":
        turned = rotated_boxes(rows.xyxy, rows.extra)
        kept = fast_nms(turned, rows.scores, rows.classes, iou=iou, top=top)
    else:
        kept = nms(rows.xyxy, rows.scores, rows.classes, iou=iou, top=top)
    return rows.select(kept)


def likeliest(output: Floats) -> DetectionRows:
    """Return the likeliest classes of probabilities [nc]; none where one is no number."""
    best: Indices = np.argsort(-output, kind="stable")[:_BEST]
    if not np.isfinite(output).all():
        best = best[:0]
    zeros = np.zeros((len(best), 4), np.float32)
    return DetectionRows(zeros, output[best], best, zeros[:, :0])


def _final(output: Floats, conf: float, *, turned: bool) -> DetectionRows:
    rows = output[output[:, 4] > conf]
    box = _corners(rows[:, :4]) if turned else rows[:, :4]
    classes = np.nan_to_num(rows[:, 5]).astype(np.intp)
    return DetectionRows(box, rows[:, 4], classes, rows[:, _ROW:])


def _yolov5(output: Floats, conf: float, extra: int) -> DetectionRows:
    rows = output[output[:, 4] > conf]  # Probabilities are at most 1, so the others cannot pass.
    end = rows.shape[1] - extra
    scores = rows[:, _OBJECTNESS:end] * rows[:, 4:5]
    row, cls = np.nonzero(scores > conf)
    return DetectionRows(_corners(rows[row, :4]), scores[row, cls], cls, rows[row, end:])


def _yolov8(output: Floats, conf: float, extra: int) -> DetectionRows:
    end = len(output) - extra
    scores = output[_CORNERS:end]
    cls, column = np.nonzero(scores > conf)
    return DetectionRows(
        _corners(output[:_CORNERS].T[column]), scores[cls, column], cls, output[end:].T[column]
    )


def _corners(xywh: Floats) -> Floats:
    centre, half = xywh[:, :2], xywh[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _finite(rows: DetectionRows) -> DetectionRows:
    fine = np.isfinite(rows.xyxy).all(1) & np.isfinite(rows.scores)
    fine &= np.isfinite(rows.extra).all(1)
    return rows if fine.all() else rows.select(fine)


def rotated_boxes(xyxy: Floats, extra: Floats) -> Doubles:
    """Return oriented boxes as float64 [n, 5]: centre x, centre y, width, height, angle."""
    box = xyxy.astype(np.float64)
    centre, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
    return np.concatenate([centre, size, extra[:, :1]], 1)


def move_rows(rows: DetectionRows, form: HasForm, placement: Placement) -> DetectionRows:
    """Move rows from pixels of the input to those of the picture; clip boxes that are upright."""
    origin = np.array([placement.dx, placement.dy], np.float32)
    scale = np.float32(placement.scale)
    xyxy = (rows.xyxy - np.tile(origin, 2)) / scale
    if form.task != "obb":
        xyxy = np.clip(xyxy, 0, np.array(placement.size * 2, np.float32))
    extra = rows.extra
    if form.kpt_shape is not None:
        points = extra.reshape(len(extra), *form.kpt_shape).copy()
        points[..., :2] = (points[..., :2] - origin) / scale
        extra = points.reshape(extra.shape)
    return rows._replace(xyxy=xyxy, extra=extra)


def draw_masks(
    xyxy: Floats, coefficients: Floats, prototypes: Floats, placement: Placement
) -> Iterator[Booleans]:
    """Yield the mask of each box, bool [h, w] at the size of the picture.

    A mask is where the sum of prototypes times the box's coefficients is above zero (its sigmoid
    above one half; Bolya et al. 2019, YOLACT), inside the box only. The sums are computed at the
    size of the prototypes and sampled bilinearly at the centres of the picture's pixels.

    Args:
        xyxy: float32 [n, 4] in pixels of the picture.
        coefficients: float32 [n, C] of each box.
        prototypes: float32 [C, h, w], over the whole input of the model.
        placement: the place of the picture in the input.
    """
    (width, height), imgsz, scale = placement.size, placement.imgsz, placement.scale
    rows = Sampling.of(height, scale, placement.dy, prototypes.shape[1], imgsz[0])
    columns = Sampling.of(width, scale, placement.dx, prototypes.shape[2], imgsz[1])
    sums = np.tensordot(coefficients, prototypes, 1)
    edges = np.ceil(xyxy).astype(int)  # pixel u is inside if left <= u < right
    for values, (left, top, right, bottom) in zip(sums, edges.tolist()):  # noqa: B905  # Python 3.9
        mask = np.zeros((height, width), np.bool_, order="F")
        inside = rows.blend(values, top, bottom)
        mask[top:bottom, left:right] = columns.blend(inside.T, left, right).T > 0
        yield mask


class Sampling(NamedTuple):
    """Where the pixels of a picture lie between cells along one axis."""

    low: Indices
    high: Indices
    share: Floats

    @classmethod
    def of(cls, size: int, scale: float, shift: int, cells: int, side: float) -> Sampling:
        """Place the centres of `size` pixels on `cells` that cover an input of `side` pixels."""
        centres = (np.arange(size) + 0.5) * scale + shift
        at = np.clip(centres * (cells / side) - 0.5, 0, cells - 1)
        low = np.floor(at).astype(np.intp)
        return cls(low, np.minimum(low + 1, cells - 1), (at - low).astype(np.float32))

    def blend(self, values: Floats, start: int, end: int) -> Floats:
        """Sample values [cells, ...] at the pixels from `start` to `end`."""
        share = self.share[start:end, None]
        low, high = values[self.low[start:end]], values[self.high[start:end]]
        blended: Floats = low + (high - low) * share
        return blended


# Suppression ----------------------------------------------------------------------------------

CANDIDATES = 30000
"""Most candidates, the best by score, that enter suppression.

The limit that the YOLO projects use; at 0.001 confidence crowded images come near it, so half of
it would change their mAP, and double costs time only where all are used.
"""
_BLOCK = 256
"""Candidates compared at a time: a matrix of this size squared, 64 kB, fits a core's cache. With
oriented boxes, 30000 by 256 pairs take 60 MB an array. Half of it takes more steps, double more
memory."""
_LEAST = 1e-9
"""Smallest determinant, so that a box without area does not divide by zero."""
_FARTHEST = 100.0
"""Largest Bhattacharyya distance: exp(-100) is 0 beside 1."""


def nms(
    boxes: Floats,
    scores: Floats,
    classes: Indices,
    *,
    iou: float = 0.65,
    top: int = 300,
    candidates: int = CANDIDATES,
) -> Indices:
    """Choose boxes greedily by score, and return their indices by falling score.

    Plain: take the boxes by falling score; keep one unless a kept one of its class overlaps it by
    more than the limit. Here a block of candidates is thinned by the boxes kept so far, then by
    itself:

        keep = all;  repeat  keep[j] = not any(keep[i] and clash[i, j] for i < j)  until it stays

    The value at j depends on smaller i only, so this has one fixed point, the greedy choice. It
    ends at the block in which enough boxes are kept, mostly long before the last candidate.

    Args:
        boxes: float32 [n, 4], x1 y1 x2 y2.
        scores: float32 [n]; equal ones are taken by rising index.
        classes: [n]; boxes of different classes never suppress each other.
        iou: overlap (intersection over union) above which the lower score goes.
        top: most boxes to keep.
        candidates: most candidates to consider, the best by score.
    """
    labels = classes.astype(np.int32)
    order = falling(scores, candidates)
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~_clash(boxes, labels, kept, block, iou).any(0)]
        within = np.triu(_clash(boxes, labels, block, block, iou), 1)
        kept = np.concatenate([kept, block[_settle(within)]])
        if len(kept) >= top:
            break
    return kept[:top]


def falling(scores: Floats, limit: int) -> Indices:
    """Return the indices of the `limit` highest scores, highest first, ties by rising index."""
    if len(scores) > limit:
        least = np.partition(scores, -limit)[-limit]
        chosen = np.flatnonzero(scores >= least)
        return chosen[np.argsort(-scores[chosen], kind="stable")][:limit]
    return np.argsort(-scores, kind="stable")


def _clash(
    boxes: Floats, classes: NDArray[np.int32], first: Indices, second: Indices, iou: float
) -> Booleans:
    """Return [first, second]: whether two boxes share a class and overlap by more than `iou`."""
    clash: Booleans = classes[first][:, None] == classes[second][None, :]
    pairs = np.flatnonzero(clash)  # Few share a class: only their overlap is computed.
    i, j = np.divmod(pairs.astype(np.int32), max(len(second), 1))
    a, b = boxes.take(first.take(i), 0), boxes.take(second.take(j), 0)
    clash.ravel()[pairs] = _overlap_above(
        a, b, iou
    )  # A view: the comparison above made it contiguous.
    return clash


def _overlap_above(a: Floats, b: Floats, iou: float) -> Booleans:
    """Return whether boxes overlap by more than `iou`, pair by pair."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    clash: Booleans = shared > np.maximum(iou * (_area(a) + _area(b) - shared), 0)
    return clash


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _settle(clash: Booleans) -> Booleans:
    keep: Booleans = np.ones(len(clash), np.bool_)
    while True:
        after: Booleans = np.logical_not(clash[keep].any(0))
        if np.array_equal(after, keep):
            return keep
        keep = after


class Gaussians(NamedTuple):
    """The Gaussians of boxes: their means, covariances and determinants, [n] each."""

    x: Doubles
    y: Doubles
    xx: Doubles
    yy: Doubles
    xy: Doubles
    determinant: Doubles

    @classmethod
    def of(cls, boxes: Doubles) -> Gaussians:
        """Take those of boxes [n, 5]; the variance of a uniform side of length s is s^2 / 12."""
        x, y, width, height, angle = boxes.T
        along, across = width**2 / 12, height**2 / 12
        cos, sin = np.cos(angle), np.sin(angle)
        return cls(
            x,
            y,
            along * cos**2 + across * sin**2,
            along * sin**2 + across * cos**2,
            (along - across) * cos * sin,
            along * across,
        )

    def at(self, index: Indices | tuple[slice | None, ...]) -> Gaussians:
        """Return those at some indices."""
        return Gaussians(*(values[index] for values in self))


def overlap(a: Gaussians, b: Gaussians) -> Doubles:
    """Return the overlap of two arrays of oriented boxes, 0 to 1, broadcast against each other.

    It is ProbIoU (Llerena et al. 2021, arXiv 2106.06072): a box stands for the Gaussian with its
    mean and covariance, and two boxes overlap by one minus the Hellinger distance of theirs,

        B = d^T S^-1 d / 8 + ln(det S / sqrt(det A det B)) / 2,   S = (A + B) / 2
        overlap = 1 - sqrt(1 - exp(-B))

    where A and B are the covariances and d is the difference of the means.
    """
    xx, yy, xy = ((p + q) / 2 for p, q in ((a.xx, b.xx), (a.yy, b.yy), (a.xy, b.xy)))
    dx, dy = a.x - b.x, a.y - b.y
    determinant = np.maximum(xx * yy - xy**2, _LEAST)
    shift = (yy * dx**2 + xx * dy**2 - 2 * xy * dx * dy) / determinant / 8
    own = np.sqrt(np.maximum(a.determinant * b.determinant, _LEAST**2))
    distance = np.clip(shift + np.log(determinant / own) / 2, 0, _FARTHEST)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance)))


def fast_nms(
    boxes: Doubles,
    scores: Floats,
    classes: Indices,
    *,
    iou: float = 0.7,
    top: int = 300,
    candidates: int = CANDIDATES,
) -> Indices:
    """Choose oriented boxes by score, and return their indices by falling score.

    A box goes if a better one of its class overlaps it by more than `iou`, also if that one goes
    itself (Fast NMS, Bolya et al. 2019), as YOLO's own tools do with oriented boxes.

    Args:
        boxes: float64 [n, 5].
        scores: float32 [n]; equal ones are taken by rising index.
        classes: [n]; boxes of different classes never suppress each other.
        iou: overlap above which the lower score goes.
        top: most boxes to keep.
        candidates: most candidates to consider, the best by score.
    """
    order = falling(scores, candidates)
    gaussians, labels, place = Gaussians.of(boxes[order]), classes[order], np.arange(len(order))
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = place[start : start + _BLOCK]
        better = place[: start + len(block)]
        rival = (labels[better, None] == labels[block]) & (better[:, None] < block)
        i, j = np.nonzero(rival)
        clash = overlap(gaussians.at(better[i]), gaussians.at(block[j])) > iou
        gone = np.bincount(j[clash], minlength=len(block)) > 0
        kept = np.concatenate([kept, order[block[~gone]]])
        if len(kept) >= top:
            break
    return kept[:top]
