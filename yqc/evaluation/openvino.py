"""Run and time files under OpenVINO's CPU plugin, where it is installed.

What is float runs as float32: where the CPU has bfloat16, OpenVINO would take that by itself, and
times would not compare with another runtime's.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yqc.data.files import reason
from yqc.errors import CheckpointError, YqcError
from yqc.evaluation.cost import NodeCost

TYPES = {"i8": "int8", "u8": "int8", "f32": "float", "f16": "float", "bf16": "float"}
"""What a node computes in, by the precision that the runtime gives it; else `other`."""
CONVERSIONS = {"FakeQuantize", "Convert", "Reorder"}
"""Kinds of nodes that only convert."""
NO_WORK = {"Parameter", "Input", "Const", "Output", "Result"}


def installed() -> bool:
    """Return whether OpenVINO can be imported."""
    try:
        return bool(_openvino())
    except YqcError:
        return False


def runner(path: Path, images: NDArray[np.generic], threads: int | None) -> Callable[[], object]:
    """Return a function that runs a file once on images of its own type; YqcError if it cannot."""
    request = _compiled(path, images, threads).create_infer_request()
    request.set_input_tensor(_openvino().Tensor(images))
    try:
        request.infer()
    except Exception as error:
        raise CheckpointError(f"{path} does not run under OpenVINO: {reason(error)}.") from error
    return request.infer  # type: ignore[no-any-return]


def measure_nodes(
    path: Path, images: NDArray[np.generic], threads: int | None, runs: int
) -> list[NodeCost]:
    """Time every node of a file on images of its own type; a YqcError if it cannot be run."""
    compiled = _compiled(path, images, threads, PERF_COUNT=True)
    request = compiled.create_infer_request()
    request.set_input_tensor(_openvino().Tensor(images))
    taken: dict[str, float] = {}
    for turn in range(2 + runs):
        request.infer()
        for info in request.profiling_info if turn > 1 else ():
            spent = info.real_time.total_seconds() * 1000 / runs
            taken[info.node_name] = taken.get(info.node_name, 0.0) + spent
    found = []
    for node in compiled.get_runtime_model().get_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        name, op = node.get_friendly_name(), info.get("layerType", node.get_type_name())
        if op in NO_WORK or name not in taken:
            continue
        kind = TYPES.get(info.get("runtimePrecision", "").lower(), "other")
        found.append(NodeCost(name, op, "convert" if op in CONVERSIONS else kind, taken[name]))
    return found


def _compiled(path: Path, images: NDArray[np.generic], threads: int | None, **more: object) -> Any:  # noqa: ANN401  # OpenVINO's own
    options: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
        **more,
    }
    core = _openvino().Core()
    try:
        model = core.read_model(path)
        if model.is_dynamic():
            model.reshape(list(images.shape))
        return core.compile_model(model, "CPU", options)
    except Exception as error:
        raise CheckpointError(f"OpenVINO cannot open {path}: {reason(error)}.") from error


def _openvino() -> Any:  # noqa: ANN401  # a module that need not be there
    try:
        return import_module("openvino")
    except ImportError as error:
        raise YqcError(
            "OpenVINO is not installed; pip install yqc[clients], or leave --runtime out"
        ) from error
