"""Compare the time left that a compile shows with the time that it then takes.

    python benchmarks/time_left.py model.pt data.yaml [int4 prune,int8]

prints for every pipeline, of the moments after the first ten seconds (one a second), the share in
which the time left was within a factor of two of the truth; and every tenth of the moments.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yqc
from yqc.progress import Advance, Stage
from yqc.report.estimate import Estimate

FIRST, FACTOR = 10.0, 2.0


class Logged:
    """Progress that keeps what the command line would show, every second."""

    def __init__(self) -> None:
        self._estimate = Estimate()
        self.moments: list[tuple[float, float | None]] = []
        self._ended = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def expect(self, stages: Sequence[Stage], past: float = 0.0) -> None:
        """Take the stages of what follows."""
        self._estimate.expect(stages, past)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Follow a task."""
        with self._estimate.task(label, total) as advance:
            yield advance

    def note(self, message: str) -> None:
        """Forget the message."""

    def end(self) -> float:
        """Return how long all took."""
        self._ended.set()
        return self._estimate.elapsed

    def _keep(self) -> None:
        while not self._ended.wait(1.0):
            self.moments.append((self._estimate.elapsed, self._estimate.left()))


def main() -> None:
    """Compile, and print how far the shown times were from the truth."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("pipelines", nargs="*", default=["int4", "prune,int8"])
    given = parser.parse_args()
    for passes in given.pipelines:
        progress = Logged()
        with tempfile.TemporaryDirectory() as folder, progress.task("compiling", 0):
            output, began = Path(folder) / "x.onnx", time.process_time()
            yqc.compile(given.model, passes, data=given.data, output=output, progress=progress)
        whole, used = progress.end(), time.process_time() - began
        later = [(at, left) for at, left in progress.moments if FIRST <= at < whole - 1]
        good = [
            left is not None and 1 / FACTOR <= left / (whole - at) <= FACTOR for at, left in later
        ]
        print(f"{passes}: {whole:.0f} s, {used:.0f} s of the processor; ", end="")
        print(f"{sum(good)} of {len(good)} moments within a factor of {FACTOR:g}")
        for at, left in later[:: max(1, len(later) // 10)]:
            shown = "-" if left is None else f"{left:.0f}"
            print(f"  at {at:4.0f} s: {shown:>5} s shown, {whole - at:5.0f} s true")


if __name__ == "__main__":
    main()
