"""The report of one compile, and its forms: JSON and a page for the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from rich.console import Console, ConsoleOptions, RenderableType

from yqc.report import contract, terminal
from yqc.report.advice import advise_on_speed
from yqc.report.contract import Part
from yqc.report.environment import Environment
from yqc.report.parts import (
    Accuracy,
    Compute,
    DataInput,
    DeviceFit,
    Latency,
    Layer,
    LoadedFile,
    ModelInput,
    PassRecord,
    PipelineText,
    Sensitivity,
    Size,
    Swap,
    UsedPlugin,
    Verification,
)
from yqc.report.shown import Shown


@dataclass(frozen=True, kw_only=True)
class Report(Part, Shown):
    """Every number of one compile; printed by rich as a page, by `to_json` as the contract.

    The same inputs give the same text byte for byte, `seconds` and `latency` apart.
    """

    schema: Literal["1"] = "1"
    yqc: str
    """Version of yqc that made the report."""
    input: ModelInput
    data: DataInput | None
    """None where no data was given."""
    target: str
    """The runtime that was compiled for."""
    loaded: tuple[LoadedFile, ...]
    pipeline: PipelineText
    passes: tuple[PassRecord, ...]
    size: Size
    compute: Compute
    accuracy: Accuracy
    verification: Verification
    latency: Latency | None
    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]
    environment: Environment
    swaps: tuple[Swap, ...] = ()
    """Activations that were put in the place of others, in graph order."""
    device: DeviceFit | None = None
    """What does not fit the device of the target's file; None for a target that is no such file."""
    plugins: tuple[UsedPlugin, ...] = ()
    """Passes, criteria, methods, schemes and targets that are not yqc's own."""
    sensitivity: tuple[Sensitivity, ...] | None = None
    """Layers by sensitivity, the most sensitive first; None where it was not measured."""

    @property
    def notices(self) -> tuple[str, ...]:
        """The warnings, and what follows from the latency, which differs from run to run."""
        target = self.target if self.device is None else self.device.base
        measured = self.latency, self.layers, target, self.environment
        return (*self.warnings, *advise_on_speed(*measured))

    def to_json(self) -> str:
        """Print the contract: stable order of keys, finite numbers or null, a newline at the end.

        The text is read back on the way, so a wrong type is found here and not by its reader.

        Raises:
            DataError: a field holds a value of another type than it declares.
        """
        return contract.to_json(contract.from_json(Report, contract.to_json(self)))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` printed.

        Raises:
            DataError: the text is no JSON, or not a report of this schema.
        """
        return contract.from_json(cls, text)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Show the page: without the per-layer table and the files written."""
        yield terminal.heading(self.input, self.pipeline, self.target, self.plugins)
        yield ""
        if self.passes:
            yield terminal.ledger(self.passes)
            yield ""
        if any(one.says for one in self.passes):
            yield terminal.statements(self.passes)
            yield ""
        yield terminal.size_table(self.size, self.compute)
        yield ""
        yield terminal.accuracy_table(self.accuracy)
        yield ""
        yield terminal.checks(self.verification, self.latency)
        if self.device is not None:
            yield ""
            yield terminal.device_table(self.device)
        if self.swaps:
            yield ""
            yield terminal.swaps_table(self.swaps)
        if self.sensitivity:
            yield ""
            yield terminal.sensitivity_table(self.sensitivity)
        if self.notices:
            yield ""
            yield terminal.warnings(self.notices)
