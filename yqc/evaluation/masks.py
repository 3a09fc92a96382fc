"""Masks of objects at the size of their image, as the run lengths that COCO's tools compare."""

import numpy as np
from pycocotools import mask as rle

from yqc.evaluation.boxes import Boxes, Floats
from yqc.runtime import Placement
from yqc.runtime import draw_masks as draw_bits


def draw_masks(
    boxes: Boxes, coefficients: Floats, prototypes: Floats, placement: Placement
) -> Boxes:
    """Return boxes in pixels of an image with their masks; see `yqc.runtime.draw_masks`."""
    masks = np.empty(len(boxes), np.object_)
    for i, bits in enumerate(draw_bits(boxes.xyxy, coefficients, prototypes, placement)):
        masks[i] = rle.encode(bits.view(np.uint8))["counts"]
    return Boxes(boxes.xyxy, boxes.scores, boxes.classes, boxes.extra[:0], masks, boxes.size)


def drop_empty(boxes: Boxes) -> Boxes:
    """Return boxes without those whose masks have no pixel; all, where no masks are drawn."""
    size = [*boxes.size[::-1]]
    areas = [rle.area({"size": size, "counts": mask}) for mask in boxes.masks]
    return boxes.select(np.array(areas) > 0) if areas else boxes
