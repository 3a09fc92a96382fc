"""kill -9 in the middle of compiles: nothing is damaged, and --resume ends in the same bytes.

    python benchmarks/kill.py best.pt --data data.yaml \
        --passes 'prune{ratio=0.3 recover=0},recover{steps=4 batch=2},int4,int8' --kills 50

One compile is left alone; its ONNX file is what all others must end in. Every other one begins
beside the files of an older output, is killed, goes on with --resume, may be killed again, and so
on until it ends. Half of the kills come at a random time, half just before a random operation on
a file in the output's folder, since those moments are short. After every kill all files must be
either the older ones or whole new ones. With --spoil, after a third of the kills an entry of a
store is damaged, or becomes one of an older form or of another key.

Everything is kept for --resume as soon as it is there, not only what took long. Compiles are forked
from two servers that have imported torch, so that the kills meet work; the servers differ in their
seed of hashes, and a compile is resumed by the one that has not been killed.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from yqc.store import Store

NAME = "x"
TIMES = ("seconds", "latency", "environment", "baseline")
"""Keys of a report that differ between equal runs; a spoilt baseline is measured again."""


class DamageError(Exception):
    """What must never happen did."""


@dataclass(frozen=True)
class Job:
    """One compile as a user would call it."""

    model: Path
    data: Path
    passes: str
    more: Sequence[str] = ()

    def arguments(self, *, resume: bool) -> list[str]:
        """Return the arguments of `yqc`."""
        found = ["compile", str(self.model), "--data", str(self.data), "--passes", self.passes]
        found += ["-o", f"{NAME}.onnx", "--quiet", *self.more]
        return [*found, "--resume"] if resume else found


@dataclass(frozen=True)
class Kill:
    """One kill, and what was found after it."""

    resumed: bool
    """Whether the run that was killed was itself a resumed one."""
    by: str
    kept: str
    """What there was to go on with."""
    between: bool
    """Whether some finished files had been moved in place, and others not."""
    spoilt: str = ""
    """How an entry of a store was damaged then."""


class Server:
    """Forks compiles from a process that has imported everything."""

    def __init__(self, hash_seed: int, cache: Path) -> None:
        self.process = subprocess.Popen(  # noqa: S603  # this Python, this file
            [sys.executable, "-W", "ignore", __file__, "--server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {
                "XDG_CACHE_HOME": str(cache),
                "PYTHONHASHSEED": str(hash_seed),
                "OMP_NUM_THREADS": "1",
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None  # noqa: S101  # as asked for above
        self.process.stdin.close()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def run(
        self,
        job: Job,
        folder: Path,
        *,
        resume: bool,
        operation: int = 0,
        delay: float | None = None,
    ) -> tuple[int, int]:
        """Compile in `folder`; returns the exit status and the operations on files there.

        Args:
            job: the compile.
            folder: where it writes.
            resume: whether it goes on with what is there.
            operation: the process kills itself before so manieth operation; 0 for never.
            delay: the process is killed after so many seconds.
        """
        order = {"arguments": job.arguments(resume=resume), "folder": str(folder)}
        pid = self._ask({**order, "operation": operation})["pid"]
        assert self.process.stdout is not None  # noqa: S101
        if delay is not None and not select.select([self.process.stdout], [], [], delay)[0]:
            os.kill(pid, signal.SIGKILL)
        found = self._answer()
        return found["status"], found["operations"]

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101
        line = self.process.stdout.readline()
        if not line:
            raise DamageError("the server of compiles has ended")
        found: dict[str, Any] = json.loads(line)
        return found


@dataclass
class Trial:
    """Kills compiles, and looks at what they leave.

    Args:
        job: what is compiled.
        folder: an empty folder to work in.
        servers: two of them.
        dice: chooses the moments.
        spoil: the share of kills after which an entry of a store is damaged.
    """

    job: Job
    folder: Path
    servers: Sequence[Server]
    dice: random.Random
    spoil: float = 0.0
    seconds: float = 0.0
    """What the compile takes when it is left alone."""
    operations: int = 0

    def prepare(self) -> None:
        """Make the older output, and the one that all others must equal."""
        older, want = self.folder / "older", self.folder / "want"
        for place, job in ((older, replace(self.job, passes="fold-bn")), (want, self.job)):
            place.mkdir()
            began = perf_counter()
            status, self.operations = self.servers[0].run(job, place, resume=False)
            self.seconds = perf_counter() - began
            if status:
                raise DamageError(f"{job.passes} cannot be compiled: {said(place)}")
            (place / "log").unlink()
        self.older = {p.name: p.read_bytes() for p in older.iterdir()}
        self.want = {p.name: p.read_bytes() for p in want.iterdir()}
        if self.older[f"{NAME}.onnx"] == self.want[f"{NAME}.onnx"]:
            raise DamageError("both outputs are the same; choose other passes")

    def round(self, most: int) -> list[Kill]:
        """Kill one compile again and again until it ends, `most` times at most.

        Raises:
            DamageError: a file was damaged, or the end is not the right one.
        """
        place = self.folder / "place"
        shutil.copytree(self.folder / "older", place)
        forget_stages(self.folder)
        kills: list[Kill] = []
        while True:
            server, resumed = self.servers[len(kills) % 2], bool(kills)
            chosen: dict[str, Any] = {}
            if len(kills) < most and self.dice.random() < 0.5:  # noqa: PLR2004  # half of them
                chosen["operation"] = self.dice.randint(1, self.operations)
            elif len(kills) < most:
                chosen["delay"] = self.dice.uniform(0, self.seconds)
            status, _ = server.run(self.job, place, resume=resumed, **chosen)
            if status != -signal.SIGKILL:
                break
            by = "file operation" if "operation" in chosen else "time"
            kept = kept_in(self.folder)
            between = 0 < len(self.look(place)) < len(self.want)
            spoilt = spoil_entry(self.folder, self.dice) if self.dice.random() < self.spoil else ""
            kills.append(Kill(resumed, by, kept, between, spoilt))
        if status:
            raise DamageError(f"after {len(kills)} kills the rerun failed: {said(place)}")
        (place / "log").unlink()
        if new := set(self.want) - set(self.look(place)):
            raise DamageError(f"after {len(kills)} kills the rerun left {sorted(new)} as it was")
        if extra := {p.name for p in place.iterdir()} - set(self.want):
            raise DamageError(f"after {len(kills)} kills the rerun left {sorted(extra)}")
        shutil.rmtree(place)
        return kills

    def look(self, place: Path) -> list[str]:
        """Return the names of the files that are new; all others are as they were before.

        Raises:
            DamageError: a file is neither.
        """
        new = []
        for path in place.iterdir():
            if path.is_dir() or path.name == "log":
                continue
            if path.name not in self.want:
                raise DamageError(f"a file {path.name} was left")
            now = path.read_bytes()
            if now == self.older[path.name]:
                continue
            if not same(path.name, now, self.want[path.name]):
                raise DamageError(f"{path} is neither the older file nor the new one")
            new.append(path.name)
        if missing := set(self.older) - {p.name for p in place.iterdir()}:
            raise DamageError(f"{sorted(missing)} are gone")
        return new


def same(name: str, one: bytes, other: bytes) -> bool:
    """Tell whether two files of one name are the same, but for times."""
    if name.endswith(".html"):  # holds times all over
        return one.rstrip().endswith(b"</html>")
    if not name.endswith(".json"):
        return one == other
    try:
        return bool(timeless(json.loads(one)) == timeless(json.loads(other)))
    except ValueError:
        return False


def timeless(value: Any) -> Any:  # noqa: ANN401  # any JSON
    """Return a report without its times."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def kept_in(folder: Path) -> str:
    """Say what kinds of work stores in a folder hold."""
    stores = [Store(path.parent) for path in folder.rglob("CACHEDIR.TAG")]
    found = [entry for store in stores for entry in store.entries() if entry.kind == "work"]
    names = {str(entry.key["name"]).partition("-")[0].partition(".")[0] for entry in found}
    return ", ".join(sorted(names)) or "nothing"


def forget_stages(folder: Path) -> None:
    """Remove graphs behind passes, which the compile of another round would begin with."""
    for store in [Store(path.parent) for path in folder.rglob("CACHEDIR.TAG")]:
        for entry in store.entries():
            if entry.kind == "stage":
                entry.path.unlink()


def spoil_entry(folder: Path, dice: random.Random) -> str:
    """Damage an entry of the stores in a folder; return how, "" if there is none."""
    paths = sorted(path for path in folder.rglob("*.entry") if path.stat().st_size)
    if not paths:
        return ""
    path, how = dice.choice(paths), dice.choice(("a bit", "cut", "older form", "another key"))
    content = bytearray(path.read_bytes())
    match how:
        case "a bit":
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        case "cut":
            del content[dice.randrange(len(content)) :]
        case "older form":
            content = content.replace(b"yqc-store 1", b"yqc-store 0", 1)
        case "another key":
            content = bytearray(dice.choice(paths).read_bytes())
    path.write_bytes(content)
    return how


def said(place: Path) -> str:
    """Return the last line that a compile has printed."""
    lines = (place / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def serve() -> None:
    """Fork a compile for every line of stdin."""
    import torch  # noqa: F401, PLC0415  # the server's only, and once

    import yqc.compiler  # noqa: PLC0415
    import yqc.pipeline.base  # noqa: PLC0415
    from yqc.cli import main as command_line  # noqa: PLC0415

    yqc.pipeline.resume.LONG = yqc.pipeline.base.PAUSE = yqc.pipeline.base.LONGEST = 0.0
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _become(order, writing)
            code = 1
            try:
                command_line()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except BaseException:  # noqa: BLE001  # it is told, and ends the process
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)  # no further: libraries would wait for threads that were not forked
        os.close(writing)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(reading, "rb") as pipe:
            operations = len(pipe.read())
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"status": code, "operations": operations}), flush=True)


def _become(order: dict[str, Any], writing: int) -> None:
    """Make this process the one of a compile, which counts its operations on files."""
    folder, last = order["folder"], order["operation"]
    cache = os.environ["XDG_CACHE_HOME"]
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv[1:] = order["arguments"]
    done = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
            return
        if not str(args[0]).startswith((folder, cache, NAME + ".", "." + NAME)):
            return
        done += 1
        os.write(writing, b".")
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(
    job: Job, kills: int, *, seed: int, most: int = 3, spoil: float = 0.0, talk: bool = False
) -> list[Kill]:
    """Kill so many times; returns every kill.

    Raises:
        DamageError: something was damaged.
    """
    found: list[Kill] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(Server(number, folder / "cache")) for number in (1, 2)]
        trial = Trial(job, folder, servers, random.Random(seed), spoil)  # noqa: S311  # no secret
        trial.prepare()
        if talk:
            print(f"alone: {trial.seconds:.1f} s, {trial.operations} operations on files")
        while len(found) < kills:
            found += trial.round(min(most, kills - len(found)))
            if talk:
                print(f"{len(found)} kills", flush=True)
    return found


def main() -> int:
    """Kill and print; 1 if anything was damaged."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a YOLO checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="a data YAML or a COCO JSON")
    parser.add_argument("--passes", required=True, help="what to compile with")
    parser.add_argument("--kills", type=int, default=50, help="how often (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--spoil", action="store_true", help="damage entries of stores, too")
    parser.add_argument("--more", default="", help="further options of yqc compile, as one text")
    options = parser.parse_args()
    paths = options.model.resolve(), options.data.resolve()
    job = Job(*paths, options.passes, options.more.split())
    try:
        kills = run(job, options.kills, seed=options.seed, spoil=options.spoil / 3, talk=True)
    except DamageError as error:
        print(f"kill: {error}", file=sys.stderr)
        return 1
    rows = Counter((kill.by, kill.resumed, kill.kept) for kill in kills)
    print(f"{'kills':>5}  {'at a random':15} {'of a':10} cache held")
    for (by, resumed, kept), count in sorted(rows.items()):
        print(f"{count:5}  {by:15} {'rerun' if resumed else 'first run':10} {kept}")
    for how, count in sorted(Counter(kill.spoilt for kill in kills if kill.spoilt).items()):
        print(f"{count:5}  then an entry was spoilt: {how}")
    between = sum(kill.between for kill in kills)
    print(
        f"{len(kills)} kills; {between} between the moves of finished files; no damage, same bytes"
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--server"]:
        serve()
    else:
        sys.exit(main())
