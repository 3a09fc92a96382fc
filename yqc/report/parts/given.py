"""What a compile was given: the model, data, passes and files beside them."""

from dataclasses import dataclass
from typing import Self

from yqc.facts import ModelFacts
from yqc.report.contract import Part


@dataclass(frozen=True, kw_only=True)
class ModelInput(Part):
    """The checkpoint that was compiled."""

    path: str
    sha256: str
    family: str
    task: str
    params: int
    """Parameters (not buffers) that its float graph uses."""
    nc: int
    names: tuple[str, ...]
    strides: tuple[int, ...]
    imgsz: tuple[int, int]
    """Height and width of the compiled input, in pixels."""

    @classmethod
    def of(cls, *, path: str, sha256: str, params: int, facts: ModelFacts) -> Self:
        """Take the facts of a model."""
        return cls(
            path=path,
            sha256=sha256,
            family=facts.family,
            task=facts.task,
            params=params,
            nc=facts.nc,
            names=facts.names,
            strides=facts.strides,
            imgsz=facts.size,
        )


@dataclass(frozen=True, kw_only=True)
class DataInput(Part):
    """The data set that was read for calibration, training and evaluation."""

    path: str
    sha256: str
    """Of the description, and of names and contents of images and labels."""
    images: int


@dataclass(frozen=True, kw_only=True)
class LoadedFile(Part):
    """A Python file given by `--load`."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UsedPlugin(Part):
    """Something that the compile used and that is not yqc's own."""

    kind: str
    """`pass`, `criterion`, `range method`, `observer`, `weight scheme` or `target`."""
    name: str
    origin: str
    """Package and version, or the path of the file that `--load` gave."""
    file: str
    sha256: str

    def describe(self) -> str:
        """Say what it is, and where it comes from."""
        return f"{self.kind} {self.name}, {self.origin}"


@dataclass(frozen=True, kw_only=True)
class PipelineText(Part):
    """The pipeline as it was given, and as it ran once its recipes were expanded."""

    text: str
    expanded: str
    dropped: tuple[str, ...] = ()
    """Steps of recipes that were left out, each with the reason."""
