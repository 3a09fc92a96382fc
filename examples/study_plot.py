"""The plot of the study: accuracy against bytes, a line a scheme, as SVG text."""

from collections.abc import Mapping, Sequence

from yqc.report.charts import choose_marks

Point = tuple[int, float]
"""Bytes and accuracy."""
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#b5179e", "#e08e0b", "#5f4bb6", "#6c757d")
LEFT, RIGHT, TOP, BOTTOM = 60, 520, 20, 340
"""Of the axes, in a picture of 720 by 390."""


def draw(lines: Mapping[str, Sequence[Point]], best: float) -> str:
    """Draw accuracy against bytes as the text of an SVG.

    Args:
        lines: points by the name of a scheme.
        best: accuracy of the float model, drawn as a level.
    """
    every = [point for members in lines.values() for point in members]
    wide = widened([size / 1000 for size, _ in every])
    high = widened([best, *(accuracy for _, accuracy in every)])

    def place(size: float, accuracy: float) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * (size - wide[0]) / (wide[1] - wide[0])
        y = BOTTOM - (BOTTOM - TOP) * (accuracy - high[0]) / (high[1] - high[0])
        return round(x, 1), round(y, 1)

    _, level = place(wide[0], best)
    parts = [
        f'<path d="M{LEFT},{TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#444"/>',
        f'<path d="M{LEFT},{level}H{RIGHT}" stroke="#444" stroke-dasharray="4 3"/>',
        label(RIGHT, level - 4, f"float, {best:.4f}", "end"),
        label((LEFT + RIGHT) / 2, BOTTOM + 34, "bytes of all tensors, kB"),
        label(LEFT, TOP - 6, "mAP50-95"),
    ]
    across = ((place(size, high[0])[0], size) for size in choose_marks(*wide))
    parts += (label(x, BOTTOM + 16, f"{size:g}") for x, size in across)
    upwards = ((place(wide[0], value)[1], value) for value in choose_marks(*high))
    parts += (label(LEFT - 6, y + 4, f"{value:g}", "end") for y, value in upwards)
    for number, (name, members) in enumerate(lines.items()):
        colour, y = COLOURS[number % len(COLOURS)], TOP + 16 * number
        points = [place(size / 1000, accuracy) for size, accuracy in sorted(members)]
        path = " ".join(f"{x},{height}" for x, height in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for x, height in points:
            parts.append(f'<circle cx="{x}" cy="{height}" r="3" fill="{colour}"/>')
        parts.append(f'<rect x="{RIGHT + 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(label(RIGHT + 28, y, name, "start"))
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 390" font-family="sans-serif" '
        f'font-size="12">\n<rect width="720" height="390" fill="#fff"/>\n{body}\n</svg>\n'
    )


def widened(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that holds values, with some room."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room


def label(x: float, y: float, said: str, anchor: str = "middle") -> str:
    """Return a text at a place; `anchor` is start, middle or end."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{said}</text>'
