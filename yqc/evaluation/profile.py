"""Time every node of a file under a runtime, and find which compute in float."""

import contextlib
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from yqc.data.files import reason
from yqc.errors import CheckpointError
from yqc.evaluation.openvino import OpenVinoModel
from yqc.evaluation.runner import FileModel, OnnxModel, input_size
from yqc.evaluation.runtimes import Precision
from yqc.onnx_file import name_or_bytes
from yqc.report.rows import NodeCost
from yqc.targets import Runtime

SUFFIX = "_kernel_time"
RUNS = 10
"""Timed runs by default. The mean of a node varies by 1.4 times as much with half of it, and double
takes twice the time."""
TYPES = {"int8": "int8", "uint8": "int8", "float": "float", "float16": "float"}
"""What a kernel computes in, by the type of its first result; else `other`."""
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
"""Kernels that only convert between the two."""


def profile(
    path: Path,
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int | None = None,
    runs: int | None = None,
    runtime: Runtime = "onnxruntime",
    precision: Precision | None = None,
) -> tuple[NodeCost, ...]:
    """Measure every node of a file on one image of seeded noise, the most expensive first.

    Arguments as in `latency`, ten runs by default; two more runs warm up and are left out.

    Raises:
        CheckpointError: the file cannot be run.
        YqcError: the runtime is not installed.
    """
    runs = runs or RUNS
    if runtime == "openvino":
        how: dict[str, Any] = {"threads": threads, "imgsz": imgsz, "precision": precision}
        model = OpenVinoModel(path, **how, PERF_COUNT=True)
        found = model.measure_nodes(_noise(model, imgsz), runs)
    else:
        images = _noise(OnnxModel(path, threads=threads), imgsz)
        found = _measured(path, images, threads, runs)
    return tuple(sorted(found, key=lambda cost: -cost.ms))


def _noise(model: FileModel, imgsz: tuple[int, int] | None) -> NDArray[np.generic]:
    """Return seeded noise in the type and size that the file takes."""
    shape = (1, model.channels, *input_size(model, imgsz))
    return model.prepare(np.random.default_rng(0).random(shape, dtype=np.float32))


def _measured(
    path: Path, images: NDArray[np.generic], threads: int | None, runs: int
) -> list[NodeCost]:
    """Read the times of kernels from onnxruntime's own profile."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = ort.InferenceSession(
                name_or_bytes(path), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(2 + runs):
                session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:
            raise CheckpointError(f"{path} cannot be profiled: {reason(error)}.") from error
        text = Path(session.end_profiling()).read_text(encoding="utf-8")
    return _costs(json.loads(text), runs)


def _costs(events: list[dict[str, Any]], runs: int) -> list[NodeCost]:
    times: dict[str, list[float]] = defaultdict(list)
    about: dict[str, dict[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(SUFFIX):
            times[name].append(event["dur"] / 1000)
            about[name] = event["args"]
    return [
        NodeCost(
            name=name.removesuffix(SUFFIX),
            op=str(about[name]["op_name"]),
            kind=_kind(about[name]),
            ms=sum(taken[-runs:]) / min(runs, len(taken)),
        )
        for name, taken in times.items()
    ]


def _kind(args: dict[str, Any]) -> str:
    if args.get("op_name") in CONVERSIONS:
        return "convert"
    with contextlib.suppress(LookupError, AttributeError):
        return TYPES.get(next(iter(args["output_type_shape"][0])), "other")
    return "other"
