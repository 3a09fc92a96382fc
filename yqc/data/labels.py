"""Read YOLO label files: one object a line, as class and box or outline relative to the image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from yqc.data.files import is_file, read_text, shorten
from yqc.data.pixels import find_frame
from yqc.data.sets import Object
from yqc.errors import DataError

_BOX = 5
"""A label line of a box: class, centre x, centre y, width, height, the last four in 0..1."""
_POLYGON = 7
"""A label line of an outline has at least three points after the class."""
_SLACK = 0.01
"""How far outside 0..1 a coordinate may lie: Ultralytics takes values up to 1.01, YOLOv5 and YOLOv7
up to 1. Half of it refuses labels that Ultralytics trains on; double takes what none of them does.
"""

Label = tuple[int, tuple[float, ...]]
"""Class, and centre x, centre y, width, height relative to the image."""


@dataclass
class Labels:
    """The labels of a list of images, and what is wrong with them."""

    images: Sequence[Path]
    files: Sequence[Path]
    """The label file of each image."""
    nc: int
    """Classes are 0 to nc - 1."""
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
            found = read_labels(path, self.nc)
        except DataError as error:
            if self.strict:
                raise
            self.bad.append(str(error).rstrip("."))
            return None
        distinct = list(dict.fromkeys(found))
        self.repeated += len(found) - len(distinct)
        return distinct

    def without_bad(self) -> "Labels":
        """Return the labels of the images without a bad label."""
        good = [i for i, boxes in enumerate(self.boxes) if boxes is not None]
        images, files = ([paths[i] for i in good] for paths in (self.images, self.files))
        return Labels(images, files, self.nc, boxes=[self.boxes[i] for i in good])

    def objects(self) -> list[list[Object] | None]:
        """Return the objects of each image in its pixels; None for an image with a bad label."""
        return [
            None if boxes is None else to_objects(path, boxes)
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


def to_objects(image: Path, labels: Sequence[Label]) -> list[Object]:
    """Scale labels to pixels of the upright image, which trainers' labels are relative to.

    An image whose header cannot be read has none; the reader of its pixels reports it.
    """
    frame = find_frame(image) if labels else None
    if frame is None:
        return []
    width, height = frame.size
    boxes = [
        (cls, ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
        for cls, (x, y, w, h) in labels
    ]
    return [Object(cls, box, box[2] * box[3]) for cls, box in boxes]


def read_labels(path: Path, nc: int) -> list[Label]:
    """Read a label file; an image without one shows none of the classes.

    Raises:
        DataError: a line is no label of a class below `nc`; it names file and line.
    """
    if not is_file(path):
        return []
    lines = enumerate(read_text(path).splitlines(), 1)
    return [parse_label(f"{path}:{n}", line.split(), nc) for n, line in lines if line.strip()]


def parse_label(where: str, words: list[str], nc: int) -> Label:
    """Read the words of one line; `where` begins the message of an error.

    Raises:
        DataError: they are no label.
    """
    try:
        cls, *values = map(float, words)
    except ValueError as e:
        raise DataError(f"{where} is no label: {shorten(' '.join(words))}.") from e
    if not cls.is_integer() or not 0 <= cls < nc:
        raise DataError(f"{where} names class {words[0]:.20}, and the classes are 0 to {nc - 1}.")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in values):
        raise DataError(
            f"{where} has a coordinate outside 0..1; YOLO labels are relative to the image."
        )
    if len(words) >= _POLYGON and len(words) % 2:
        return int(cls), _box_around(values)
    if len(words) != _BOX:
        raise DataError(f"{where} has {len(words)} numbers; a label is class, x, y, width, height.")
    if min(values[2:]) < 0:
        raise DataError(f"{where} has a negative width or height.")
    return int(cls), tuple(values)


def _box_around(outline: list[float]) -> tuple[float, ...]:
    """Return the box around an outline x1 y1 x2 y2 ... as centre and size."""
    xs, ys = outline[0::2], outline[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
