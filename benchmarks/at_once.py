"""Many compiles at once on one store, some of them killed: all others end in the same bytes.

    python benchmarks/at_once.py best.pt --data data.yaml --passes 'prune{ratio=0.3},int8'

Half of the compiles have other passes than the other half, so that what is kept of the float model
is shared and what is kept of the passes is not. The store's bound is so small that entries are
removed all the time. A killed compile is repeated with --resume. In the end every file must be what
one compile alone makes, and the store must hold whole entries only, within its bound.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from yqc.store import user_store

OTHER = "fold-bn"
"""Passes of every second compile."""


def start(arguments: Sequence[str], folder: Path) -> int:
    """Fork a compile that writes into a folder; returns its process."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv[1:] = ["compile", *arguments, "-o", "x.onnx", "--quiet"]
    from yqc.cli import main as command_line  # noqa: PLC0415

    code = 1
    try:
        command_line()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001  # it is printed, and ends the process
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def wait(pid: int) -> int:
    """Return the exit status of a process when it has ended; that of a kill is negative."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check(folder: Path, want: bytes) -> list[str]:
    """List what is wrong in the folder of a compile that has ended well."""
    names = {path.name for path in folder.iterdir()} - {"log"}
    wrong = [f"{folder.name} has {name}" for name in names if not name.startswith("x.")]
    wrong += [f"{folder.name} has x.cache"] if "x.cache" in names else []
    if (folder / "x.onnx").read_bytes() != want:
        wrong.append(f"{folder.name} has other bytes")
    return wrong


def run(jobs: Sequence[Sequence[str]], count: int, root: Path, dice: random.Random) -> list[str]:
    """Run compiles alone, then `count` of them at once; return what is wrong in the end."""
    want, seconds = [], 0.0
    for number, job in enumerate(jobs):
        began, folder = time.monotonic(), root / f"alone{number}"
        if wait(start(job, folder)):
            return [(folder / "log").read_text()]
        seconds = max(seconds, time.monotonic() - began)
        want.append((folder / "x.onnx").read_bytes())
    user_store().remove()
    running = {i: start(jobs[i % 2], root / str(i)) for i in range(count)}
    for i in dice.sample(range(count), count // 3):
        time.sleep(dice.uniform(0, 2 * seconds))
        os.kill(running[i], signal.SIGKILL)
    status = {i: wait(pid) for i, pid in running.items()}
    killed = [i for i, code in status.items() if code == -signal.SIGKILL]
    print(f"{count} at once, {len(killed)} killed; alone {seconds:.1f} s", flush=True)
    for i in killed:
        status[i] = wait(start([*jobs[i % 2], "--resume"], root / str(i)))
    wrong = [f"{i} failed: {(root / str(i) / 'log').read_text()}" for i, s in status.items() if s]
    wrong += [w for i, s in status.items() if not s for w in check(root / str(i), want[i % 2])]
    store = user_store()
    size = sum(entry.bytes for entry in store.entries())
    print(f"the store holds {len(store.entries())} entries of {size / 1e6:.2f} MB", flush=True)
    wrong += [f"{path} is damaged" for path in store.damaged()]
    return wrong + ([f"the store holds {size} bytes"] if size > store.bound else [])


def main() -> int:
    """Run and print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a YOLO checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="a data YAML or a COCO JSON")
    parser.add_argument("--passes", required=True, help="what every second one is compiled with")
    parser.add_argument("--count", type=int, default=20, help="compiles at once (20)")
    parser.add_argument("--bound", type=int, default=1_000_000, help="bytes of the store (1 MB)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--more", default="", help="further options of yqc compile, as one text")
    options = parser.parse_args()
    import torch  # noqa: F401, PLC0415  # once, before the forks

    import yqc.compiler  # noqa: F401, PLC0415

    base = [str(options.model.resolve()), "--data", str(options.data.resolve())]
    jobs = [[*base, "--passes", p, *options.more.split()] for p in (options.passes, OTHER)]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "YQC_CACHE_BOUND": str(options.bound)}
        wrong = run(jobs, options.count, Path(folder), random.Random(options.seed))  # noqa: S311
    for line in wrong:
        print(line, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
