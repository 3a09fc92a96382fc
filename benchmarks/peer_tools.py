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

    from yqc.data import Split
    from yqc.evaluation import Precision, Runtime
    from yqc.evaluation.runner import FileModel

FLOAT_PASSES = "reparam,fold-bn,dce"
"""What `int8` does before it quantizes; so all tools quantize the same float graph."""
SEED = 0
DECODE = "head.decode"
SURE = 0.25
"""The confidence at which YOLO's own tools show detections."""
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
    *, source: str, data: str, imgsz: list[int], images: int, decode: list[str], output: str
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
        decode: names of the nodes that decode boxes, which stay in float.
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
        nodes_to_exclude=decode,
        calibrate_method=CalibrationMethod.MinMax,
    )
    seconds = perf_counter() - began
    prepared.unlink()
    return {"seconds": seconds}


def nncf_onnx(
    *, source: str, data: str, imgsz: list[int], images: int, decode: list[str], output: str
) -> Measured:
    """Quantize with `nncf.quantize` and its ONNX backend; arguments as in `ort_static`."""
    import onnx

    model = onnx.load(source)
    quantized, seconds = _nncf(model, _images(data, imgsz, images), images, decode)
    onnx.save(quantized, output)
    return {"seconds": seconds}


def nncf_openvino(
    *, source: str, data: str, imgsz: list[int], images: int, decode: list[str], output: str
) -> Measured:
    """Quantize with `nncf.quantize` and its OpenVINO backend; `output` is an XML file."""
    tool = import_module("openvino")
    model = tool.Core().read_model(source)
    own = [node.get_friendly_name() for node in model.get_ops()]
    behind = [name for name in own if name.partition("/")[0] in decode]
    quantized, seconds = _nncf(model, _images(data, imgsz, images), images, behind)
    tool.save_model(quantized, output, compress_to_fp16=False)
    return {"seconds": seconds}


def _nncf(model: Any, data: "Iterable[Any]", count: int, ignored: list[str]) -> tuple[Any, float]:  # noqa: ANN401  # NNCF takes models of several packages
    """Quantize as by default, but for the number of images and the nodes left in float."""
    tool = import_module("nncf")
    dataset = tool.Dataset(list(data))
    scope = tool.IgnoredScope(names=ignored, validate=False)
    began = perf_counter()
    quantized = tool.quantize(model, dataset, subset_size=count, ignored_scope=scope)
    return quantized, perf_counter() - began


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
    *,
    files: dict[str, tuple[str, list["Runtime"]]],
    data: str,
    imgsz: list[int],
    runs: int,
    precision: "Precision | None",
    checked: int,
) -> Measured:
    """Measure files against the first of them, which is the float one, in the runtimes of each.

    Returns:
        For each name `file_bytes`, `weight_bytes` and `runs`: for each of its runtimes `map`, `db`,
        `found` and `expected` (see `_check`), `ms`, `ratio`, `interval`, `cpu_ms`, `cpu_ratio` and
        `load_ms`; or `error`, why the runtime does not run the file.
    """
    from yqc.data import load_data
    from yqc.errors import YqcError
    from yqc.evaluation import evaluate, latency, open_file
    from yqc.report import make_progress

    progress, split, size = make_progress(), load_data(Path(data)).val, (imgsz[0], imgsz[1])
    found: dict[str, Measured] = {}
    for name, (file, _) in files.items():
        found[name] = {**_sizes(Path(file)), "runs": {}}
    for runtime in ("onnxruntime", "openvino"):
        good = {}
        for name, (file, runtimes) in files.items():
            if runtime not in runtimes:
                continue
            progress.note(f"{name} in {runtime}")
            try:
                model = open_file(Path(file), runtime, threads=1, imgsz=size, precision=precision)
                about = {"map": evaluate(model, split, imgsz=size, progress=progress).map}
                found[name]["runs"][runtime] = about | _check(model, split, size, checked)
                good[name] = Path(file)
            except YqcError as error:
                found[name]["runs"][runtime] = {"error": str(error)}
        if not good:
            continue
        speed = latency(
            list(good.values()), imgsz=size, threads=1, runs=runs, runtime=runtime,
            precision=precision, progress=progress,
        )  # fmt: skip
        keys = ("ms", "ratio", "interval", "cpu_ms", "cpu_ratio", "load_ms")
        columns = (speed.ms, speed.ratios, speed.intervals, speed.cpu_ms, speed.cpu_ratios)
        for name, *values in zip(good, *columns, speed.load_ms, strict=True):
            found[name]["runs"][runtime] |= dict(zip(keys, values, strict=True))
    return found


def _check(model: "FileModel", split: "Split", imgsz: tuple[int, int], count: int) -> Measured:
    """Compare a file's outputs and detections with what the file says, run as it stands.

    That is onnxruntime without optimisation; for OpenVINO's own format, OpenVINO in float32 without
    integer kernels.

    Returns:
        `db`: signal over noise at the first output, None where nothing differs; `found` and
        `expected`: how many detections the model and the reference have at confidence 0.25.
    """
    import numpy as np

    from yqc.data import Placed, read_images, to_float
    from yqc.evaluation import OnnxModel, detections
    from yqc.evaluation.forms import find_form
    from yqc.evaluation.openvino import OpenVinoModel

    plain: FileModel
    if model.path.suffix == ".onnx":
        plain = OnnxModel(model.path, threads=1, optimise=False)
    else:
        plain = OpenVinoModel(
            model.path, threads=1, imgsz=imgsz, precision="f32", LP_TRANSFORMS_MODE="NO"
        )
    signal = noise = 0.0
    counts = {"found": 0, "expected": 0}
    for image in read_images(split.images[:count], imgsz, channels=model.channels):
        if not isinstance(image, Placed):
            continue
        pixels = to_float(image.pixels)
        got, want = (one.run(pixels)[0].astype(np.float32) for one in (model, plain))
        form = find_form([want], None, model.hints)
        signal += float(np.square(want, dtype=np.float64).sum())
        noise += float(np.square(got - want, dtype=np.float64).sum())
        for key, output in (("found", got), ("expected", want)):
            counts[key] += len(detections(output[0], form).above(SURE))
    return {"db": 10 * float(np.log10(signal / noise)) if noise else None, **counts}


def _sizes(file: Path) -> Measured:
    import onnx

    from yqc.emit import weight_bytes

    if file.suffix != ".onnx":
        return {"file_bytes": file.stat().st_size + file.with_suffix(".bin").stat().st_size}
    return {"file_bytes": file.stat().st_size, "weight_bytes": weight_bytes(onnx.load(file))}


TASKS: dict[str, Callable[..., Measured]] = {
    task.__name__: task for task in (export, ort_static, nncf_onnx, nncf_openvino, measure)
}


def main() -> None:
    """Do the job that the first argument's file describes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    task, result = TASKS[job.pop("task")], Path(job.pop("result"))
    result.write_text(json.dumps(task(**job)), encoding="utf-8")


if __name__ == "__main__":
    main()
