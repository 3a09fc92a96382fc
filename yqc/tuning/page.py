"""The page of a front: a drawing of size against loss, and the table; no script."""

from html import escape

from yqc.report import human
from yqc.report.scatter import Axes, Point, draw_points, write_plain_page, write_table
from yqc.tuning.front import Front, FrontPoint

HEADS = ("file", "bytes", "ms", "speed", "chosen by", "drop", "95 %", "sure", "pipeline")


def write_page(front: Front) -> str:
    """Return the HTML of a front."""
    said = escape(f"{front.model} on {front.data}, for {front.target}")
    figure = front.main or "agreement with the float model"
    asked = f"{escape(front.budget)}; {front.trials} trials in {human.duration(front.seconds)}"
    note = (
        f"Loss of {escape(figure)} on the evaluation images, which the search has not seen, with "
        f"its 95 % interval; pipelines were chosen by {front.held_out} training images."
    )
    table = write_table(HEADS, [_cells(front, point) for point in front.points], texts=1)
    body = f"<h1>{said}</h1><p>Asked: {asked}.</p>{_drawing(front)}<p class='note'>{note}</p>"
    return write_plain_page(f"yqc tune: {front.model}", body + table)


def _drawing(front: Front) -> str:
    """Draw bytes, on a logarithmic axis, against the loss."""
    points = [
        Point(
            bytes=one.bytes,
            value=one.drop,
            ends=_range(front, one),
            kind="best" if one.name == (front.best or front.nearest) else "point",
            label=one.name,
            title=f"{one.name}: {one.passes}",
        )
        for one in front.points
        if one.drop is not None
    ]
    if not points:
        return ""
    axes = Axes.around(points, (0.0, 0.01), front.show_drop)
    return draw_points(points, axes, points, "Bytes of each file of the front against its loss")


def _range(front: Front, point: FrontPoint) -> tuple[float, float]:
    """Return the interval of the loss, in its unit."""
    loss = point.drop or 0.0
    if point.interval is None:
        return loss, loss
    factor = 1.0
    if not front.relative and point.relative_drop:
        factor = loss / point.relative_drop
    return point.interval[0] * factor, point.interval[1] * factor


def _cells(front: Front, point: FrontPoint) -> list[str]:
    mark = " (best)" if point.name == front.best else ""
    mark = " (nearest)" if point.name == front.nearest else mark
    return [
        f"{point.name}.onnx{mark}",
        human.byte_count(point.bytes),
        human.milliseconds(point.ms),
        human.times(point.ratio),
        front.show_drop(point.chosen_drop),
        front.show_drop(point.drop),
        human.percent_range(point.interval),
        human.MISSING if point.sure is None else f"{100 * point.sure:.0f} %",
        point.passes,
    ]
