"""Find the objects in one image: from a model's outputs to boxes in pixels of the image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from yqc.data import Letterboxed
from yqc.evaluation.boxes import Boxes, Floats
from yqc.evaluation.decode import detections
from yqc.evaluation.masks import draw_masks
from yqc.facts import OutputForm


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
    return draw_masks(moved, found.extra, outputs[1], place.placement, place.imgsz)


def unplace(boxes: Boxes, form: OutputForm, place: Place) -> Boxes:
    """Move boxes from pixels of the input to those of an image, and clip those that are upright."""
    origin, size = np.array([place.placement.dx, place.placement.dy], np.float32), place.size
    scale = np.float32(place.placement.scale)
    xyxy = (boxes.xyxy - np.tile(origin, 2)) / scale
    if form.task != "obb":
        xyxy = np.clip(xyxy, 0, np.array(size * 2, np.float32))
    extra = boxes.extra
    if form.kpt_shape is not None:
        points = extra.reshape(len(boxes), *form.kpt_shape).copy()
        points[..., :2] = (points[..., :2] - origin) / scale
        extra = points.reshape(len(boxes), -1)
    return replace(boxes, xyxy=xyxy, extra=extra, size=size)
