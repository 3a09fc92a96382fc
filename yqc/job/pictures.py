"""Draw what both models found in some of the evaluation images, for the HTML page."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
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

    They are taken evenly from those where something was found; of a classifier, those whose class
    changed come first.
    """
    before, after = (one.boxes for one in evidence.found)
    form = evidence.found[0].head
    both = sorted(before.keys() & after.keys())
    if form.task == "classify":
        changed = [i for i in both if _class_of(before[i]) != _class_of(after[i])]
        chosen = [*changed, *(i for i in both if i not in set(changed))][:PICTURES]
    else:
        busy = [i for i in both if len(before[i].above(SURE))] or both
        chosen = busy[:: max(1, len(busy) // PICTURES)][:PICTURES]
    paths = evidence.split.images
    return tuple(
        _draw(paths[i], show_image(paths[i], channels), (before[i], after[i]), form, names)
        for i in chosen
    )


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
