"""Run a detector: an ONNX file under onnxruntime, or a PyTorch module such as an fx graph."""

import ast
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast, get_args

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from yqc.data.files import is_file, reason
from yqc.errors import CheckpointError
from yqc.evaluation.boxes import Floats
from yqc.evaluation.forms import Hints, guess_task
from yqc.facts import Layout, Task
from yqc.graph.half import half_kernels
from yqc.graph.memory import as_weights
from yqc.onnx_file import name_or_bytes
from yqc.runtime import Heads, decode, read_heads

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
_NO_SPINNING_BETWEEN_RUNS = "session.force_spinning_stop", "1"
"""Threads of a session wait for work by spinning, also after a run, and take the processor from
another session that is timed in turn with it: on two busy cores 71 ms a run, and 48 with this."""
LARGEST = 1 << 25
"""Pixels of an input at most, such as 8192 x 4096: 400 MB of float32. Half of it would refuse
images of satellites, double needs a GB for a size that a malicious file claims."""
LONGEST_RUN = 60.0
"""Seconds after which the first run of a file is given up. YOLOv8x takes 10 s for 1280 x 1280
pixels on one core; half of it could refuse that on a small board, double waits longer for a file
that never ends."""
LONGEST_TEXT = 1 << 20
"""Characters of an entry of a file's metadata that are parsed. Names of ten thousand classes take a
fifth of it; half of it suits them, too, and double parses a malicious file for twice as long."""
DEFAULT_SIDE = 640
"""Input height and width in pixels where neither the caller nor the file says."""
_IMAGE_RANK, _OUTPUT_RANKS = 4, (2, 3)


def count_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Arrays = tuple[NDArray[np.floating], ...]


class Runner(Protocol):
    """A detector that can be run on images."""

    def run(self, images: Floats, /) -> Arrays:
        """Return the outputs, [N, ...] each, of float32 [N, C, H, W] in 0..1; N is 1 by default."""
        ...


class TorchModel:
    """A `Runner` around a PyTorch module or fx graph that returns one tensor or several."""

    def __init__(self, module: nn.Module, device: torch.device | str = "cpu") -> None:
        self.module, self.device = module, device

    def run(self, images: Floats, /) -> Arrays:
        """Return the outputs, [N, ...] each, of float32 [N, C, H, W] in 0..1."""
        with torch.inference_mode(), half_kernels(self.module):
            laid = as_weights(torch.from_numpy(images), self.module)
            found = self.module(laid.to(self.device))
        outputs = found if isinstance(found, tuple | list) else (found,)
        return tuple(np.asarray(one.cpu()) for one in outputs)


class FileModel(ABC):
    """A `Runner` of a file whose one input is float32, float16 or uint8 (0..255).

    A fixed batch of more than one is filled with copies of the image.
    """

    def __init__(
        self,
        path: Path,
        dtype: type[np.generic],
        shape: Sequence[int | None],
        outputs: Mapping[str, int],
        metadata: Mapping[str, str],
    ) -> None:
        self.path, self._dtype, self._metadata = path, dtype, metadata
        self._outputs, self._ranks = list(outputs), [*outputs.values()]
        self.heads = find_heads(path, metadata)
        """How its outputs are decoded; None where they are."""
        batch, channels, height, width = shape
        recorded = self._literal("channels")
        self.channels = channels or (recorded if isinstance(recorded, int) and recorded > 0 else 3)
        """Channels of the input image: 3 (RGB), 1 (grey), or as many bands."""
        self.batch = batch
        """The fixed batch size, or None."""
        self.imgsz = (height, width) if height and width else None
        """The fixed height and width in pixels, or None."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """The class names in the file's metadata, as YOLO exporters write them."""
        names = self._literal("names")
        if isinstance(names, dict):
            names = [names[i] for i in range(len(names)) if i in names]
        return tuple(map(str, names)) if isinstance(names, list) and names else None

    @property
    def hints(self) -> Hints:
        """What the metadata say of the outputs."""
        if self.heads is not None:
            form = cast(Layout, self.heads.layout)
            return Hints(cast(Task, self.heads.task), self.heads.nc, self.heads.kpt_shape, form)
        kpt_shape: tuple[int, int] | None = None
        match self._literal("kpt_shape"):
            case [int(keypoints), int(numbers)] if keypoints > 0 and numbers > 0:
                kpt_shape = keypoints, numbers
        task = self._metadata.get("task")
        known = cast(Task, task) if task in get_args(Task) else None
        known = known or guess_task(self._ranks)
        return Hints(known, len(self.names) if self.names else None, kpt_shape)

    @property
    def recorded_imgsz(self) -> tuple[int, int] | None:
        """The height and width in the metadata."""
        match self._literal("imgsz"):
            case [int(height), int(width)] if height > 0 and width > 0:
                return height, width
        return None

    def prepare(self, images: Floats) -> NDArray[np.generic]:
        """Convert float32 [1, C, H, W] to the file's own type and batch size."""
        images = np.repeat(images, self.batch, 0) if self.batch else images
        if self._dtype is np.uint8:
            return np.rint(images * 255).astype(np.uint8)
        return images.astype(self._dtype, copy=False)

    @abstractmethod
    def run_prepared(self, images: NDArray[np.generic]) -> Arrays:
        """Run what `prepare` returned, and return the file's outputs, all of its batch.

        Raises:
            CheckpointError: the runtime cannot run the file on it.
        """

    def run(self, images: Floats, /) -> Arrays:
        """Compute the decoded outputs, [1, ...] each, of an image, float32 [1, C, H, W] in 0..1.

        Raises:
            CheckpointError: the file cannot be run, or computes numbers that are not finite.
        """
        found = tuple(one[:1] for one in self.run_prepared(self.prepare(images)))
        named = dict(zip(self._outputs, found, strict=True))
        self._check_finite(named)
        return found if self.heads is None else self._decode(named, self.heads)

    def _decode(self, named: Mapping[str, NDArray[np.floating]], heads: Heads) -> Arrays:
        try:
            found = decode(named, heads)
        except ValueError as error:
            raise CheckpointError(f"{self.path} cannot be decoded: {error}.") from error
        self._check_finite({"its decoded output": found[0]})
        return found

    def _check_finite(self, named: Mapping[str, NDArray[np.floating]]) -> None:
        for name, one in named.items():
            if not np.isfinite(one).all():
                raise CheckpointError(
                    f"{self.path} computes numbers that are not finite in {name}; its weights "
                    "are damaged, or overflow"
                )

    def _literal(self, key: str) -> object:
        text = self._metadata.get(key, "None")
        if len(text) > LONGEST_TEXT:
            return None
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None  # not written by a YOLO tool


def input_size(model: Runner, imgsz: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width to run a model at: those given, else the file's own, else 640 x 640.

    Raises:
        CheckpointError: the file is fixed to another size than the one given.
    """
    if not isinstance(model, FileModel):
        return imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)
    height, width = imgsz or model.imgsz or model.recorded_imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)
    if height * width > LARGEST:
        raise CheckpointError(f"{model.path} is to run on images of {height}x{width}: too large.")
    if imgsz and model.imgsz and imgsz != model.imgsz:
        fixed, asked = ("x".join(map(str, size)) for size in (model.imgsz, imgsz))
        raise CheckpointError(f"{model.path} takes images of {fixed} only, not of {asked}.")
    return height, width


class OnnxModel(FileModel):
    """An ONNX file under onnxruntime, on the CPU.

    `threads` are those within an operator; onnxruntime takes all cores by default. Without
    `optimise` it runs the nodes as they stand in the file.

    Raises:
        CheckpointError: onnxruntime cannot open the file, or its input is no image.
    """

    def __init__(self, path: Path, *, threads: int | None = None, optimise: bool = True) -> None:
        self._session, self._ends = _open(path, threads, optimise=optimise), False
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        image = _image(path, self._session)
        outputs = _read_outputs(path, self._session, metadata)
        self._input = image.name
        shape = [side if isinstance(side, int) else None for side in image.shape]
        super().__init__(path, _TYPES[image.type], shape, outputs, metadata)

    def run_prepared(self, images: NDArray[np.generic]) -> Arrays:
        """Run what `prepare` returned, and return the file's outputs, all of its batch.

        Raises:
            CheckpointError: onnxruntime cannot run the file on it.
        """
        try:
            if self._ends:
                return tuple(self._session.run(self._outputs, {self._input: images}))
            return self._run_first(images)
        except Exception as e:
            size = "x".join(map(str, images.shape[2:]))
            raise CheckpointError(f"{self.path} does not run at {size}: {reason(e)}.") from e

    def _run_first(self, images: NDArray[np.generic]) -> Arrays:
        """Run the file for the first time; it may hold a loop without end."""
        options = ort.RunOptions()
        timer = threading.Timer(LONGEST_RUN, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            found = self._session.run(self._outputs, {self._input: images}, options)
        finally:
            timer.cancel()
        self._ends = True
        return tuple(found)


def _open(path: Path, threads: int | None, *, optimise: bool) -> ort.InferenceSession:
    if not is_file(path):
        raise CheckpointError(f"there is no ONNX file at {path}.")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*_NO_SPINNING_BETWEEN_RUNS)
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(
            name_or_bytes(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:
        raise CheckpointError(f"onnxruntime cannot open {path}: {reason(e)}.") from e


def _image(path: Path, session: ort.InferenceSession) -> ort.NodeArg:
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type in _TYPES and len(inputs[0].shape) == _IMAGE_RANK:
        return inputs[0]
    raise CheckpointError(
        f"{path} is no YOLO detector: it should have one float or uint8 input [N, C, H, W], "
        f"but has {', '.join(f'{i.name}: {i.type}{i.shape}' for i in inputs) or 'none'}."
    )


def _read_outputs(
    path: Path, session: ort.InferenceSession, metadata: Mapping[str, str]
) -> dict[str, int]:
    """Return name and dimensions of each output that is read: see `choose_outputs`."""
    outputs = session.get_outputs()
    if not outputs:
        raise CheckpointError(f"{path} is no decoded YOLO detector: it has no output.")
    floats = {"tensor(float)", "tensor(float16)"}
    ranks = {one.name: len(one.shape) for one in outputs if one.type in floats}
    names = choose_outputs(ranks, find_heads(path, metadata))
    if names:
        return names
    first = outputs[0]
    raise CheckpointError(
        f"{path} is no decoded YOLO detector: its first output should be float [N, ., .], "
        f"but it is {first.name}: {first.type}{first.shape}."
    )


def choose_outputs(ranks: Mapping[str, int], heads: Heads | None = None) -> dict[str, int]:
    """Choose the outputs to read by their dimensions, 0 where unknown; none if none is fit.

    They are those of `sort_outputs`; of a file without the decode those that its metadata name.
    """
    if heads is not None:
        return {n: ranks[n] for n in ranks if any(n == one.name for one in heads.outputs)}
    first = next((name for name, rank in ranks.items() if rank in (0, *_OUTPUT_RANKS)), None)
    if first is None:
        return {}
    others = [name for name, rank in ranks.items() if rank == _IMAGE_RANK]
    chosen = [first, *others] if len(others) == 1 else [first]
    return {name: ranks[name] for name in chosen}


def find_heads(path: Path, metadata: Mapping[str, str]) -> Heads | None:
    """Read how a file's outputs are decoded; None where the file does not say so.

    Raises:
        CheckpointError: the entry in its metadata is damaged.
    """
    entry = metadata.get("yqc.heads")
    if entry is None:
        return None
    try:
        return read_heads(entry)
    except ValueError as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}.") from error
