"""Open a file under a runtime by the runtime's name."""

from pathlib import Path
from typing import Literal

import onnxruntime

from yqc.evaluation import openvino
from yqc.evaluation.runner import FileModel, OnnxModel
from yqc.targets import Runtime

Precision = Literal["f32"]


def runtime_version(runtime: Runtime) -> str:
    """Return the version of an installed runtime.

    Raises:
        YqcError: the runtime is not installed.
    """
    return onnxruntime.__version__ if runtime == "onnxruntime" else openvino.installed_version()


def open_file(
    path: Path,
    runtime: Runtime,
    *,
    threads: int | None = None,
    imgsz: tuple[int, int] | None = None,
    precision: Precision | None = None,
) -> FileModel:
    """Open a file.

    Args:
        path: an ONNX file; OpenVINO takes its own XML, too.
        runtime: what runs it, on the CPU.
        threads: threads within an operator; None leaves it to the runtime.
        imgsz: height and width to which OpenVINO fixes a file of any size.
        precision: "f32" keeps OpenVINO from computing in bfloat16 what is float in the file;
            onnxruntime never does.

    Raises:
        CheckpointError: the file cannot be opened.
        YqcError: the runtime is not installed.
    """
    if runtime == "onnxruntime":
        return OnnxModel(path, threads=threads)
    return openvino.OpenVinoModel(path, threads=threads, imgsz=imgsz, precision=precision)
