"""Draw what both models found in some of the evaluation images, for the HTML page."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL.Image import Image

from yqc import evaluation as ev
from yqc.data import Mask, mask_pixels, show_image
from yqc.evaluation.rotated import corners_of
from yqc.facts import OutputForm
from yqc.job.measure import Evidence
from yqc.report import page as pg

PICTURES = 6
"""Most images; six take about 65 kB of the page."""
WIDTH = 360
"""Of the images, in pixels: 8 kB each (mean of 60 photographs), and 21 kB at twice the width."""
SURE = 0.25
"""Lowest score of a drawn box: the confidence at which YOLO's own tools draw by default."""
COUNTERPART = 0.75
"""Least IoU of two boxes that show the same object in the same place: the middle of the overlaps
that COCO averages over. At half, boxes that moved visibly pass; near 1, all differ by rounding."""
SEEN = 0.5
"""Lowest visibility of a drawn keypoint."""
SKIPPED = 3
"""Every third point of a mask's edge is drawn: 0.7 kB of the page for a mask of 100 x 100 pixels;
all of them take three times that, and half of them cut corners."""
PEOPLE = 17
LIMBS: tuple[tuple[int, int], ...] = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
    *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
"""Keypoints of COCO's people that are joined (`skeleton` of its category), from 0. Of others each
is joined with the next one."""

Points = Sequence[Sequence[float]]


def choose_pictures(
    evidence: Evidence, names: Sequence[str], channels: int = 3
) -> tuple[pg.Picture, ...]:
    """Choose images and draw what both models found: masks, skeletons, boxes.

    Those come first in which most objects of one model have no counterpart in the other one's; of a
    classifier, those whose class changed, then those whose probability moved most.
    """
    before, after = (one.boxes for one in evidence.found)
    form = evidence.found[0].head
    both = sorted(before.keys() & after.keys())
    measure = _shift_of_class if form.task == "classify" else _count_disagreements
    chosen = sorted(both, key=lambda i: measure(before[i], after[i]), reverse=True)[:PICTURES]
    paths = evidence.split.images
    return tuple(
        _draw(paths[i], show_image(paths[i], channels), (before[i], after[i]), form, names)
        for i in chosen
    )


def _shift_of_class(before: ev.Boxes, after: ev.Boxes) -> tuple[float, ...]:
    """Return whether the likeliest class changed, and how far its probability moved."""
    moved = [float(one.scores[0]) if len(one) else 0.0 for one in (before, after)]
    return float(_class_of(before) != _class_of(after)), abs(moved[0] - moved[1])


def _count_disagreements(before: ev.Boxes, after: ev.Boxes) -> tuple[int, int]:
    """Count drawn objects without a counterpart of their class, and all that are drawn."""
    sides = before.above(SURE), after.above(SURE)
    same = _overlaps(*sides) >= COUNTERPART
    same &= sides[0].classes[:, None] == sides[1].classes
    alone = sum(int((~same.any(axis)).sum()) for axis in (0, 1))
    return alone, sum(map(len, sides))


def _overlaps(first: ev.Boxes, second: ev.Boxes) -> NDArray[np.float64]:
    """Return the IoU of all upright boxes of one with all of the other, [n, m]."""
    a, b = (one.xyxy.astype(np.float64) for one in (first, second))
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    both = (high - low).clip(0).prod(2)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (a, b)]
    found: NDArray[np.float64] = both / (areas[0][:, None] + areas[1] - both).clip(1e-9)
    return found


def _class_of(found: ev.Boxes) -> list[int]:
    likeliest: list[int] = found.classes[:1].tolist()
    return likeliest


def _draw(
    path: Path,
    image: Image,
    found: tuple[ev.Boxes, ev.Boxes],
    form: OutputForm,
    names: Sequence[str],
) -> pg.Picture:
    factor = min(1.0, WIDTH / image.width)
    size = round(image.width * factor), max(1, round(image.height * factor))
    buffer = io.BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=72, optimize=True)
    about: dict[str, Any] = {"float_": (), "compiled": ()}
    if form.task == "classify":
        about["classes"] = tuple(_name_class(one, names) for one in found)
        about["changed"] = _class_of(found[0]) != _class_of(found[1])
    else:
        about["float_"], about["compiled"] = (_boxes(one, form, factor, names) for one in found)
    return pg.Picture(
        name=path.name, jpeg=buffer.getvalue(), width=size[0], height=size[1], **about
    )


def _name_class(found: ev.Boxes, names: Sequence[str]) -> str:
    """Return the likeliest class and its probability."""
    if not len(found):
        return "nothing"
    cls = int(found.classes[0])
    return f"{dict(enumerate(names)).get(cls, str(cls))} {found.scores[0]:.2f}"


def _boxes(
    found: ev.Boxes, form: OutputForm, factor: float, names: Sequence[str]
) -> tuple[pg.Box, ...]:
    sure = found.above(SURE)
    known: Mapping[int, str] = dict(enumerate(names))
    return tuple(
        pg.Box(
            x=round(x1 * factor, 1),
            y=round(y1 * factor, 1),
            width=round((x2 - x1) * factor, 1),
            height=round((y2 - y1) * factor, 1),
            label=known.get(int(cls), str(cls)),
            score=round(score, 3),
            **_shape(sure, i, form, factor),
        )
        for i, ((x1, y1, x2, y2), cls, score) in enumerate(
            zip(sure.xyxy.tolist(), sure.classes.tolist(), sure.scores.tolist(), strict=True)
        )
    )


def _shape(found: ev.Boxes, i: int, form: OutputForm, factor: float) -> dict[str, Any]:
    """Return what is drawn of an object beside its box."""
    if form.task == "obb":
        corners = corners_of(found.rotated[i : i + 1])[0] * factor
        return {"outline": _path(corners.tolist(), closed=True)}
    if form.task == "segment" and len(found.masks):
        width, height = found.size
        pixels = mask_pixels(Mask(size=[height, width], counts=found.masks[i]))
        edges: Any = contour_generator(z=np.pad(pixels, 1)).lines(0.5)
        paths = (_path(((edge[::SKIPPED] - 0.5) * factor).tolist(), closed=True) for edge in edges)
        return {"outline": "".join(paths)}
    if form.kpt_shape is not None:
        points = found.extra[i].reshape(form.kpt_shape)
        seen = points[:, 2] >= SEEN if form.kpt_shape[1] > 2 else np.ones(len(points), bool)  # noqa: PLR2004
        at = (points[:, :2] * factor).tolist()
        count = len(points)
        joined = LIMBS if count == PEOPLE else tuple((n, n + 1) for n in range(count - 1))
        lines = (_path([at[a], at[b]]) for a, b in joined if seen[a] and seen[b])
        shown = ((round(x, 1), round(y, 1)) for (x, y), s in zip(at, seen, strict=True) if s)
        return {"skeleton": "".join(lines), "points": tuple(shown)}
    return {}


def _path(points: Points, *, closed: bool = False) -> str:
    """Return the commands of an SVG path along points."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}"
