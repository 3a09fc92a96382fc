"""Read a COCO instances JSON (Lin et al. 2014): images, objects, categories with any ids."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from yqc.data.coco_shapes import Shaped, draw_shape, is_number, read_shape
from yqc.data.files import is_dir, is_file, reason, shorten
from yqc.data.outlines import say_boxes_only
from yqc.data.pixels import Frame, find_frame
from yqc.data.sets import Annotations, Data, Labelling, Object, Split, annotate
from yqc.errors import DataError

Id = int | str
"""An id; text of digits is the same as the number."""
BOXES_ONLY = Labelling()
_DIGITS = 4000
"""Text of more digits than this is no number: Python refuses to convert more than 4300."""


class Listed(NamedTuple):
    """An entry of the table of images."""

    file_name: str
    size: tuple[int, int] | None
    """Width and height that it states, None without."""

    def is_stored(self, frame: Frame) -> bool:
        """Whether it describes the pixels of the file, before EXIF turns them."""
        return self.size == frame.stored != frame.size


@dataclass
class CocoObjects:
    """The objects of the images, and what was found beside them."""

    by_image: dict[Id, list[Shaped]]
    unlisted: int = 0
    """Annotations of images that are not in the table of images."""
    repeated: int = 0
    """Annotations that equal another one of the same image in category, box and crowd."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many objects there are, with an outline, and with keypoints."""
        found = [one for things in self.by_image.values() for one in things]
        outlined = sum(one.outline is not None for one in found)
        return len(found), outlined, sum(bool(one.thing.keypoints) for one in found)


def load_coco(source: Path, images: Path | None = None, labelling: Labelling = BOXES_ONLY) -> Data:
    """Read instances or keypoints: the first half is for calibration, the second for evaluation.

    Images are taken by rising id, and those that are not on this disk are left out. Class i is the
    i-th category by rising id. CocoObjects are in pixels of the upright image, unless 'width' and
    'height' of an image are those of its pixels before EXIF turns them: then they are turned, too.

    Args:
        source: the JSON file.
        images: the folder its `file_name`s are in; by default the usual places are tried.
        labelling: what is read beside the boxes.

    Raises:
        DataError: the file is malformed, or none of its images is found.
    """
    if labelling.task == "obb":
        raise DataError(
            f"{source} is a COCO JSON, which has no oriented boxes; give a data YAML whose label "
            "lines are class and four corners."
        )
    entries, objects, categories = _tables(source)
    classes = _classes(source, categories)
    listed = _listed(source, entries)
    folder = images or _image_folder(source, next(iter(listed.values())).file_name)
    if not is_dir(folder):
        raise DataError(f"{folder}, the folder of the images of {source}, does not exist.")
    found = {i: folder / entry.file_name for i, entry in listed.items()}
    found = {i: path for i, path in found.items() if is_file(path)}
    if not found:
        raise DataError(
            f"none of the {len(listed)} images of {source} is in {folder}; "
            f"give their folder with --images."
        )
    boxes = _objects(source, objects, listed, classes, labelling)
    ids, half = list(found), len(found) // 2
    _check_runs(source, boxes, {i: (found[i], listed[i]) for i in ids[half:]})
    count, outlined, with_keypoints = boxes.counts
    if labelling.task == "pose" and not with_keypoints:
        raise DataError(f"{source} has no keypoints, and this model predicts them.")
    names = tuple(name for _, name in sorted(classes.values()))

    def split(name: str, part: Sequence[Id]) -> Split:
        def annotations() -> Annotations:
            things = [
                _upright(boxes.by_image.get(i, []), listed[i], found[i], masks=bool(outlined))
                for i in part
            ]
            return annotate([listed[i].file_name for i in part], things, names)

        return Split(name, tuple(found[i] for i in part), annotations)

    warnings = []
    if missing := len(listed) - len(found):
        warnings.append(f"{missing} of {len(listed)} images of {source} are not in {folder}")
    warnings += _complaints(source, boxes)
    if labelling.task == "segment":
        warnings += say_boxes_only(f"annotations of {source}", count, outlined)
    warnings += _compare_sizes(source, {found[i]: listed[i] for i in ids[half:]})
    return Data(
        kind="coco",
        source=source,
        names=names,
        train=split("train", ids[:half]),
        val=split("val", ids[half:]),
        warnings=tuple(warnings),
    )


def _check_runs(source: Path, boxes: CocoObjects, images: Mapping[Id, tuple[Path, Listed]]) -> None:
    """Raise a DataError where run lengths are of another size than the file of their image."""
    for i, (path, entry) in images.items():
        outlines = [one.outline for one in boxes.by_image.get(i, ()) if one.outline]
        if not all(one.polygons for one in outlines) and (frame := find_frame(path)):
            size = frame.stored if entry.is_stored(frame) else frame.size
            for one in outlines:
                one.check_size(f"{source}: an annotation of {entry.file_name}", size)


def _complaints(source: Path, boxes: CocoObjects) -> list[str]:
    """Say which annotations do not count."""
    said = []
    if boxes.unlisted:
        said.append(
            f"{boxes.unlisted} annotations of {source} are of images that it does not list: "
            "they are left out"
        )
    if boxes.repeated:
        said.append(f"{boxes.repeated} boxes of {source} are written twice and count once")
    return said


def _upright(objects: list[Shaped], entry: Listed, path: Path, *, masks: bool) -> list[Object]:
    """Draw the objects of an image, turned where its entry describes the pixels before EXIF."""
    frame = find_frame(path) if entry.size or masks else None
    if frame is None:
        return [each.thing for each in objects]
    stored = entry.is_stored(frame)
    size = frame.stored if stored else frame.size
    turned = frame if stored else None
    return [draw_shape(each, size, turned, masks=masks) for each in objects]


def _compare_sizes(source: Path, images: Mapping[Path, Listed]) -> list[str]:
    """Say which images have another size than the file states."""
    turned, other = [], []
    for path, entry in images.items():
        if entry.size is None or (frame := find_frame(path)) is None:
            continue
        if entry.is_stored(frame):
            turned.append(path)
        elif entry.size != frame.size:
            other.append(path)
    said = []
    if turned:
        said.append(
            f"{source} describes {len(turned)} images as they are before EXIF turns them, such as "
            f"{turned[0].name}: their boxes are turned, too"
        )
    if other:
        said.append(
            f"{len(other)} images have another size than {source} says, such as {other[0].name}: "
            "boxes are taken as pixels of the image file"
        )
    return said


def _tables(source: Path) -> tuple[list[Any], list[Any], list[Any]]:
    try:
        top = json.loads(source.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise DataError(f"{source} cannot be read as JSON: {reason(e)}.") from e
    if not isinstance(top, dict):
        raise DataError(f"{source} is no COCO instances file: its top is not an object.")
    for key in ("images", "annotations", "categories"):
        table = top.get(key)
        if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
            raise DataError(
                f"{source} is no COCO instances file: '{key}' is not a list of objects."
            )
    return top["images"], top["annotations"], top["categories"]


def _classes(source: Path, categories: list[dict[str, Any]]) -> dict[Id, tuple[int, str]]:
    """Return category id -> (class, name)."""
    found: dict[int, str] = {}
    for entry in categories:
        number, name = _id(entry.get("id")), entry.get("name")
        if not isinstance(number, int) or not isinstance(name, str):
            raise DataError(
                f"{source}: a category needs an integer 'id' and a text 'name', "
                f"not {shorten(entry)}."
            )
        if number in found:
            raise DataError(f"{source}: the category id {number} occurs twice.")
        found[number] = name
    if not found:
        raise DataError(f"{source} has no categories.")
    return {number: (i, found[number]) for i, number in enumerate(sorted(found))}


def _listed(source: Path, entries: list[dict[str, Any]]) -> dict[Id, Listed]:
    """Return image id -> entry, by rising id."""
    found: dict[Id, Listed] = {}
    for entry in entries:
        number, name = _id(entry.get("id")), entry.get("file_name")
        if number is None or not isinstance(name, str):
            raise DataError(
                f"{source}: an image needs an 'id' and a text 'file_name', not {shorten(entry)}."
            )
        if number in found:
            raise DataError(f"{source}: the image id {number} occurs twice.")
        size = entry.get("width"), entry.get("height")
        stated = all(isinstance(side, int) and side > 0 for side in size)
        found[number] = Listed(name, size if stated else None)  # type: ignore[arg-type]
    if not found:
        raise DataError(f"{source} has no images.")
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _objects(
    source: Path,
    entries: list[dict[str, Any]],
    listed: Mapping[Id, Listed],
    classes: Mapping[Id, tuple[int, str]],
    labelling: Labelling,
) -> CocoObjects:
    """Return the objects of each image; as in pycocotools, those of unlisted images are ignored."""
    found = CocoObjects({})
    for i, entry in enumerate(entries):
        image, category, box = (entry.get(key) for key in ("image_id", "category_id", "bbox"))
        if (number := _id(image)) is None:
            raise DataError(f"{source}: annotation {i} has no 'image_id': {shorten(entry)}.")
        if number not in listed:
            found.unlisted += 1
            continue
        if (kind := _id(category)) is None or kind not in classes:
            raise DataError(f"{source}: annotation {i} has an unknown category: {shorten(entry)}.")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):  # noqa: PLR2004
            raise DataError(f"{source}: the 'bbox' of annotation {i} is not four finite numbers.")
        area = entry.get("area", box[2] * box[3])
        if not is_number(area):
            raise DataError(f"{source}: the 'area' of annotation {i} is not a finite number.")
        left, top, width, height = map(float, box)
        crowd = entry.get("iscrowd") in (1, True)
        thing = Object(classes[kind][0], (left, top, width, height), float(area), crowd)
        where = f"{source}: annotation {i}"
        shaped = read_shape(where, entry, thing, labelling)
        if shaped.outline:
            shaped.outline.check_size(where, listed[number].size)
        found.by_image.setdefault(number, []).append(shaped)
    for number, things in found.by_image.items():
        distinct = {each.same: each for each in reversed(things)}
        found.repeated += len(things) - len(distinct)
        found.by_image[number] = list(distinct.values())[::-1]
    return found


def _image_folder(source: Path, first: str) -> Path:
    """Return where images usually are: beside it; for `annotations/instances_X.json` `images/X`."""
    part = source.stem.removeprefix("instances_")
    for name in (".", "images", f"../images/{part}", f"../{part}", "../images"):
        if is_file(source.parent / name / first):
            return source.parent / name
    raise DataError(
        f"the images of {source} are not beside it (the first is {shorten(first)}); "
        f"give their folder with --images."
    )


def _id(value: object) -> Id | None:
    """Return an id as a number where it is one, also if written as text or 7.0; None if no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        plain = value.isascii() and value.isdecimal() and len(value) <= _DIGITS
        return int(value) if plain and str(int(value)) == value else value
    return value if isinstance(value, int) else None
