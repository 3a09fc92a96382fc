"""Which nodes of a file cost what under onnxruntime, and which of them compute in float."""

import contextlib
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from yqc.data.files import reason
from yqc.errors import CheckpointError
from yqc.evaluate.detect import input_size
from yqc.evaluate.runner import OnnxModel

SUFFIX = "_kernel_time"
TYPES = {"int8": "int8", "uint8": "int8", "float": "float", "float16": "float"}
"""What a kernel computes in, by the type of its first result; else `other`."""
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
"""Kernels that only convert between the two."""


@dataclass(frozen=True)
class NodeCost:
    """One kernel as onnxruntime ran it, after its own optimisation."""

    name: str
    """Of the node; fused ones bear the name that onnxruntime gave them."""
    op: str
    kind: str
    """`int8`, `float`, `convert` between the two, or `other`."""
    ms: float
    """Mean over the runs, wall time."""


def profile(
    path: Path,
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int | None = None,
    runs: int = 10,
) -> tuple[NodeCost, ...]:
    """Measure every node of a file on one image of seeded noise, the most expensive first.

    Args:
        path: the ONNX file of a detector.
        imgsz: height and width; by default what the file fixes or records, else 640.
        threads: threads within an operator; None leaves it to onnxruntime.
        runs: how many runs to average over; two more warm up and are left out.

    Raises:
        CheckpointError: the file cannot be run.
    """
    model = OnnxModel(path, threads=threads)
    noise = np.random.default_rng(0).random((1, 3, *input_size(model, imgsz)), dtype=np.float32)
    images = model.prepare(noise)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for _ in range(2 + runs):
                session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:
            raise CheckpointError(f"{path} cannot be profiled: {reason(error)}.") from error
        text = Path(session.end_profiling()).read_text(encoding="utf-8")
    return _costs(json.loads(text), runs)


def _costs(events: list[dict[str, Any]], runs: int) -> tuple[NodeCost, ...]:
    times: dict[str, list[float]] = defaultdict(list)
    about: dict[str, dict[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(SUFFIX):
            times[name].append(event["dur"] / 1000)
            about[name] = event["args"]
    found = [
        NodeCost(
            name=name.removesuffix(SUFFIX),
            op=str(about[name]["op_name"]),
            kind=_kind(about[name]),
            ms=sum(taken[-runs:]) / min(runs, len(taken)),
        )
        for name, taken in times.items()
    ]
    return tuple(sorted(found, key=lambda cost: -cost.ms))


def _kind(args: dict[str, Any]) -> str:
    if args.get("op_name") in CONVERSIONS:
        return "convert"
    with contextlib.suppress(LookupError, AttributeError):
        return TYPES.get(next(iter(args["output_type_shape"][0])), "other")
    return "other"
