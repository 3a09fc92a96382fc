"""What a job is: plain values that can be sent to a process, and a session that it opens there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from yqc.errors import YqcError, first_line
from yqc.pipeline.registry import Registry

T = TypeVar("T")
ResultType = TypeVar("ResultType", covariant=True)  # noqa: PLC0105  # named as the others are


@dataclass(frozen=True)
class Opening:
    """How a process opens its session; plain values, so that they can be sent to it."""

    open: Callable[..., Any]
    """Takes `model`, `registry` and settings by name."""
    model: Any
    choices: dict[str, Any]
    load: tuple[Path, ...] = ()
    """Python files with passes."""

    def __call__(self) -> Any:  # noqa: ANN401  # as it opens
        """Open it.

        Raises:
            YqcError: the model or the data cannot be read.
        """
        registry = Registry.default()
        for path in self.load:
            registry.load_file(path)
        return self.open(self.model, registry=registry, **self.choices)


class Job(Protocol[ResultType]):
    """Work on a session that leaves files in a folder."""

    @property
    def opening(self) -> Opening:
        """The session that it needs."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files go."""
        ...

    def run(self, session: Any, folder: Path) -> ResultType:  # noqa: ANN401  # as its opening opens
        """Do it, with its files in this folder."""
        ...

    def fail(self, why: str) -> ResultType:
        """Return what says that it could not be done."""
        ...


class Workers(Protocol):
    """What runs jobs."""

    def run(
        self, groups: Sequence[Sequence[Job[T]]], deadline: Callable[[], float]
    ) -> Iterator[tuple[Job[T], T]]:
        """Yield the result of each job as it ends; none is begun or waited for once time is up.

        Args:
            groups: jobs that share their first passes; the first of a group runs before the others,
                which begin where it has been.
            deadline: returns the seconds that are left.
        """
        ...

    def stop(self) -> None:
        """End all jobs, whatever they do."""
        ...


def unlimited() -> float:
    """Return the seconds that are left where time does not matter."""
    return float("inf")


_kept = list[tuple[Callable[[], Any], Any]]()


def session_of(opening: Callable[[], Any]) -> Any:  # noqa: ANN401  # as it opens
    """Return this process's session; one of another opening takes its place.

    Raises:
        YqcError: the model or the data cannot be read.
    """
    if not (_kept and _kept[0][0] == opening):
        _kept.clear()  # before the next one takes memory
        _kept.append((opening, opening()))
    return _kept[0][1]


def run_job(job: Job[T], folder: Path) -> T:
    """Run a job in this process; a session that cannot be opened is a result, too."""
    try:
        session = session_of(job.opening)
    except YqcError as error:
        return job.fail(first_line(error))
    except MemoryError:
        return job.fail("there is not enough memory")
    return job.run(session, folder)


def forget_session() -> None:
    """Free this process's session."""
    _kept.clear()
