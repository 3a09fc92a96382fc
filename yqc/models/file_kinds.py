"""Recognise files that are no checkpoints: exported models, archives, weights of other tools."""

import zipfile
from collections.abc import Callable
from pathlib import Path

HEAD = 4096
"""Bytes that are looked at."""
ADVICE = "give the checkpoint it was made from (.pt)"

SUFFIXES = {
    ".onnx": "an ONNX file",
    ".torchscript": "a TorchScript export",
    ".ptl": "a TorchScript export",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".xml": "an OpenVINO model",
    ".tflite": "a TFLite model",
    ".mlmodel": "a CoreML model",
    ".mlpackage": "a CoreML model",
    ".pb": "a TensorFlow graph",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".hdf5": "a Keras model",
    ".param": "an NCNN model",
    ".pdmodel": "a PaddlePaddle model",
    ".pdiparams": "a PaddlePaddle model",
    ".mnn": "an MNN model",
    ".rknn": "an RKNN model",
    ".hef": "a Hailo model",
    ".weights": "weights of Darknet",
    ".pt2": "a program of torch.export",
    ".gguf": "a GGUF file",
    ".yaml": "a YAML file",
    ".yml": "a YAML file",
}
"""What files are, by the ends of their names; used where the content does not say."""

FOLDERS: tuple[tuple[str, str], ...] = (
    ("Manifest.json", "a CoreML model"),
    ("saved_model.pb", "a TensorFlow SavedModel"),
    ("*.xml", "an OpenVINO model"),
    ("*.param", "an NCNN model"),
    ("*.pdmodel", "a PaddlePaddle model"),
)
"""What folders are, by a file that each holds."""

ARCHIVES: tuple[tuple[str, str], ...] = (
    ("constants.pkl", "a TorchScript export"),
    ("serialized_exported_program.json", "a program of torch.export"),
    ("archive_format", "a program of torch.export"),
    ("model.json", "a program of torch.export"),
    ("config.json", "a Keras model"),
)
"""What zip archives are, by the name of a record."""


def _is_xml_model(head: bytes) -> bool:
    return b"<net " in head and head.lstrip()[:1] == b"<"


def _is_engine(head: bytes) -> bool:
    """Whether it is a plan of TensorRT, with or without the JSON of Ultralytics before it."""
    length = int.from_bytes(head[:4], "little")
    return b"ftrt" in head[:8] or (head[4:5] == b"{" and b"ftrt" in head[length : length + 16])


def _is_onnx(head: bytes) -> bool:
    """Whether it begins as a ModelProto: the IR version, then producer, graph or opset."""
    return head[:1] == b"\x08" and head[2:3] in {b"\x12", b"\x3a", b"\x42"}


CONTENTS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("a TFLite model", lambda head: head[4:8] == b"TFL3"),
    ("a Keras model", lambda head: head.startswith(b"\x89HDF")),
    ("a GGUF file", lambda head: head.startswith(b"GGUF")),
    ("an NCNN model", lambda head: head.startswith(b"7767517")),
    ("a TensorRT engine", _is_engine),
    ("an OpenVINO model", _is_xml_model),
    ("an ONNX file", _is_onnx),
    ("a gzip archive", lambda head: head.startswith(b"\x1f\x8b")),
    ("a 7z archive", lambda head: head.startswith(b"7z\xbc\xaf")),
    ("a rar archive", lambda head: head.startswith(b"Rar!")),
)
"""What files are, by their first bytes."""


def describe_other_format(path: Path) -> str | None:
    """Say in one sentence that a file is no checkpoint, and what to give in its place.

    Returns None for what may be a checkpoint, and for what cannot be read.
    """
    kind = _kind(path)
    if kind is None:
        return None
    if kind.endswith("archive"):
        return f"{path} is {kind}; unpack it and give the checkpoint (.pt) in it"
    if kind == "a YAML file":
        return f"{path} is {kind}; give the checkpoint (.pt), and a model YAML with --arch"
    advice = f"{path} is {kind}; {ADVICE}"
    if kind == "an ONNX file":
        advice += ": only `yqc eval` and `yqc bench` take ONNX files"
    return advice


def _kind(path: Path) -> str | None:
    named = SUFFIXES.get(path.suffix.lower())
    try:
        if path.is_dir():
            return named or next((k for p, k in FOLDERS if next(path.glob(p), None)), None)
        if not path.is_file():
            return None if named != "an ONNX file" else named
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    if head.startswith(b"PK\3\4"):
        return _kind_of_zip(path)
    if head.startswith(b"\x80") and b"torch" in head:
        return None
    return next((kind for kind, matches in CONTENTS if matches(head)), named)


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist()[:HEAD]]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    ends = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in ends and "constants.pkl" not in ends:
        return None
    if found := next((kind for record, kind in ARCHIVES if record in ends), None):
        return found
    return "a zip archive" if any(end.endswith((".pt", ".pth")) for end in ends) else None
