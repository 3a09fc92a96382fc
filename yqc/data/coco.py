"""Reading a COCO instances JSON (Lin et al. 2014): images, objects, categories with any ids."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yqc.data.files import is_dir, is_file, reason, show
from yqc.data.sets import Data, Object, Split, annotate
from yqc.errors import DataError


def load_coco(source: Path, images: Path | None = None) -> Data:
    """Read an instances file: the first half is for calibration, the second for evaluation.

    Images are taken by rising id, and those that are not on this disk are left out. Class i is the
    i-th category by rising id.

    Args:
        source: the JSON file.
        images: the folder its `file_name`s are in; by default the usual places are tried.

    Raises:
        DataError: the file is malformed, or none of its images is found.
    """
    entries, objects, categories = _tables(source)
    classes = _classes(source, categories)
    files = _files(source, entries)
    folder = images or _image_folder(source, next(iter(files.values())))
    if not is_dir(folder):
        raise DataError(f"{folder}, the folder of the images of {source}, does not exist.")
    found = {i: folder / name for i, name in files.items() if is_file(folder / name)}
    if not found:
        raise DataError(
            f"none of the {len(files)} images of {source} is in {folder}; "
            f"give their folder with --images."
        )
    missing = len(files) - len(found)
    boxes = _objects(source, objects, files, classes)
    names = tuple(name for _, name in sorted(classes.values()))
    ids, half = list(found), len(found) // 2

    def split(name: str, part: Sequence[int | str]) -> Split:
        return Split(
            name,
            tuple(found[i] for i in part),
            lambda: annotate([files[i] for i in part], [boxes.get(i, ()) for i in part], names),
        )

    return Data(
        kind="coco",
        source=source,
        names=names,
        train=split("train", ids[:half]),
        val=split("val", ids[half:]),
        warnings=(f"{missing} of {len(files)} images of {source} are not in {folder}",)
        if missing
        else (),
    )


def _tables(source: Path) -> tuple[list[Any], list[Any], list[Any]]:
    try:
        top = json.loads(source.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise DataError(f"{source} cannot be read as JSON: {reason(e)}.") from e
    if not isinstance(top, dict):
        raise DataError(f"{source} is no COCO instances file: its top is not an object.")
    tables = [top.get(key) for key in ("images", "annotations", "categories")]
    for key, table in zip(("images", "annotations", "categories"), tables, strict=True):
        if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
            raise DataError(
                f"{source} is no COCO instances file: '{key}' is not a list of objects."
            )
    return tables[0], tables[1], tables[2]  # type: ignore[return-value]  # just checked


def _classes(source: Path, categories: list[dict[str, Any]]) -> dict[int, tuple[int, str]]:
    """Category id -> (class, name)."""
    found: dict[int, str] = {}
    for entry in categories:
        number: Any = entry.get("id")
        name = entry.get("name")
        if not _is_int(number) or not isinstance(name, str):
            raise DataError(
                f"{source}: a category needs an integer 'id' and a text 'name', not {show(entry)}."
            )
        if number in found:
            raise DataError(f"{source}: the category id {number} occurs twice.")
        found[number] = name
    if not found:
        raise DataError(f"{source} has no categories.")
    return {number: (i, found[number]) for i, number in enumerate(sorted(found))}


def _files(source: Path, entries: list[dict[str, Any]]) -> dict[int | str, str]:
    """Image id -> file name, by rising id."""
    found: dict[int | str, str] = {}
    for entry in entries:
        number: Any = entry.get("id")
        name = entry.get("file_name")
        if not (_is_int(number) or isinstance(number, str)) or not isinstance(name, str):
            raise DataError(
                f"{source}: an image needs an 'id' and a text 'file_name', not {show(entry)}."
            )
        if number in found:
            raise DataError(f"{source}: the image id {number} occurs twice.")
        found[number] = name
    if not found:
        raise DataError(f"{source} has no images.")
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _objects(
    source: Path,
    entries: list[dict[str, Any]],
    files: dict[int | str, str],
    classes: dict[int, tuple[int, str]],
) -> dict[int | str, list[Object]]:
    """Image id -> its objects; as in pycocotools, objects of unlisted images are ignored."""
    found: dict[int | str, list[Object]] = {}
    for i, entry in enumerate(entries):
        image, category, box = (entry.get(key) for key in ("image_id", "category_id", "bbox"))
        if not (_is_int(image) or isinstance(image, str)):
            raise DataError(f"{source}: annotation {i} has no 'image_id': {show(entry)}.")
        if image not in files:
            continue
        if not _is_int(category) or category not in classes:
            raise DataError(f"{source}: annotation {i} has an unknown category: {show(entry)}.")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):  # noqa: PLR2004
            raise DataError(f"{source}: the 'bbox' of annotation {i} is not four finite numbers.")
        area = entry.get("area", box[2] * box[3])
        if not _is_number(area):
            raise DataError(f"{source}: the 'area' of annotation {i} is not a finite number.")
        left, top, width, height = map(float, box)
        found.setdefault(image, []).append(
            Object(
                classes[category][0],
                (left, top, width, height),
                float(area),
                entry.get("iscrowd") in (1, True),
            )
        )
    return found


def _image_folder(source: Path, first: str) -> Path:
    """Where images usually are: beside it; for `annotations/instances_X.json` also `images/X`."""
    part = source.stem.removeprefix("instances_")
    up = source.parent.parent
    places = [
        source.parent,
        source.parent / "images",
        up / "images" / part,
        up / part,
        up / "images",
    ]
    for place in places:
        if is_file(place / first):
            return place
    raise DataError(
        f"the images of {source} are not beside it (the first is {show(first)}); "
        f"give their folder with --images."
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False
