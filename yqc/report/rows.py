"""The data of the commands' tables; `contract.to_json` prints any of them as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from yqc.facts import HasFacts
from yqc.report.contract import Json, to_plain
from yqc.report.parts import Scores, ratio
from yqc.report.shown import Shown


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that a command wrote, and its size."""

    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class CacheRow:
    """One kind of what is kept between runs."""

    kind: str
    what: str
    entries: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class CacheListing(Shown):
    """What is kept between runs, as `yqc cache` shows it."""

    path: str
    bound: int
    """Bytes that it may take."""
    bytes: int
    kinds: tuple[CacheRow, ...]
    damaged: tuple[str, ...] = ()
    """Files that are no entries any more, where that was checked."""


@dataclass(frozen=True)
class AddedName:
    """A name that a user registered, under the option that takes it."""

    option: str
    name: str
    origin: str
    """Package and version, or the path of a file."""


@dataclass(frozen=True, kw_only=True)
class PassListing:
    """One pass as `yqc passes` lists it: where it comes from, and what it does in a line."""

    name: str
    doc: str
    origin: str
    recipe: bool = False
    """Whether it stands for other passes."""
    added: tuple[AddedName, ...] = ()
    """What its options take beside yqc's own names."""


@dataclass(frozen=True)
class PassList(Shown):
    """All passes, as `yqc passes` lists them."""

    passes: tuple[PassListing, ...]
    targets: tuple[AddedName, ...] = ()
    """What `--target` takes beside yqc's own names."""

    def to_dict(self) -> Json:
        """Return a list, an object a pass."""
        return to_plain(self.passes)


@dataclass(frozen=True, kw_only=True)
class OptionHelp:
    """One option of a pass; type and default as they are written in pipeline text."""

    name: str
    type: str
    default: str
    doc: str
    added: tuple[AddedName, ...] = ()
    """What it takes beside yqc's own names."""


@dataclass(frozen=True, kw_only=True)
class PassHelp(Shown):
    """One pass as `yqc passes NAME` explains it; `doc` is its whole docstring."""

    name: str
    origin: str
    doc: str
    options: tuple[OptionHelp, ...] = ()
    requires: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    expands_to: str | None = None
    """The steps of a recipe, None for a pass."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary(HasFacts, Shown):
    """A checkpoint or a graph file as `yqc inspect` shows it; None where it records nothing."""

    path: str
    sha256: str
    bytes: int
    params: int | None = None
    macs: int | None = None
    output: str | None = None
    """What comes out, such as "[N, 4+nc, A]"."""
    blocks: Mapping[str, int] = field(default_factory=dict)
    """Kind of block or op -> how many there are."""
    unknown: tuple[str, ...] = ()
    """Classes that yqc has no twin for; parameters and MACs are then None."""
    advice: str | None = None
    """What to do about them."""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> Json:
        """Return what is known, the facts among the rest."""
        facts = ("family", "name", "task", "names", "strides", "imgsz")
        named = ("path", "sha256", "bytes", *facts, "params", "macs", "output", "blocks")
        keys = (*named, "unknown", "advice", "warnings")
        return {key: to_plain(getattr(self, key)) for key in keys}


@dataclass(frozen=True, kw_only=True)
class EvalResult(Shown):
    """Accuracy of one file on labelled images, and the seconds it took."""

    path: str
    images: int
    scores: Scores
    task: str = "detect"
    main: str = "map"
    """The figure that counts, by its name within `scores`."""
    interval: tuple[float, float] | None = None
    """95 % interval of that figure, by bootstrap over the images."""
    seconds_total: float | None = None
    seconds_session: float | None = None
    """The part of `seconds_total` that the network itself took."""
    unreadable: int = 0
    """Images that were left out because they could not be read."""
    warnings: tuple[str, ...] = ()
    """What is doubtful about the data, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """Milliseconds an image of one file: the median, and the tenth and ninetieth percentiles."""

    path: str
    bytes: int
    median_ms: float
    p10_ms: float | None = None
    p90_ms: float | None = None
    ratio: float | None = None
    """The first file's median / this one's: above 1 this one is the faster."""
    interval: tuple[float, float] | None = None
    """95 % interval of the ratio, by paired bootstrap over the rounds."""
    cpu_ms: float | None = None
    """Median processor time, of all threads."""
    load_ms: float | None = None
    """Milliseconds to open the file and make it ready to run."""


@dataclass(frozen=True)
class NodeCost:
    """The time of one kernel as a runtime ran it, after its own optimisation."""

    name: str
    """Of the node; fused ones bear the name that the runtime gave them."""
    op: str
    kind: str
    """`int8`, `float`, `convert` between the two, or `other`."""
    ms: float
    """Mean over the runs, wall time."""


@dataclass(frozen=True, kw_only=True)
class Bench(Shown):
    """Files timed in turn, run by run, under the same conditions."""

    threads: int
    runs: int
    cpu: str
    rows: tuple[BenchRow, ...]
    runtime: str = "onnxruntime"
    version: str | None = None
    """Of the runtime."""
    precision: str | None = None
    """To which float arithmetic was forced; None for what the runtime chooses."""
    end_to_end: bool = False
    """Whether letterbox, decoding of boxes and NMS count."""
    nodes: Mapping[str, tuple[NodeCost, ...]] | None = None
    """The time of each node by file, the slowest first; None where that was not measured."""

    @classmethod
    def measured(cls, *, rows: Sequence[BenchRow], **conditions: Any) -> "Bench":  # noqa: ANN401
        """Derive each ratio from the medians."""
        compared = (replace(row, ratio=ratio(rows[0].median_ms, row.median_ms)) for row in rows)
        return cls(rows=tuple(compared), **conditions)

    def to_dict(self) -> Json:
        """Return the timings; with those of nodes beside them, where they were measured."""
        bench = to_plain({one.name: getattr(self, one.name) for one in fields(self)})
        nodes = bench.pop("nodes") if isinstance(bench, dict) else None
        return bench if nodes is None else {"bench": bench, "nodes": nodes}
