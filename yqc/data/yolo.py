"""Reading a YOLO data set: a YAML that names folders of images, and a label file for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from yqc.data.files import SUFFIXES, in_both, is_dir, is_file, list_images, read_text, reason, show
from yqc.data.sets import Annotations, Data, Object, Split, annotate
from yqc.errors import DataError

_BOX = 5
"""A label line of a box: class, centre x, centre y, width, height, the last four in 0..1."""
_POLYGON = 7
"""A label line of an outline has at least three points after the class."""
_SLACK = 0.01
"""How far outside 0..1 a coordinate may lie, as rounding leaves it."""

_DIGITS = 7
"""A class number has fewer digits than this."""

_Label = tuple[int, list[float]]
"""Class, and centre x, centre y, width, height relative to the image."""


def load_yolo(source: Path) -> Data:
    """Read a data YAML with `path`, `train`, `val` and `names`.

    `path` is relative to the YAML file and may be absent; `train` and `val` are a folder, a `.txt`
    list of images, or a list of such; the labels of `images/a/b.jpg` are in `labels/a/b.txt`. The
    labels of `val` are read at once, so that a bad one is found before any long work; those of
    `train` when somebody asks for them.

    Raises:
        DataError: the YAML or a label is malformed, or `val` has no images or no labels.
    """
    top = _load_yaml(source)
    names = _names(source, top)
    root = source.parent / _text(source, top, "path", ".")
    val = _images(source, top, root, "val")
    if not val:
        raise DataError(f"'val' of {source} holds no images.")
    if not any(is_file(label_file(path)) for path in val):
        raise DataError(
            f"no image of 'val' of {source} has a label file; "
            f"the first should be {label_file(val[0])}."
        )
    labels = _labels(val, names)
    train, absent = _train(source, top, root)
    common = in_both(train, val)
    warnings = [absent] if absent else []
    if common:
        warnings.append(
            f"{len(common)} of the {len(val)} images of 'val' of {source} are in 'train' too, "
            f"such as {common[0].name}: calibration sees what accuracy is measured on"
        )
    return Data(
        kind="yolo",
        source=source,
        names=names,
        train=Split(
            "train", train, lambda: _annotations(train, _labels(train, names), names), absent
        ),
        val=Split("val", val, lambda: _annotations(val, labels, names)),
        common=common,
        warnings=tuple(warnings),
    )


def _annotations(
    images: Sequence[Path], labels: Sequence[list[_Label]], names: Sequence[str]
) -> Annotations:
    objects = [_in_pixels(path, boxes) for path, boxes in zip(images, labels, strict=True)]
    return annotate([path.name for path in images], objects, names)


def _in_pixels(image: Path, labels: list[_Label]) -> list[Object]:
    if not labels:
        return []
    try:
        with Image.open(image) as file:
            width, height = file.size  # The header tells; no pixel is decoded.
    except Exception:  # noqa: BLE001  # PIL raises anything; who reads the pixels names the image
        return []
    return [
        Object(
            cls,
            ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height),
            w * width * h * height,
        )
        for cls, (x, y, w, h) in labels
    ]


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last `images` folder of its path becomes `labels`."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _load_yaml(source: Path) -> dict[Any, Any]:
    text = read_text(source)
    try:
        top = yaml.safe_load(text)
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise DataError(f"{source}{line} is not valid YAML: {e.problem}.") from e
    except Exception as e:  # the loader lets ValueError, KeyError, RecursionError and more through
        raise DataError(f"{source} is not valid YAML: {reason(e)}.") from e
    if not isinstance(top, dict):
        raise DataError(f"{source} is no data YAML: expected 'path', 'train', 'val' and 'names'.")
    return top


def _names(source: Path, top: dict[Any, Any]) -> tuple[str, ...]:
    names, nc = top.get("names"), top.get("nc")
    if nc is not None and (not isinstance(nc, int) or isinstance(nc, bool) or nc < 1):
        raise DataError(f"{source}: 'nc' must be a positive whole number, not {show(nc)}.")
    if isinstance(names, dict):
        keys = {_class_key(key): key for key in names}
        if set(keys) != set(range(len(names))):
            raise DataError(f"{source}: the keys of 'names' must count from 0 without gaps.")
        names = [names[keys[i]] for i in range(len(keys))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{source}: 'names' must be a list of class names, or a map from 0, 1, ...")
    if not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{source}: a class name in 'names' is not text.")
    if nc is not None and nc != len(names):
        raise DataError(f"{source}: 'nc' is {show(nc)} but 'names' has {len(names)} classes.")
    return tuple(name if isinstance(name, str) else show(name) for name in names)


def _class_key(key: object) -> object:
    """The class number that a key of `names` is, also where it is written as text."""
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < _DIGITS else key


def _text(source: Path, top: dict[Any, Any], key: str, default: str) -> str:
    value = top.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise DataError(f"{source}: '{key}' must be a path, not {show(value)}.")
    return value


def _train(source: Path, top: dict[Any, Any], root: Path) -> tuple[tuple[Path, ...], str]:
    """The images of `train`, or why there are none: evaluation does not need them."""
    try:
        images = _images(source, top, root, "train")
    except DataError as e:
        return (), str(e).rstrip(".")
    return images, "" if images else f"'train' of {source} holds no images"


def _images(source: Path, top: dict[Any, Any], root: Path, key: str) -> tuple[Path, ...]:
    entries = top.get(key)
    if isinstance(entries, str):
        entries = [entries]
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(
            f"{source}: '{key}' must be a folder of images, a .txt list, or a list of these."
        )
    found: dict[Path, None] = {}  # An image that two entries name is one image.
    for entry in entries:
        found.update(dict.fromkeys(_entry(source, root, key, entry)))
    return tuple(found)


def _entry(source: Path, root: Path, key: str, entry: str) -> tuple[Path, ...]:
    place = root / entry
    if entry.startswith("../") and not is_dir(place) and not is_file(place):
        place = root / entry[3:]  # Exports of labelling services write it so, one level too high.
    if is_dir(place):
        return list_images(place.resolve())
    if is_file(place) and place.suffix.lower() == ".txt":
        return _listed(place.resolve(), root.resolve())
    if is_file(place) and place.suffix.lower() in SUFFIXES:
        return (place.resolve(),)
    raise DataError(
        f"{source}: '{key}' names {root / entry}, which does not exist as a folder or .txt list."
    )


def _listed(listing: Path, root: Path) -> tuple[Path, ...]:
    lines = [line.strip() for line in read_text(listing).splitlines() if line.strip()]
    if lines and not is_file(listing.parent / lines[0]) and is_file(root / lines[0]):
        return tuple(root / line for line in lines)
    return tuple(listing.parent / line for line in lines)


def _labels(images: Sequence[Path], names: Sequence[str]) -> list[list[_Label]]:
    """The labels of each image."""
    return [_label_lines(label_file(image), len(names)) for image in images]


def _label_lines(path: Path, nc: int) -> list[_Label]:
    if not is_file(path):
        return []  # An image without a label file shows none of the classes.
    numbered: dict[str, int] = {}
    for n, line in enumerate(read_text(path).splitlines(), 1):
        numbered.setdefault(line.strip(), n)  # The same line twice is the same object.
    return [_label(f"{path}:{n}", line.split(), nc) for line, n in numbered.items() if line]


def _label(where: str, words: list[str], nc: int) -> _Label:
    try:
        cls, *values = map(float, words)
    except ValueError as e:
        raise DataError(f"{where} is no label: {show(' '.join(words))}.") from e
    if not cls.is_integer() or not 0 <= cls < nc:
        raise DataError(f"{where} names class {words[0]:.20}, and the classes are 0 to {nc - 1}.")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in values):
        raise DataError(
            f"{where} has a coordinate outside 0..1; YOLO labels are relative to the image."
        )
    if len(words) >= _POLYGON and len(words) % 2:
        return int(cls), _around(values)
    if len(words) != _BOX:
        raise DataError(f"{where} has {len(words)} numbers; a label is class, x, y, width, height.")
    if min(values[2:]) < 0:
        raise DataError(f"{where} has a negative width or height.")
    return int(cls), values


def _around(outline: list[float]) -> list[float]:
    """The box around an outline x1 y1 x2 y2 ... as centre and size."""
    xs, ys = outline[0::2], outline[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
