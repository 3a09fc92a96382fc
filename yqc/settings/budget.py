"""What a user can spend: loss of accuracy, bytes, milliseconds."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yqc.pipeline.values import NUMBER, ByteSize
from yqc.settings.values import SettingError

if TYPE_CHECKING:
    from yqc.report.parts import Accuracy

DROP = "a share of the float model's figure such as 1%, or an absolute drop such as 0.005"
SIZE = "a number of bytes such as 950KB or 1.2MB"
TIME = "a number of milliseconds such as 20"


@dataclass(frozen=True)
class Drop:
    """The largest loss of a task's main figure: relative to the float model's, or absolute."""

    value: float
    relative: bool

    @classmethod
    def read(cls, text: str) -> "Drop":
        """Read `1%` or `0.005`; a ValueError says what it must be."""
        plain = text.removesuffix("%")
        relative = plain != text
        if not NUMBER.fullmatch(plain) or not 0 <= float(plain) < (100 if relative else 1):
            raise ValueError(DROP)
        return cls(float(plain) / 100 if relative else float(plain), relative)

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"

    def of(self, accuracy: "Accuracy") -> float | None:
        """Return the measured loss in the unit of this one; None where nothing was measured.

        Without labels it is the share of the float model's detections (of classes, of images) that
        is not found again.
        """
        if accuracy.agreement is not None and accuracy.outputs is None:
            agreed = accuracy.agreement
            figure = agreed.ap50 if agreed.top1 is None else agreed.top1
            return None if figure is None else 1 - figure
        return accuracy.relative_drop if self.relative else accuracy.drop

    def show(self, loss: float) -> str:
        """Print a loss in the unit of this one."""
        return f"{100 * loss:.2g} %" if self.relative else f"{loss:.4f}"


@dataclass(frozen=True)
class Budget:
    """Bounds that a compiled file must keep; None: any value does.

    Args:
        max_drop: such as "1%" (of the float model's figure) or 0.005 (absolute).
        max_size: bytes of the file, such as "1MB".
        max_ms: milliseconds an image in the target's runtime, or by a command that measures it.

    Raises:
        SettingError: a bound is malformed.
    """

    max_drop: Drop | str | float | None = None
    max_size: str | int | None = None
    max_ms: str | float | None = None

    def __post_init__(self) -> None:
        for name, read, what in (
            ("max_drop", Drop.read, DROP),
            ("max_size", _read_size, SIZE),
            ("max_ms", _read_time, TIME),
        ):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Drop):
                object.__setattr__(self, name, _read(name, read, what, str(given)))

    @property
    def drop(self) -> Drop | None:
        """The largest loss."""
        return self.max_drop if isinstance(self.max_drop, Drop) else None

    @property
    def size(self) -> int | None:
        """The most bytes of a file."""
        return None if self.max_size is None else int(self.max_size)

    @property
    def ms(self) -> float | None:
        """The most milliseconds an image."""
        return None if self.max_ms is None else float(self.max_ms)

    def __str__(self) -> str:
        parts = []
        if self.drop is not None:
            parts.append(f"a drop of at most {self.drop}")
        if self.size is not None:
            parts.append(f"at most {ByteSize(self.size)}")
        if self.ms is not None:
            parts.append(f"at most {self.ms:g} ms")
        return ", ".join(parts)

    def missed(self, *, loss: float | None, size: int, ms: float | None) -> tuple[str, ...]:
        """Return which bounds a file does not keep: `max_drop`, `max_size`, `max_ms`.

        What was not measured keeps no bound.
        """
        sides: dict[str, tuple[float | None, float | None]] = {
            "max_drop": (loss, None if self.drop is None else self.drop.value),
            "max_size": (size, self.size),
            "max_ms": (ms, self.ms),
        }
        return tuple(
            name
            for name, (value, most) in sides.items()
            if most is not None and (value is None or value > most)
        )


def _read(name: str, read: Any, what: str, text: str) -> Any:  # noqa: ANN401  # as it reads
    try:
        return read(text)
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        line = text or " "
        why = f"must be {what}, not {text!r}\n  {option} {line}\n  "
        raise SettingError(option, why + " " * (len(option) + 1) + "^" * len(line)) from None


def _read_size(text: str) -> int:
    size = ByteSize.read(text)
    if size < 1:
        raise ValueError(SIZE)
    return size


def _read_time(text: str) -> float:
    value = float(text.removesuffix("ms").strip())
    if not math.isfinite(value) or value <= 0:
        raise ValueError(TIME)
    return value
