"""Jobs on a Ray cluster: Ray schedules, retries and moves objects; nothing here is a protocol.

A job is a task of Ray's with `threads` processors. A worker or machine that is lost loses its
tasks, which Ray runs again elsewhere. Timing takes all processors of one machine.
"""

import contextlib
import importlib
import logging
import os
import platform
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from yqc.errors import YqcError, first_line
from yqc.evaluation import count_cores
from yqc.settings import SettingError
from yqc.version import describe_code
from yqc.workers.jobs import Job, Opening
from yqc.workers.memory import NEEDED
from yqc.workers.parcels import Parcel, pack, run_placed

T = TypeVar("T")
ANSWER = 3.0
"""Seconds in which an address must accept a connection. Half of it is short over a slow network."""
JOIN = 10.0
"""Seconds in which a cluster must take this process in; Ray itself waits two minutes. Half of it is
short for a machine that is busy, double makes a wrong address look like a slow one."""
RETRIES = 3
"""Times that Ray runs a job again whose worker was lost, after which it is a failure."""
LOCAL = "auto"


class ClusterError(YqcError):
    """A Ray cluster cannot be used."""


@contextlib.contextmanager
def join_cluster(address: str) -> Iterator[Any]:
    """Join a Ray cluster and give the module `ray`; one that was started here ends with it.

    Args:
        address: HOST:PORT, or `auto`: the cluster that runs here, else a new one.

    Raises:
        ClusterError: Ray is not installed, nobody answers, or machines have another yqc or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send them
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ClusterError("--ray needs Ray: pip install 'yqc[ray]'") from error
    if address != LOCAL:
        _check_address(address)
    joined = not ray.is_initialized()
    if joined:
        _join(ray, address)
    try:
        _check_machines(ray)
        yield ray
    finally:
        if joined:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raise unless somebody answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise SettingError("--ray", f"must be auto, or HOST:PORT of a cluster, not {address!r}")
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"nobody answers at {address}: {first_line(error)}") from error


def _join(ray: Any, address: str) -> None:  # noqa: ANN401  # the module
    """Join, or for `auto` start a cluster where none runs; give up after a time."""
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    found: list[BaseException | None] = []

    def attempt() -> None:
        try:
            ray.init(address=address, configure_logging=False, **how)
        except ConnectionError as error:
            if address != LOCAL:
                found.append(error)
                return
            try:
                cores = count_cores()
                ray.init(include_dashboard=False, num_cpus=cores, configure_logging=False, **how)
            except BaseException as other:  # noqa: BLE001  # it is raised below
                found.append(other)
                return
        except BaseException as error:  # noqa: BLE001
            found.append(error)
            return
        found.append(None)

    if address == LOCAL:  # a start takes longer, and signals need the main thread
        attempt()
    else:
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(JOIN)
    if not found:
        raise ClusterError(f"no Ray cluster answers at {address}")
    if found[0] is not None:
        why = " ".join(str(found[0]).split())[:300]
        raise ClusterError(f"cannot use the Ray cluster at {address}: {why}") from found[0]


def _check_machines(ray: Any) -> None:  # noqa: ANN401
    """Raise unless every machine has this yqc and this Python."""

    def probe() -> tuple[str, str]:
        import platform  # noqa: PLC0415  # it is sent by value

        try:
            from yqc.version import describe_code  # noqa: PLC0415
        except ImportError:
            return platform.python_version(), "none"
        return platform.python_version(), describe_code()

    probe.__module__ = "__main__"  # so that a machine without yqc can read it
    here = platform.python_version(), describe_code()
    how: dict[str, Any] = {"num_cpus": 0, "max_retries": 1}
    tasks = [
        (
            node["NodeManagerHostname"],
            ray.remote(probe).options(**how, scheduling_strategy=_on(ray, node["NodeID"])).remote(),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    for machine, task in tasks:
        try:
            python, code = ray.get(task)
        except ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:200]
            raise ClusterError(f"{machine} of the Ray cluster runs nothing: {why}") from error
        if (python, code) != here:
            raise ClusterError(
                f"{machine} of the Ray cluster has yqc {code} and Python {python}, here are "
                f"yqc {here[1]} and Python {here[0]}; install the same"
            )


def _on(ray: Any, node: str, *, soft: bool = False) -> Any:  # noqa: ANN401
    strategies = importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(node, soft=soft)


@dataclass
class RayWorkers:
    """Runs jobs on a Ray cluster; see `Workers`."""

    ray: Any
    """The module, joined to a cluster."""
    jobs: int | None = None
    """At once; None: as the cluster's processors allow."""
    threads: int = 1
    """Of each job."""
    sent: dict[str, Any] = field(default_factory=dict)
    """What was sent, by the hash of its contents."""
    _parcels: list[tuple[Opening, Parcel]] = field(default_factory=list)
    _running: dict[Any, list[Any]] = field(default_factory=dict)

    def run(
        self, groups: Sequence[Sequence[Job[T]]], deadline: Callable[[], float]
    ) -> Iterator[tuple[Job[T], T]]:
        """Yield the result of each job as it ends; its files are in place then."""
        self._check_room()
        waiting = [[*group] for group in groups if group]
        while waiting or self._running:
            while waiting and len(self._running) < self._most():
                group = waiting.pop(0)
                try:
                    self._running[self._submit(group[0])] = group
                except YqcError as error:
                    yield group[0], group[0].fail(first_line(error))
                    waiting[:0] = [group[1:]] if group[1:] else []
            if not self._running:
                continue
            left = min(deadline(), 1e6)
            done, _ = self.ray.wait([*self._running], num_returns=1, timeout=max(0.0, left))
            if not done and deadline() <= 0:
                self.stop()
                return
            for task in done:
                job, *rest = self._running.pop(task)
                yield job, self._fetch(job, task)
                waiting[:0] = [[one] for one in rest]  # what they share is in a store now

    def stop(self) -> None:
        """Cancel all jobs."""
        for task in self._running:
            with contextlib.suppress(Exception):
                self.ray.cancel(task, force=True)
        self._running.clear()

    def _most(self) -> int:
        """Return how many jobs are with Ray at once: twice as many as run, so that none waits."""
        return self.jobs or max(2, 2 * int(self.ray.cluster_resources().get("CPU", 1)))

    def _check_room(self) -> None:
        """Raise unless some machine can take a job."""
        machines = [one["Resources"] for one in self.ray.nodes() if one["Alive"]]
        if not any(
            one.get("CPU", 0) >= self.threads and one.get("memory", 0) >= NEEDED for one in machines
        ):
            raise ClusterError(
                f"no machine of the Ray cluster has {self.threads} processors and "
                f"{NEEDED >> 30} GiB of memory for a job"
            )

    def _submit(self, job: Job[T]) -> Any:  # noqa: ANN401  # a reference of Ray's
        how: dict[str, Any] = {"num_cpus": self.threads, "memory": NEEDED, "max_retries": RETRIES}
        return self.ray.remote(run_there).options(**how).remote(job, self._parcel(job.opening))

    def _parcel(self, opening: Opening) -> Parcel:
        for known, parcel in self._parcels:
            if known == opening:
                return parcel
        parcel = pack(opening, self.ray.put, self.sent)
        self._parcels.append((opening, parcel))
        return parcel

    def _fetch(self, job: Job[T], task: Any) -> T:  # noqa: ANN401
        """Return what came of a job, with its files in place, the ONNX file last."""
        try:
            result, files = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            return job.fail(f"its worker was lost: {' '.join(str(error).split())[:200]}")
        for name in sorted(files, key=lambda name: name.endswith(".onnx")):
            partial = job.folder / f".{name}.partial"
            partial.write_bytes(files[name])
            partial.replace(job.folder / name)
        found: T = result
        return found

    def run_alone(self, function: Callable[..., T], *arguments: object) -> tuple[str, T]:
        """Run a function on one machine that runs nothing else; return the machine's name, too.

        Raises:
            ClusterError: no machine is left.
        """
        for _ in range(RETRIES):
            machines = [one for one in self.ray.nodes() if one["Alive"]]
            node = max(machines, key=lambda one: (one["Resources"].get("CPU", 0), one["NodeID"]))
            how = {"num_cpus": node["Resources"].get("CPU", 1), "max_retries": 0}
            strategy = _on(self.ray, node["NodeID"])
            task = self.ray.remote(function).options(**how, scheduling_strategy=strategy)
            with contextlib.suppress(self.ray.exceptions.RayError):
                return node["NodeManagerHostname"], self.ray.get(task.remote(*arguments))
        raise ClusterError("no machine of the Ray cluster could take a time")


def run_there(job: Job[T], parcel: Parcel) -> tuple[T | Any, dict[str, bytes]]:
    """Run a job on a machine of the cluster."""
    import ray  # noqa: PLC0415  # it is there

    try:
        return run_placed(job, parcel, ray.get)
    except YqcError as error:
        return job.fail(f"{socket.gethostname()}: {first_line(error)}"), {}
    except MemoryError:
        return job.fail(f"{socket.gethostname()}: there is not enough memory"), {}
