"""Read YOLO label files: one object a line, relative to the image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from yqc.data.files import is_file, read_text
from yqc.data.label_lines import Label, LabelKind
from yqc.data.outlines import (
    draw_polygons,
    draw_rectangle,
    mask_area,
    say_boxes_only,
    smallest_rectangle,
)
from yqc.data.pixels import find_frame
from yqc.data.sets import Object
from yqc.errors import DataError
from yqc.facts import Task

KEYPOINT_AREA = 0.53
"""Share of its box that a labelled object covers, by which OKS measures how far a keypoint is off;
the mean of COCO's people, which Ultralytics validates with. Half of it halves the squared distance
that still counts as right, double doubles it."""


@dataclass
class Labels:
    """The labels of a list of images, and what is wrong with them."""

    images: Sequence[Path]
    files: Sequence[Path]
    """The label file of each image."""
    kind: LabelKind
    strict: bool = False
    """Whether a bad line is an error; otherwise its image has no labels (None)."""
    boxes: list[list[Label] | None] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    """What is wrong with the first bad line of each image that is left out."""
    repeated: int = 0
    """Boxes that are written twice in one file."""

    def __post_init__(self) -> None:
        self.boxes = self.boxes or [self._read(path) for path in self.files]

    def _read(self, path: Path) -> list[Label] | None:
        try:
            found = read_labels(path, self.kind)
        except DataError as error:
            if self.strict:
                raise
            self.bad.append(str(error).rstrip("."))
            return None
        distinct = list(dict.fromkeys(found))
        self.repeated += len(found) - len(distinct)
        return distinct

    @property
    def counts(self) -> tuple[int, int]:
        """How many objects are labelled, and how many of them with an outline."""
        found = [label for boxes in self.boxes for label in boxes or ()]
        return len(found), sum(bool(label.outline) for label in found)

    @property
    def task(self) -> Task:
        """The task of the lines; for segmentation without any outline, detection."""
        count, outlined = self.counts
        boxed = self.kind.task == "segment" and count and not outlined
        return "detect" if boxed else self.kind.task

    def without_bad(self) -> "Labels":
        """Return the labels of the images without a bad label."""
        good = [i for i, boxes in enumerate(self.boxes) if boxes is not None]
        images, files = ([paths[i] for i in good] for paths in (self.images, self.files))
        return Labels(images, files, self.kind, boxes=[self.boxes[i] for i in good])

    def objects(self) -> list[list[Object] | None]:
        """Return the objects of each image in its pixels; None for an image with a bad label."""
        return [
            None if boxes is None else to_objects(path, boxes, self.task)
            for path, boxes in zip(self.images, self.boxes, strict=True)
        ]

    def complaints(self, where: str) -> list[str]:
        """Say in sentences what is wrong; `where` names the list of images."""
        said = []
        count = len(self.images)
        if self.bad:
            said.append(
                f"{len(self.bad)} of the {count} images of {where} have a bad label and are left "
                f"out, the first: {self.bad[0]}"
            )
        if missing := [path for path in self.files if not is_file(path)]:
            said.append(
                f"{len(missing)} of the {count} images of {where} have no label file, such as "
                f"{missing[0]}: they count as images without objects"
            )
        if self.repeated:
            said.append(f"{self.repeated} boxes of {where} are written twice and count once")
        if self.kind.task == "segment":
            said += say_boxes_only(f"labels of {where}", *self.counts)
        if shared := find_shared(self.images, self.files):
            one, other = shared[0]
            said.append(
                f"{len(shared)} label files of {where} belong to two images, such as {one.name} "
                f"and {other.name}"
            )
        return said


def find_shared(images: Sequence[Path], files: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return the first two images of each label file that exists and belongs to several."""
    owners: dict[Path, list[Path]] = {}
    for image, path in zip(images, files, strict=True):
        owners.setdefault(path, []).append(image)
    return [
        (found[0], found[1]) for path, found in owners.items() if len(found) > 1 and is_file(path)
    ]


def label_file(image: Path) -> Path:
    """Return where an image's labels are: the last `images` folder of its path becomes `labels`."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def to_objects(image: Path, labels: Sequence[Label], task: Task = "detect") -> list[Object]:
    """Scale labels to pixels of the upright image, which trainers' labels are relative to.

    An image whose header cannot be read has none; the reader of its pixels reports it.
    """
    frame = find_frame(image) if labels else None
    if frame is None:
        return []
    return [_to_object(label, task, frame.size) for label in labels]


def _to_object(label: Label, task: Task, size: tuple[int, int]) -> Object:
    """Scale a label to an image of `size` (width, height), and draw its mask for segmentation."""
    width, height = size
    x, y, w, h = label.box
    box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
    thing = Object(label.cls, box, box[2] * box[3])
    points = np.reshape(label.outline, (-1, 2)) * size
    if task == "obb":
        return thing._replace(rotated=smallest_rectangle(points))
    if label.keypoints:
        shares = np.reshape(label.keypoints, (-1, 3)) * (width, height, 1)
        area = KEYPOINT_AREA * thing.area
        return thing._replace(keypoints=tuple(shares.ravel().tolist()), area=area)
    if task == "segment":
        mask = (
            draw_polygons([points.ravel().tolist()], size)
            if len(points)
            else draw_rectangle(box, size)
        )
        return thing._replace(mask=mask, area=mask_area(mask))
    return thing


def read_labels(path: Path, kind: LabelKind) -> list[Label]:
    """Read a label file; an image without one shows none of the classes.

    Raises:
        DataError: a line is no label of this kind; it names file and line.
    """
    if not is_file(path):
        return []
    lines = enumerate(read_text(path).splitlines(), 1)
    return [kind.parse(f"{path}:{n}", line.split()) for n, line in lines if line.strip()]
