"""Detectors that remember: ONNX files that answer each image with what was put into them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from yqc.data import Object, Placed, Split, annotate, read_images, to_float

Floats = NDArray[np.float32]
Remember = Callable[..., Path]
MakeSplit = Callable[..., Split]


@pytest.fixture
def remember(tmp_path: Path) -> Remember:
    """Writes a detector that answers `outputs[k]` to an image whose mean is next to `keys[k]`."""

    def write(
        outputs: NDArray[Any],
        keys: Floats | None = None,
        *,
        kind: int = TensorProto.FLOAT,
        batch: int | str = 1,
        size: tuple[int, int] | None = (64, 64),
        metadata: Mapping[str, str] | None = None,
        name: str = "remember.onnx",
    ) -> Path:
        keys = np.zeros(len(outputs), np.float32) if keys is None else keys
        floats, answers = outputs.astype(np.float32), outputs.shape[1:]
        nodes = [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["mean"], ["key"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["key", "keys"], ["off"]),
            helper.make_node("Abs", ["off"], ["distance"]),
            helper.make_node("ArgMin", ["distance"], ["nearest"], axis=1, keepdims=0),
            helper.make_node("Gather", ["outputs", "nearest"], ["answer"], axis=0),
            helper.make_node("Cast", ["answer"], ["output0"], to=kind),
        ]
        graph = helper.make_graph(
            nodes,
            "remember",
            [helper.make_tensor_value_info("images", kind, [batch, 3, *(size or ("H", "W"))])],
            [helper.make_tensor_value_info("output0", kind, [batch, *answers])],
            [numpy_helper.from_array(floats, "outputs"), numpy_helper.from_array(keys, "keys")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def split(tmp_path: Path) -> MakeSplit:
    """Makes a split of noise images from (width, height, objects), or None for a broken one."""

    def make(
        *entries: tuple[int, int, list[Object]] | None, names: tuple[str, ...] = ("a",)
    ) -> Split:
        paths, objects = [], []
        for i, entry in enumerate(entries):
            paths.append(tmp_path / f"{i}.png")
            objects.append(entry[2] if entry else [])
            if entry is None:
                paths[-1].write_bytes(b"no picture")
                continue
            noise = np.random.default_rng(i).integers(i, 256, (entry[1], entry[0], 3), np.uint8)
            Image.fromarray(noise).save(paths[-1])
        files = [path.name for path in paths]
        return Split("val", tuple(paths), lambda: annotate(files, objects, names))

    return make


@pytest.fixture
def keys_of() -> Callable[[Split, tuple[int, int]], Floats]:
    """The mean of each letterboxed image, by which a remembering detector knows it."""

    def keys(split: Split, imgsz: tuple[int, int]) -> Floats:
        images = [one for one in read_images(split.images, imgsz) if isinstance(one, Placed)]
        means = np.array([to_float(one.pixels).mean() for one in images], np.float32)
        assert np.diff(np.sort(means)).min(initial=1) > 1e-5
        return means

    return keys
