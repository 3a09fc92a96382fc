"""Read a YOLO data set: a YAML that names folders of images, and a label file for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from yqc.data.files import SUFFIXES, is_dir, is_file, list_images, read_text, reason, shorten
from yqc.data.label_lines import LabelKind
from yqc.data.labels import Labels, label_file
from yqc.data.sets import Annotations, Data, Labelling, Split, annotate
from yqc.errors import DataError

_DIGITS = 7
"""A class number has fewer digits than this, so that reading one as text takes no time."""


def load_yolo(source: Path, labelling: Labelling, *, strict: bool = False) -> Data:
    """Read a data YAML with `path`, `train`, `val`, `names`, perhaps `channels` and `kpt_shape`.

    `path` is relative to the YAML file and may be absent; `train` and `val` are a folder, a `.txt`
    list of images, or a list of such; the labels of `images/a/b.jpg` are in `labels/a/b.txt`. The
    labels of `val` are read at once, so that a bad one is found before any long work; those of
    `train` on first use.

    What a label line holds is decided by `labelling` and by `kpt_shape` of the YAML.

    A bad label line is an error if `strict`; otherwise its image is left out, as trainers do, and
    `warnings` says how many are.

    Raises:
        DataError: the YAML (or, if `strict`, a label) is malformed, or `val` has no images or no
            labels.
    """
    top = _load_yaml(source)
    names, path = _names(source, top), top.get("path") or "."
    if not isinstance(path, str):
        raise DataError(f"{source}: 'path' must be a path, not {shorten(path)}.")
    root = source.parent / path
    images = _images(source, top, root, "val")
    if not images:
        raise DataError(f"'val' of {source} holds no images.")
    files = tuple(map(label_file, images))
    if not any(map(is_file, files)):
        _refuse_bitmaps(source, images, files)
        raise DataError(
            f"no image of 'val' of {source} has a label file; the first should be {files[0]}."
        )
    kind = LabelKind(len(names), labelling.task, _kpt_shape(source, top, labelling))
    labels = Labels(images, files, kind, strict)
    if len(labels.bad) == len(images):
        raise DataError(
            f"every image of 'val' of {source} has a bad label, such as: {labels.bad[0]}."
        )
    good = labels.without_bad()
    train, absent = _train(source, top, root)
    owners = tuple(map(label_file, train))

    def read_train() -> Annotations:
        return _annotations(Labels(train, owners, kind, strict), names)

    def read_val() -> Annotations:
        return _annotations(good, names)

    return Data(
        kind="yolo",
        source=source,
        names=names,
        channels=_channels(source, top),
        train=Split("train", train, read_train, absent, owners),
        val=Split("val", tuple(good.images), read_val, labels=tuple(good.files)),
        warnings=(*filter(None, [absent]), *labels.complaints(f"'val' of {source}")),
    )


def _annotations(labels: Labels, names: Sequence[str]) -> Annotations:
    return annotate([path.name for path in labels.images], labels.objects(), names)


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
        raise DataError(f"{source}: 'nc' must be a positive whole number, not {shorten(nc)}.")
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
        raise DataError(f"{source}: 'nc' is {shorten(nc)} but 'names' has {len(names)} classes.")
    return tuple(name if isinstance(name, str) else shorten(name) for name in names)


def _channels(source: Path, top: dict[Any, Any]) -> int | None:
    """Return `channels`, as Ultralytics trains with them; None where it is absent."""
    found = top.get("channels")
    if found is not None and (type(found) is not int or found < 1):
        raise DataError(
            f"{source}: 'channels' must be a positive whole number, not {shorten(found)}."
        )
    return found


def _kpt_shape(source: Path, top: dict[Any, Any], labelling: Labelling) -> tuple[int, int] | None:
    """Return `kpt_shape`, which a data set of keypoints must have; None where it is absent.

    Raises:
        DataError: it is malformed, absent from data for a pose model, or of another number of
            keypoints than the model's.
    """
    found, wanted = top.get("kpt_shape"), labelling.keypoints
    if found is None:
        if labelling.task != "pose":
            return None
        raise DataError(
            f"{source} has no 'kpt_shape': a data set of keypoints says kpt_shape: [K, 2] or "
            "[K, 3], K the number of keypoints of an object."
        )
    match found:
        case [int(count), 2 | 3 as numbers] if count > 0 and count is not True:
            if labelling.task == "pose" and wanted not in (None, count):
                raise DataError(
                    f"{source} has {count} keypoints an object (kpt_shape), and the model "
                    f"predicts {wanted}; give the data that the model was trained on."
                )
            return count, numbers
    raise DataError(f"{source}: 'kpt_shape' must be [K, 2] or [K, 3], not {shorten(found)}.")


def _refuse_bitmaps(source: Path, images: Sequence[Path], files: Sequence[Path]) -> None:
    """Raise a DataError where the labels are masks as images, which YOLO trainers do not read."""
    for image, file in zip(images, files, strict=True):
        parts = ["masks" if part == "images" else part for part in image.parts]
        for one in (file.with_suffix(".png"), Path(*parts).with_suffix(".png")):
            if one != image and is_file(one):
                raise DataError(
                    f"the labels of 'val' of {source} are bitmaps, such as {one}; write outlines "
                    "in their place, a line an object: class x1 y1 x2 y2 ..., relative to the "
                    "image (cv2.findContours finds them)."
                )


def _class_key(key: object) -> object:
    """Return a key of `names` as a number where it is one written as text."""
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < _DIGITS else key


def _train(source: Path, top: dict[Any, Any], root: Path) -> tuple[tuple[Path, ...], str]:
    """Return the images of `train`, or why there are none: evaluation does not need them."""
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
