"""Read a data set for a classifier: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`, as Ultralytics does.

The classes are the folders by name, in the order of their names.
"""

from pathlib import Path

from yqc.data.files import is_dir, list_images
from yqc.data.sets import Annotations, Data, Object, Split, annotate
from yqc.errors import DataError

SPLITS = ("train", "val")
_NO_CLASSES = {"images", "labels"}
"""Folders that detectors' data sets have within `train` and `val`."""


def has_classes(folder: Path) -> bool:
    """Whether a folder has `train` and `val`, each of two classes or more and no other image."""
    return all(_holds_classes(folder / split, 2) for split in SPLITS)


def is_for_classifier(folder: Path) -> bool:
    """Whether the `train` or the `val` in a folder holds a class, and no other image."""
    return any(_holds_classes(folder / split, 1) for split in SPLITS)


def _holds_classes(part: Path, fewest: int) -> bool:
    if not is_dir(part):
        return False
    names = {one.name for one in part.iterdir() if one.is_dir()}
    loose = any(image.parent == part.resolve() for image in list_images(part.resolve()))
    return len(names) >= fewest and not names & _NO_CLASSES and not loose


def load_classes(folder: Path) -> Data:
    """Read class folders; a further folder, such as `test`, is left alone, and `train` may lack.

    Raises:
        DataError: there is no `val`, the classes of `train` and `val` differ, or there is no image.
    """
    if not is_dir(folder / "val"):
        raise DataError(
            f"{folder} has folders of classes in train and no val, which accuracy is measured on; "
            "give a folder that holds train/CLASS and val/CLASS."
        )
    found = {split: _class_names(folder / split) for split in SPLITS if is_dir(folder / split)}
    for one, other in (SPLITS, SPLITS[::-1]):
        if missing := sorted(found.get(one, set()) - found.get(other, found["val"])):
            raise DataError(
                f"{folder}: the class folder '{missing[0]}' is in {one} and not in {other}; both "
                "must have the same classes."
            )
    names = tuple(sorted(found["val"]))
    train, val = (_split(folder / split, split, names) for split in SPLITS)
    if not val.images:
        raise DataError(f"there is no image in the class folders of {folder / 'val'}.")
    return Data("classes", folder, names, train, val)


def _class_names(part: Path) -> set[str]:
    return {one.name for one in part.iterdir() if one.is_dir() and not one.name.startswith(".")}


def _split(part: Path, name: str, names: tuple[str, ...]) -> Split:
    if not is_dir(part):
        return Split(name, (), absent=f"there is no folder {part}")
    lists = [list_images((part / each).resolve()) for each in names]
    images = [(path, cls) for cls, paths in enumerate(lists) for path in paths]

    def read() -> Annotations:
        nowhere = (0.0, 0.0, 0.0, 0.0)  # the whole image is of the class
        objects = [[Object(cls, nowhere, 0.0)] for _, cls in images]
        return annotate([path.name for path, _ in images], objects, names)

    absent = "" if images else f"there is no image in the class folders of {part}"
    return Split(name, tuple(path for path, _ in images), read, absent)
