"""The plot of the study: accuracy against bytes, a line a scheme, as SVG text."""

from collections.abc import Mapping, Sequence

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
    most = 1.05 * max(size for size, _ in every)
    high = 1.05 * max(best, *(accuracy for _, accuracy in every)) or 1.0

    def place(size: float, accuracy: float) -> str:
        x, y = LEFT + (RIGHT - LEFT) * size / most, BOTTOM - (BOTTOM - TOP) * accuracy / high
        return f"{x:.1f},{y:.1f}"

    level = place(0, best).partition(",")[2]
    parts = [
        f'<path d="M{LEFT},{TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#444"/>',
        f'<path d="M{LEFT},{level}H{RIGHT}" stroke="#444" stroke-dasharray="4 3"/>',
        label(RIGHT, float(level) - 4, f"float, {best:.4f}", "end"),
        label((LEFT + RIGHT) / 2, BOTTOM + 34, "bytes of all tensors, kB"),
        label(LEFT, TOP - 6, "mAP50-95"),
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        across, up = map(float, place(share * most, share * high).split(","))
        parts.append(label(across, BOTTOM + 16, f"{share * most / 1000:.0f}"))
        parts.append(label(LEFT - 6, up + 4, f"{share * high:.2f}", "end"))
    for number, (name, members) in enumerate(lines.items()):
        colour, y = COLOURS[number % len(COLOURS)], TOP + 16 * number
        points = [place(*point) for point in sorted(members)]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"/>')
        for point in points:
            x, height = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{height}" r="3" fill="{colour}"/>')
        parts.append(f'<rect x="{RIGHT + 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(label(RIGHT + 28, y, name, "start"))
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 390" font-family="sans-serif" '
        f'font-size="12">\n<rect width="720" height="390" fill="#fff"/>\n{body}\n</svg>\n'
    )


def label(x: float, y: float, said: str, anchor: str = "middle") -> str:
    """Return a text at a place; `anchor` is start, middle or end."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{said}</text>'
