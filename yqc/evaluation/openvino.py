"""Run and time files under OpenVINO's CPU plugin, where it is installed."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yqc.data.files import is_file, reason
from yqc.errors import CheckpointError, YqcError
from yqc.evaluation.runner import Arrays, FileModel, choose_outputs, find_heads, input_size
from yqc.report.rows import NodeCost

TYPES = {"i8": "int8", "u8": "int8", "f32": "float", "f16": "float", "bf16": "float"}
"""What a node computes in, by the precision that the runtime gives it; else `other`."""
CONVERSIONS = {"FakeQuantize", "Convert", "Reorder"}
"""Kinds of nodes that only convert."""
NO_WORK = {"Parameter", "Input", "Const", "Output", "Result"}
_INPUTS: dict[str, type[np.generic]] = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}
_IMAGE_RANK = 4


def installed() -> bool:
    """Return whether OpenVINO can be imported."""
    try:
        return bool(_openvino())
    except YqcError:
        return False


def installed_version() -> str:
    """Return the installed version; a YqcError without one."""
    return str(_openvino().__version__).partition("-")[0]


class OpenVinoModel(FileModel):
    """A file, ONNX or OpenVINO's own XML, under OpenVINO's CPU plugin.

    A file of any image size is fixed to `imgsz`, else to the size that its metadata record, else to
    640 x 640, and to a batch of one. `threads` is left to OpenVINO by default.

    What is float is computed in the type that OpenVINO prefers on this processor, bfloat16 where it
    has that; `precision` "f32" forbids it. Its plugin takes `options` by their names.

    Raises:
        YqcError: OpenVINO is not installed.
        CheckpointError: OpenVINO cannot open the file, or its input is no image.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        imgsz: tuple[int, int] | None = None,
        precision: str | None = None,
        **options: object,
    ) -> None:
        core = _core(_openvino())
        if not is_file(path):
            raise CheckpointError(f"there is no file at {path}.")
        chosen: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", **options}
        if threads is not None:
            chosen["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            chosen["INFERENCE_PRECISION_HINT"] = precision
        try:
            model = core.read_model(path)
            super().__init__(path, *_describe(path, model))
            if model.is_dynamic():
                self.imgsz = input_size(self, imgsz)
                model.reshape([self.batch or 1, self.channels, *self.imgsz])
            self._compiled = core.compile_model(model, "CPU", chosen)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"OpenVINO cannot open {path}: {reason(error)}.") from error
        self._request = self._compiled.create_infer_request()

    def run_prepared(self, images: NDArray[np.generic]) -> Arrays:
        """Run what `prepare` returned, and return the file's outputs, all of its batch.

        Raises:
            CheckpointError: OpenVINO cannot run the file on it.
        """
        try:
            found = self._request.infer({0: images})
            return tuple(np.array(found[name]) for name in self._outputs)
        except Exception as error:
            why = f"{self.path} does not run under OpenVINO: {reason(error)}."
            raise CheckpointError(why) from error

    def measure_nodes(self, images: NDArray[np.generic], runs: int) -> list[NodeCost]:
        """Time every node on images of the file's own type; opened with `PERF_COUNT=True`."""
        taken: dict[str, float] = {}
        for turn in range(2 + runs):
            self.run_prepared(images)
            for info in self._request.profiling_info if turn > 1 else ():
                spent = info.real_time.total_seconds() * 1000 / runs
                taken[info.node_name] = taken.get(info.node_name, 0.0) + spent
        found = []
        for node in self._compiled.get_runtime_model().get_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
            name, op = node.get_friendly_name(), info.get("layerType", node.get_type_name())
            if op in NO_WORK or name not in taken:
                continue
            kind = TYPES.get(info.get("runtimePrecision", "").lower(), "other")
            found.append(NodeCost(name, op, "convert" if op in CONVERSIONS else kind, taken[name]))
        return found


def _describe(
    path: Path,
    model: Any,  # noqa: ANN401  # OpenVINO's own
) -> tuple[type[np.generic], list[int | None], Mapping[str, int], Mapping[str, str]]:
    """Read type and shape of the image input, the outputs and their dimensions, and the metadata.

    Raises:
        CheckpointError: the file has other inputs than one image.
    """
    inputs = [(port.element_type.to_string(), port.partial_shape) for port in model.inputs]
    if len(inputs) != 1 or inputs[0][0] not in _INPUTS or len(inputs[0][1]) != _IMAGE_RANK:
        has = ", ".join(f"{kind}{shape}" for kind, shape in inputs) or "none"
        raise CheckpointError(
            f"{path} is no YOLO detector: it should have one float or uint8 input [N, C, H, W], "
            f"but has {has}."
        )
    kind, sides = inputs[0]
    shape = [side.get_length() if side.is_static else None for side in sides]
    kept = dict(model.get_rt_info().items()).get("framework", {})
    metadata = {key: value.astype(str) for key, value in kept.items()}
    ranks = {port.get_any_name(): _rank(port.partial_shape) for port in model.outputs}
    heads = find_heads(path, metadata)
    outputs = choose_outputs(ranks, heads) or {model.output(0).get_any_name(): 0}
    return _INPUTS[kind], shape, outputs, metadata


def _rank(shape: Any) -> int:  # noqa: ANN401  # OpenVINO's own
    """Return the number of dimensions of a shape, 0 where it is unknown."""
    return len(shape) if shape.rank.is_static else 0


@cache
def _core(openvino: ModuleType) -> Any:  # noqa: ANN401  # OpenVINO's own
    """Return the one `Core`, whose first use loads the CPU plugin."""
    return openvino.Core()


def _openvino() -> ModuleType:
    try:
        return import_module("openvino")
    except ImportError as error:
        raise YqcError(
            "OpenVINO is not installed; pip install openvino, or leave --runtime out"
        ) from error
