"""One job of `peers.py`, in a process of its own, so that its time and memory are its own.

    python benchmarks/peer_tools.py JOB.json

The job is a JSON object: `task` names a function below, the other keys are its arguments, `result`
is the file that gets what it returns. Each function imports only what its job needs, since what a
tool imports counts among its seconds and its memory.
"""
# ruff: noqa: PLC0415  # see above

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from yqc.evaluation import Runtime

FLOAT_PASSES = "reparam,fold-bn,dce"
"""What `int8` does before it quantizes; so all tools quantize the same float graph."""
SEED = 0
DECODE = "head.decode"
Measured = dict[str, Any]


def export(*, model: str, imgsz: int | None, output: str) -> Measured:
    """Emit the float ONNX file that the peers quantize.

    Returns:
        `imgsz`: height and width; `decode`: names of the ONNX nodes behind the last convolutions;
        `seconds`: of the passes, all together.
    """
    import onnx

    import yqc

    size: Any = {} if imgsz is None else {"imgsz": imgsz}
    result = yqc.compile(model, FLOAT_PASSES, output=output, evaluate=False, **size)
    behind = {node.name for node in result.gm.graph.nodes if yqc.role(node) == DECODE}
    names = [node.name for node in onnx.load(output).graph.node]
    return {
        "imgsz": list(result.report.input.imgsz or ()),
        "decode": [name for name in names if name.partition(".")[0] in behind],
        "seconds": sum(step.seconds for step in result.report.passes),
    }


def ort_static(
    *, source: str, data: str, imgsz: list[int], images: int, exclude: list[str], output: str
) -> Measured:
    """Quantize with `quantize_static`: QDQ, weights per channel, activations uint8 by min-max.

    These are the types that onnxruntime recommends for x86 CPUs with VNNI; all else is as it is by
    default. The pre-processing that its documentation asks for counts among the process's seconds,
    not among `seconds`.

    Args:
        source: the float file.
        data: what the calibration images are taken from.
        imgsz: height and width.
        images: how many calibration images.
        exclude: names of nodes to leave in float.
        output: the file to write.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = Path(output).with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    began = perf_counter()
    quantize_static(
        prepared,
        output,
        _Reader(_images(data, imgsz, images)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=exclude,
        calibrate_method=CalibrationMethod.MinMax,
    )
    seconds = perf_counter() - began
    prepared.unlink()
    return {"seconds": seconds}


def nncf_default(*, source: str, data: str, imgsz: list[int], images: int, output: str) -> Measured:
    """Quantize with `nncf.quantize` as it is by default, but for the number of images."""
    import onnx

    tool = import_module("nncf")
    model = onnx.load(source)
    dataset = tool.Dataset(list(_images(data, imgsz, images)))
    began = perf_counter()
    quantized = tool.quantize(model, dataset, subset_size=images)
    seconds = perf_counter() - began
    onnx.save(quantized, output)
    return {"seconds": seconds}


class _Reader:
    """What onnxruntime asks for calibration images: one a call, None at the end."""

    def __init__(self, images: "Iterable[dict[str, NDArray[np.float32]]]") -> None:
        self._images = iter(images)

    def get_next(self) -> "dict[str, NDArray[np.float32]] | None":
        """Return the model's inputs for the next image."""
        return next(self._images, None)


def _images(data: str, imgsz: list[int], count: int) -> "Iterator[dict[str, NDArray[np.float32]]]":
    """Yield the images that yqc calibrates on, in its order, as contiguous inputs of the file."""
    import numpy as np

    from yqc.data import CalibrationImages, load_data

    split = load_data(Path(data)).train
    for image in CalibrationImages(split, (imgsz[0], imgsz[1]), count, SEED):
        yield {"images": np.ascontiguousarray(image)}


def measure(
    *, files: dict[str, str], data: str, imgsz: list[int], runs: int, with_openvino: bool
) -> Measured:
    """Measure files against the first of them, which is the float one.

    Returns:
        For each name: `map`, `map50`, `file_bytes`, `weight_bytes`, and for each runtime its
        milliseconds and its ratio; or `error`, why onnxruntime does not run the file.
    """
    from yqc.data import load_data
    from yqc.errors import YqcError
    from yqc.evaluation import evaluate, latency
    from yqc.report import make_progress

    progress, split, size = make_progress(), load_data(Path(data)).val, (imgsz[0], imgsz[1])
    found: dict[str, Measured] = {}
    with progress.task("measuring", len(files) + 1 + with_openvino) as advance:
        for name, file in files.items():
            progress.note(f"accuracy of {name}")
            try:
                accuracy = evaluate(Path(file), split, imgsz=size, progress=progress)
                found[name] = {"map": accuracy.map, "map50": accuracy.map50, **_sizes(Path(file))}
            except YqcError as error:
                found[name] = {"error": str(error)}
            advance(1)
        good = {name: Path(files[name]) for name in found if "error" not in found[name]}
        runtimes: tuple[Runtime, ...] = ("onnxruntime", "openvino")
        for name in runtimes[: 1 + with_openvino]:
            speed = latency(
                list(good.values()), imgsz=size, threads=1, runs=runs, runtime=name,
                progress=progress,
            )  # fmt: skip
            for file, ms, ratio in zip(good, speed.ms, speed.ratios, strict=True):
                found[file] |= {f"{name}_ms": ms, f"{name}_ratio": ratio}
            advance(1)
    return found


def _sizes(file: Path) -> Measured:
    import onnx

    from yqc.emit import weight_bytes

    return {"file_bytes": file.stat().st_size, "weight_bytes": weight_bytes(onnx.load(file))}


TASKS: dict[str, Callable[..., Measured]] = {
    task.__name__: task for task in (export, ort_static, nncf_default, measure)
}


def main() -> None:
    """Do the job that the first argument's file describes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    task, result = TASKS[job.pop("task")], Path(job.pop("result"))
    result.write_text(json.dumps(task(**job)), encoding="utf-8")


if __name__ == "__main__":
    main()
