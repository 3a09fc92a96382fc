"""One compile as a comparison holds it: what counts of its report, in a few hundred bytes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Self

from yqc.report import Accuracy, Layer, Report, human

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One compile, or why there is none."""

    name: str
    """Of its files: NAME.onnx, NAME.report.json, NAME.recipe.toml."""
    model: str
    model_sha256: str = ""
    passes: str
    task: str = ""
    data: str | None = None
    data_sha256: str = ""
    images: int = 0
    """That it was evaluated on."""
    target: str = ""
    yqc: str = ""
    """The version that compiled it."""
    group: int = 0
    """Rows of one group can be ranked against each other; from 1, 0 for what failed."""
    on_front: bool = False
    """Whether no row of its group is smaller and as accurate (and as fast, where all were timed on
    one machine), and so on for each."""
    bytes: int | None = None
    """Of the file."""
    ratio: float | None = None
    """2 bytes for each parameter of the float model / bytes of the weights."""
    main: str | None = None
    """The figure that counts: that of the task, `agreement` without labels, or `sqnr_db` of what is
    no detector; None where nothing was evaluated."""
    float_figure: float | None = None
    """Of the float model."""
    figure: float | None = None
    """Of the file."""
    drop: float | None = None
    """Loss; without labels, the share that is not found again."""
    relative_drop: float | None = None
    interval: tuple[float, float] | None = None
    """95 % interval of `relative_drop`."""
    ms: float | None = None
    """Milliseconds an image."""
    speed: float | None = None
    """Time of the float model's file / time of this one."""
    speed_interval: tuple[float, float] | None = None
    """95 % interval of `speed`."""
    machine: str = ""
    """Where that was timed: processor, runtime and threads; empty without times."""
    bits: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Bits of weights and activations of each layer, such as 8/8 or 4/32 (float)."""
    failed: str = ""
    """Why there is no file."""

    @classmethod
    def of(cls, name: str, report: Report) -> Self:
        """Take what counts of a report."""
        accuracy, latency = report.accuracy, report.latency
        main, float_figure, figure = _figures(accuracy)
        row = cls(
            name=name,
            model=Path(report.input.path).stem,
            model_sha256=report.input.sha256,
            passes=report.pipeline.text,
            task=sys.intern(report.input.task),
            images=accuracy.images,
            target=sys.intern(report.target),
            yqc=sys.intern(report.yqc),
            bytes=report.size.file_bytes,
            ratio=report.size.ratio_vs_fp16,
            main=main,
            float_figure=float_figure,
            figure=figure,
            drop=1 - figure if main == "agreement" and figure is not None else accuracy.drop,
            relative_drop=accuracy.relative_drop,
            interval=accuracy.interval,
            bits=_bits(report.layers),
        )
        if report.data is not None:
            row = replace(row, data=report.data.path, data_sha256=sys.intern(report.data.sha256))
        if latency is None:
            return row
        threads = human.plural(latency.threads, "thread")
        where = latency.machine or report.environment.cpu
        return replace(
            row,
            ms=latency.compiled_ms,
            speed=latency.ratio,
            speed_interval=latency.interval,
            machine=sys.intern(f"{where}, {latency.runtime} {latency.version}, {threads}"),
        )

    @property
    def values(self) -> tuple[float, float, float]:
        """What is as small as possible: bytes, minus the figure, milliseconds."""
        infinite = float("inf")
        return (
            infinite if self.bytes is None else self.bytes,
            infinite if self.figure is None else -self.figure,
            infinite if self.ms is None else self.ms,
        )


def _figures(accuracy: Accuracy) -> tuple[str | None, float | None, float | None]:
    """Return the name of the figure that counts, that of the float model, and the file's."""
    if accuracy.main is not None and accuracy.float_ is not None and accuracy.compiled is not None:
        main = accuracy.main
        return main, accuracy.float_.figure(main), accuracy.compiled.figure(main)
    if accuracy.outputs is not None:
        return "sqnr_db", None, accuracy.outputs.sqnr_db
    if accuracy.agreement is not None:
        agreed = accuracy.agreement
        return "agreement", None, agreed.ap50 if agreed.top1 is None else agreed.top1
    return None, None, None


def _bits(layers: tuple[Layer, ...]) -> Mapping[str, str]:
    """Return the bits of weights and activations by layer; texts that are equal are one object."""

    def text(layer: Layer) -> str:
        weights = human.MISSING if layer.weight_bits is None else f"{layer.weight_bits:.3g}"
        return sys.intern(f"{weights}/{layer.activation_bits or human.MISSING}")

    return {sys.intern(one.name): text(one) for one in layers}
