"""Data sets in memory: images in two splits, and COCO annotations that are made on first use."""

import hashlib
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from yqc.data.files import content_hash
from yqc.data.outlines import Mask
from yqc.errors import DataError
from yqc.facts import OutputForm, Task


class Object(NamedTuple):
    """One labelled object."""

    cls: int
    """Class, from 0."""
    bbox: tuple[float, float, float, float]
    """Left, top, width, height in pixels of the upright image."""
    area: float
    """Square pixels."""
    crowd: bool = False
    """Whether the box stands for a crowd, which no detection has to find."""
    mask: Mask | None = None
    """Its pixels, where masks are labelled and read."""
    keypoints: tuple[float, ...] = ()
    """x, y and visibility of each keypoint, where these are labelled and read."""
    rotated: tuple[float, ...] = ()
    """Centre x, centre y, width, height, angle in radians, of an oriented box."""

    @property
    def shape(self) -> "ShapeEntry":
        """What is known of it beside the box, as `Annotations` hold it."""
        found: ShapeEntry = {}
        if self.mask is not None:
            found["segmentation"] = self.mask
        if self.keypoints:
            found["keypoints"] = list(self.keypoints)
            found["num_keypoints"] = sum(seen > 0 for seen in self.keypoints[2::3])
        if self.rotated:
            found["rotated"] = list(self.rotated)
        return found


class ShapeEntry(TypedDict, total=False):
    """What an object of `Annotations` has beside its box, if anything."""

    segmentation: Mask
    keypoints: list[float]
    num_keypoints: int
    """How many of them are labelled."""
    rotated: list[float]


class Labelling(NamedTuple):
    """What is read of the labels of a data set: what a model's task needs."""

    task: Task = "detect"
    keypoints: int | None = None
    """Keypoints of an object, where the model is known."""

    @classmethod
    def of(cls, form: OutputForm | None) -> "Labelling":
        """Take what the outputs of a model need; of what is no YOLO model, boxes."""
        if form is None:
            return cls()
        return cls(form.task, form.kpt_shape[0] if form.kpt_shape else None)


class ImageEntry(TypedDict):
    """One image of `Annotations`."""

    id: int
    file_name: str


class BoxEntry(ShapeEntry):
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
    """COCO instances (Lin et al. 2014) under ids of yqc's own.

    The image at position i of `Split.images` has the id i + 1, class c the category id c + 1, and
    objects count from 1: pycocotools takes an object with the id 0 for a missing one.
    """

    images: list[ImageEntry]
    annotations: list[BoxEntry]
    categories: list[CategoryEntry]


def annotate(
    files: Sequence[str], objects: Sequence[Sequence[Object] | None], names: Sequence[str]
) -> Annotations:
    """Make annotations of `files` from the objects in each; one with None is left out."""
    flat = [(image, thing) for image, things in enumerate(objects, 1) for thing in things or ()]
    return {
        "images": [
            {"id": i, "file_name": name}
            for i, (name, things) in enumerate(zip(files, objects, strict=True), 1)
            if things is not None
        ],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": thing.cls + 1,
                "bbox": list(thing.bbox),
                "area": thing.area,
                "iscrowd": int(thing.crowd),
                **thing.shape,
            }
            for i, (image, thing) in enumerate(flat, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }


@dataclass(frozen=True)
class Split:
    """One part of a data set: `train`, read for calibration, or `val`, read once for the report."""

    name: str
    images: tuple[Path, ...]
    """Absolute paths in the order in which they are read."""
    read: Callable[[], Annotations] | None = field(default=None, repr=False, compare=False)
    """Makes the annotations; None where there are only images."""
    absent: str = ""
    """Why there are no images, for the error of a caller that needs some."""
    labels: tuple[Path, ...] = ()
    """The label file of each image, whether or not it exists; empty where one file has them all."""

    @cached_property
    def annotations(self) -> Annotations | None:
        """The objects in these images, read on first use; None for a folder of images.

        Raises:
            DataError: a label file or an annotation is malformed.
        """
        return self.read() if self.read else None

    def pick(self, name: str, positions: Sequence[int]) -> "Split":
        """Return some of the images as a split of its own, with their annotations."""
        images = tuple(self.images[i] for i in positions)
        labels = tuple(self.labels[i] for i in positions) if self.labels else ()
        read = partial(self._pick_annotations, tuple(positions)) if self.read else None
        return Split(name, images, read, self.absent, labels)

    def _pick_annotations(self, positions: tuple[int, ...]) -> Annotations:
        """Return the annotations of the images at these positions, numbered as images of a split.

        Raises:
            DataError: a label is malformed.
        """
        whole = self.annotations
        if whole is None:
            raise DataError(f"the {self.name} images have no labels")
        number = {position + 1: i for i, position in enumerate(positions, 1)}
        kept = (entry for entry in whole["annotations"] if entry["image_id"] in number)
        return {
            "images": [
                {**entry, "id": number[entry["id"]]}
                for entry in whole["images"]
                if entry["id"] in number
            ],
            "annotations": [
                {**entry, "id": i, "image_id": number[entry["image_id"]]}
                for i, entry in enumerate(kept, 1)
            ],
            "categories": whole["categories"],
        }


@dataclass(frozen=True)
class Data:
    """A data set as `load_data` found it."""

    kind: Literal["yolo", "coco", "classes", "folder"]
    source: Path
    names: tuple[str, ...] | None
    """Class names in class order; None for a folder of images."""
    train: Split
    val: Split
    channels: int | None = None
    """Of the images, as a data YAML says; None where nothing does."""
    whole: bool = False
    """Whether all images calibrate, be they few, and none is left to evaluate on."""
    common: tuple[Path, ...] = ()
    """Images of `val` that are in `train` too, by file or by content."""
    warnings: tuple[str, ...] = ()
    """What a report should say about this data, a sentence each."""
    held: Split | None = None
    """Training images that passes do not see; see `hold_out`."""
    known_sha256: str = ""
    """`sha256`, where this is a view of a data set whose hash counts."""

    def hold_out(self, count: int, seed: int) -> "Data":
        """Take images from the training ones for a search to choose by; passes do not see them.

        Those with labels are taken where any has some.

        Raises:
            DataError: there are not twice as many training images.
        """
        train = self.train
        if len(train.images) < 2 * count:
            raise DataError(
                f"{self.source} has {len(train.images)} training images, too few to hold "
                f"{count} of them out"
            )
        labelled = [i for i, path in enumerate(train.labels) if path.is_file()]
        those = labelled if len(labelled) >= count else [*range(len(train.images))]
        held = sorted(random.Random(seed).sample(those, count))  # noqa: S311  # no secret
        rest = sorted({*range(len(train.images))} - {*held})
        kept = train.pick("held-out", held)
        if train.labels and those is not labelled:
            kept = replace(kept, read=None)
        return replace(self, train=train.pick(train.name, rest), held=kept)

    def choosing(self) -> "Data":
        """Return the data of a search's trials: the images held out stand for those of `val`."""
        if self.held is None:
            raise DataError(f"no images of {self.source} are held out to choose by")
        return replace(self, val=self.held, common=(), known_sha256=self.sha256)

    def without_evaluation(self) -> "Data":
        """Return the data of a compile that evaluates nothing: all images of a folder calibrate."""
        if self.kind != "folder":
            return replace(self, whole=True)
        images = (*self.train.images, *self.val.images)
        train, val = replace(self.train, images=images), replace(self.val, images=())
        return replace(self, train=train, val=val, whole=True)

    def without_labels(self) -> "Data":
        """Return the images alone, as of a folder."""
        splits = (replace(split, read=None, labels=()) for split in (self.train, self.val))
        train, val = splits
        return replace(self, names=None, train=train, val=val)

    @cached_property
    def sha256(self) -> str:
        """A hash of the description and, in order, of names and contents of images and labels.

        Computed on first use; it reads every file of both splits. A file that cannot be read counts
        by its name.
        """
        if self.known_sha256:
            return self.known_sha256
        digest = hashlib.sha256((content_hash(self.source) or "").encode())
        with ThreadPoolExecutor(4, "yqc-hashes") as pool:  # Hashing releases the interpreter lock.
            for split in filter(None, (self.train, self.held, self.val)):
                files = (*split.images, *split.labels)
                for path, content in zip(files, pool.map(content_hash, files), strict=True):
                    line = f"{split.name}/{path.name} {content}\n"
                    digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()
