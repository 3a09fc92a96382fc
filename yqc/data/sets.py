"""What a data set is to yqc: images in two halves, and COCO annotations made when asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from yqc.errors import DataError


class Object(NamedTuple):
    """One labelled object, whatever kind of file it came from."""

    cls: int
    """Class, from 0."""
    bbox: tuple[float, float, float, float]
    """Left, top, width, height in pixels of the image file."""
    area: float
    """Square pixels."""
    crowd: bool = False
    """Whether the box stands for a crowd, which no detection has to find."""


class ImageEntry(TypedDict):
    """One image of `Annotations`."""

    id: int
    file_name: str


class BoxEntry(TypedDict):
    """One object of `Annotations`, measured as in `Object`."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int


class CategoryEntry(TypedDict):
    """One class; class i of the model is category i + 1."""

    id: int
    name: str


class Annotations(TypedDict):
    """COCO instances (Lin et al. 2014) with ids of yqc's own, whatever the source numbered them.

    The image at position i of `Split.images` has the id i + 1, class c the category id c + 1, and
    objects count from 1: pycocotools takes an object with the id 0 for a missing one.
    """

    images: list[ImageEntry]
    annotations: list[BoxEntry]
    categories: list[CategoryEntry]


def annotate(
    files: Sequence[str], objects: Sequence[Sequence[Object]], names: Sequence[str]
) -> Annotations:
    """Annotations of `files`, given the objects in each of them."""
    flat = [(image, thing) for image, things in enumerate(objects, 1) for thing in things]
    return {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(files, 1)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": thing.cls + 1,
                "bbox": list(thing.bbox),
                "area": thing.area,
                "iscrowd": int(thing.crowd),
            }
            for i, (image, thing) in enumerate(flat, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }


@dataclass(frozen=True)
class Split:
    """One half of a data set: `train`, read for calibration, or `val`, read once for the report."""

    name: str
    images: tuple[Path, ...]
    """Absolute paths in the order in which they are read."""
    read: Callable[[], Annotations] | None = field(default=None, repr=False, compare=False)
    """Makes the annotations; None where there are only images."""
    absent: str = ""
    """Why there are no images, for the error of whoever needs some."""

    @cached_property
    def annotations(self) -> Annotations | None:
        """The objects in these images, read on first use; None for a folder of images.

        Raises:
            DataError: a label file or an annotation is malformed.
        """
        return self.read() if self.read else None


@dataclass(frozen=True)
class Data:
    """A data set as `load_data` found it."""

    kind: Literal["yolo", "coco", "folder"]
    source: Path
    names: tuple[str, ...] | None
    """Class names in class order; None for a folder of images."""
    train: Split
    val: Split
    common: tuple[Path, ...] = ()
    """Images of `val` that are in `train` too, by file or by content."""
    warnings: tuple[str, ...] = ()
    """What a report should say about this data, a sentence each."""


def check_classes(data: Data, nc: int, names: Sequence[str] | None = None) -> str | None:
    """Compare the classes of a model with those of the data.

    Args:
        data: the data set; a folder of images fits any model.
        nc: how many classes the model predicts.
        names: the model's class names in class order, where it has any.

    Returns:
        A sentence about the first class whose name differs, or None.

    Raises:
        DataError: the numbers of classes differ.
    """
    if data.names is None:
        return None
    if len(data.names) != nc:
        raise DataError(
            f"{data.source} has {len(data.names)} classes but the model predicts {nc}; "
            f"give the data that the model was trained on."
        )
    for i, (ours, theirs) in enumerate(zip(data.names, names or data.names, strict=False)):
        if ours.strip().lower() != theirs.strip().lower():
            return f"class {i} is '{ours}' in {data.source.name} and '{theirs}' in the model"
    return None
