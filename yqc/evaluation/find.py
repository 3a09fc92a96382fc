"""Find the objects in one image: from a model's outputs to boxes in pixels of the image."""

from collections.abc import Sequence
from typing import NamedTuple

from yqc.data import Letterboxed
from yqc.evaluation.boxes import Boxes, Floats
from yqc.evaluation.decode import detections
from yqc.evaluation.masks import draw_masks
from yqc.facts import OutputForm
from yqc.runtime import DetectionRows, Placement, move_rows


class Place(NamedTuple):
    """An image in the input of a model."""

    placement: Letterboxed
    size: tuple[int, int]
    """Width and height of the image in pixels."""
    imgsz: tuple[int, int]
    """Height and width of the input in pixels."""

    @classmethod
    def whole(cls, imgsz: tuple[int, int]) -> "Place":
        """Return the place of an image that is the input itself."""
        return cls(Letterboxed(1.0, 0, 0), (imgsz[1], imgsz[0]), imgsz)

    @property
    def flat(self) -> Placement:
        """The same as `yqc.runtime` takes it."""
        inside = self.placement
        return Placement(inside.scale, inside.dx, inside.dy, self.size, self.imgsz)


def find_objects(outputs: Sequence[Floats], form: OutputForm, place: Place) -> Boxes:
    """Return what the outputs for one image, without their batch dimension, say is in it.

    Args:
        outputs: float32 arrays: detections, and prototypes if masks are to be drawn.
        form: what they are.
        place: the image in the input.
    """
    found = detections(outputs[0], form)
    if form.task == "classify":
        return found
    moved = unplace(found, form, place)
    if form.task != "segment":
        return moved
    return draw_masks(moved, found.extra, outputs[1], place.flat)


def unplace(boxes: Boxes, form: OutputForm, place: Place) -> Boxes:
    """Move boxes from pixels of the input to those of an image, and clip those that are upright."""
    rows = DetectionRows(boxes.xyxy, boxes.scores, boxes.classes, boxes.extra)
    return Boxes(*move_rows(rows, form, place.flat), size=place.size)
