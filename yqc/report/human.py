"""Print numbers and names for people: short, rounded, without control characters."""

import math
import re

MISSING = "-"
_BYTES = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", "k", "M", "G", "T")


def clean(text: str) -> str:
    """Escape what is not printable: names out of a checkpoint may hold terminal commands."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def clean_lines(text: str) -> str:
    """Escape what is not printable, but for the ends of lines."""
    return "\n".join(map(clean, text.split("\n")))


def byte_count(count: int | None) -> str:
    """Print bytes in decimal units: "512 B", "3.7 MB", "143 MB"."""
    return MISSING if count is None else _scaled(count, _unit(count), _BYTES)


def size_change(before: int | None, after: int | None) -> str:
    """Print "12.1 -> 7.9 MB" in the larger one's unit, or one size if both look the same."""
    if before is None or after is None or byte_count(before) == byte_count(after):
        return byte_count(before if after is None else after)
    unit = max(_unit(before), _unit(after))
    old, new = _scaled(before, unit, _BYTES), _scaled(after, unit, _BYTES)
    return f"{old.split()[0]} -> {new}"


def amount(count: int | None) -> str:
    """Print a large count: "231", "1.87 M", "22.5 G"."""
    if count is None:
        return MISSING
    unit = _unit(count)
    number = count / 1000**unit
    return f"{number:.{_places(number)}f} {_COUNTS[unit]}" if unit else str(count)


def change(before: int | None, after: int | None) -> str:
    """Print "231 -> 174", or one number if nothing changed."""
    if before is None or after is None or before == after:
        known = before if after is None else after
        return MISSING if known is None else str(known)
    return f"{before} -> {after}"


def magnitude(value: float | None) -> str:
    """Print a magnitude by its first two digits: "3e-06", "0.41", "12"; "0" for none."""
    if value is None or not math.isfinite(value):
        return MISSING if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"  # noqa: PLR2004  # two digits


def fraction(value: float | None) -> str:
    """Print an accuracy or a drop to four places: "0.3377"."""
    return MISSING if value is None else f"{value:.4f}".replace("-0.0000", "0.0000")


def percent(value: float | None) -> str:
    """Print a share as percent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def percent_range(ends: tuple[float, float] | None) -> str:
    """Print the ends of an interval of shares."""
    return MISSING if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def times(value: float | None) -> str:
    """Print a ratio: "3.93x", "52.4x", "0.52x"."""
    return MISSING if value is None else f"{value:.{_places(value)}f}x"


def milliseconds(value: float | None) -> str:
    """Print a latency: "0.85", "54.6", "1204"."""
    return MISSING if value is None else f"{value:.{_places(value)}f}"


def decibels(value: float | None) -> str:
    """Print a signal-to-noise ratio: "38.2"."""
    return MISSING if value is None else f"{value:.1f}"


def clock(seconds: float) -> str:
    """Print a running time: "0:07", "12:40", "1:02:40"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float | None) -> str:
    """Print a duration: "0.4 s", "34 s", "12 min 40 s"."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if round(seconds) < 60:  # noqa: PLR2004  # a minute
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"  # noqa: PLR2004
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def plural(count: int, noun: str) -> str:
    """Print "1 image", "2 images", "2 classes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def pipeline_steps(text: str) -> list[str]:
    """Split pipeline text after the commas that stand outside braces, for wrapping it there."""
    return re.findall(r"(?:[^,{]|\{[^}]*\}?)+,?|,", text)


def _unit(count: int) -> int:
    """Power of 1000 in which a count is printed, so that rounding never shows 1000 of a unit."""
    unit, rest = 0, float(abs(count))
    while rest >= 999.5 and unit < len(_BYTES) - 1:  # noqa: PLR2004  # rounds to 1000
        unit, rest = unit + 1, rest / 1000
    return unit


def _scaled(count: int, unit: int, names: tuple[str, ...]) -> str:
    """Print a count in a given unit: whole from 100 on, one decimal from 1 on, else two digits."""
    number = count / 1000**unit
    if unit == 0 or number >= 99.95:  # noqa: PLR2004  # three digits are enough
        return f"{number:.0f} {names[unit]}"
    return f"{number:.1f} {names[unit]}" if number >= 0.995 else f"{number:.2g} {names[unit]}"  # noqa: PLR2004


def _places(value: float) -> int:
    """Decimals that show three digits or so."""
    return 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0  # noqa: PLR2004
