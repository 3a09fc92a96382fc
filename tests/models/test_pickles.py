"""What a checkpoint holds comes out as it went in, and without its classes."""

import argparse
import collections
import datetime as dt
import functools
import json
import pathlib
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from yqc.errors import CheckpointError, ForbiddenGlobalError
from yqc.models.pickles.read import Inert, Named, read_checkpoint

FORMS = [True, False]
SEED = torch.Generator().manual_seed(7)
MATRIX = torch.randn(6, 8, generator=SEED)
TENSORS = {
    "float32": MATRIX,
    "half": MATRIX.half(),
    "bfloat16": MATRIX.bfloat16(),
    "double": MATRIX.double(),
    "bool": MATRIX > 0,
    "int64": (MATRIX * 1e9).long(),
    "int8": (MATRIX * 40).to(torch.int8),
    "uint8": (MATRIX.abs() * 40).byte(),
    "complex": torch.complex(MATRIX, -MATRIX),
    "uint16": (MATRIX.abs() * 1e4).to(torch.uint16),
    "float8": MATRIX.to(torch.float8_e4m3fn),
    "scalar": torch.tensor(3.25),
    "empty": torch.empty(0, 3),
    "transposed": MATRIX.t(),
    "strided": MATRIX[1::2, ::3],
    "expanded": MATRIX[:1].expand(4, 8),
    "tail": MATRIX[-1, 5:],
    "wanting": MATRIX.clone().requires_grad_(),
    "parameter": nn.Parameter(MATRIX.clone()),
    "frozen": nn.Parameter(MATRIX.half(), requires_grad=False),
    "buffer": nn.Buffer(MATRIX.clone()),
}


def nobody(_: str) -> bool:
    return False


def saved(folder: Path, value: object, *, zipped: bool = True, protocol: int = 2) -> Path:
    path = folder / "x.pt"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return path


def assert_same(got: Any, want: Any) -> None:
    if isinstance(want, Tensor):
        assert type(got) is type(want)
        assert (got.dtype, got.shape, got.stride()) == (want.dtype, want.shape, want.stride())
        assert (got.storage_offset(), got.requires_grad) == (
            want.storage_offset(),
            want.requires_grad,
        )
        raw = [t.detach().contiguous().view(-1).view(torch.uint8) for t in (got, want)]
        assert torch.equal(*raw)
    elif isinstance(want, np.ndarray):
        assert (got.dtype, got.shape, got.flags.fnc) == (want.dtype, want.shape, want.flags.fnc)
        assert got.tobytes() == want.tobytes()
    elif isinstance(want, dict):
        assert type(got) is dict
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, list | tuple | collections.deque):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    else:
        assert got == want


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", FORMS)
def test_tensors_are_those_of_torch_load(tmp_path: Path, protocol: int, zipped: bool) -> None:
    path = saved(tmp_path, TENSORS, zipped=zipped, protocol=protocol)
    got = read_checkpoint(path, nobody)
    assert_same(got, TENSORS)
    if zipped:  # torch itself cannot read uint16 back from the older form.
        assert_same(got, torch.load(path, weights_only=False))


@pytest.mark.parametrize("zipped", FORMS)
def test_what_was_shared_stays_shared(tmp_path: Path, zipped: bool) -> None:
    parameter = nn.Parameter(MATRIX.clone())
    base = torch.zeros(4, 4)
    value = {"a": parameter, "b": [parameter], "row": base[1], "column": base[:, 1], "base": base}
    got = read_checkpoint(saved(tmp_path, value, zipped=zipped), nobody)
    assert got["a"] is got["b"][0]
    got["row"].fill_(5)
    assert got["column"].tolist() == [0, 5, 0, 0]
    assert got["base"].sum() == 20


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", FORMS)
def test_arrays_numbers_and_containers(tmp_path: Path, protocol: int, zipped: bool) -> None:
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.5
    value = {
        "grid": grid,
        "fortran": np.asfortranarray(grid[0]),
        "ints": np.array([3, -9], dtype=np.int16),
        "swapped": np.array([1.5, -2.0], dtype=">f8"),
        "text": np.array(["ab", "cde"]),
        "zero-d": np.array(5),
        "none": np.empty((0, 4)),
        "scalar": np.float32(0.375),
        "count": np.int64(-12),
        "truth": np.bool_(True),
        "bytes": b"\x00\xffab",
        "array": bytearray(b"\x80\x81"),
        "complex": 1.5 - 2j,
        "sets": [{1, "a"}, frozenset({2.5, None}), set()],
        "big": [2**63, -(2**70), 1e308, True],
        (1, "two"): "tuple key",
        "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
        "counter": collections.Counter("abca"),
        "default": collections.defaultdict(list, {"k": [1]}),
        "deque": collections.deque([1, 2], maxlen=5),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
    }
    path = saved(tmp_path, value, zipped=zipped, protocol=protocol)
    got = read_checkpoint(path, nobody)
    assert_same(got, torch.load(path, weights_only=False))
    assert type(got["scalar"]) is float
    assert type(got["count"]) is int


def test_odds_and_ends_of_training_are_inert(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    value = {
        "optimizer": optimizer.state_dict(),
        "whole": optimizer,
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "date": dt.datetime(2024, 5, 6, tzinfo=dt.UTC),
        "path": pathlib.PosixPath("/runs/train/exp"),
        "windows": pathlib.PureWindowsPath("C:\\runs"),
        "opt": argparse.Namespace(epochs=300, cfg=types.SimpleNamespace(lr=0.01)),
        "partial": functools.partial(nn.BatchNorm2d, eps=0.001),
        "device": torch.device("cuda", 1),
        "float": np.float32,
        "range": range(3),
        "class": nn.Conv2d,
    }
    got = read_checkpoint(saved(tmp_path, value), nobody)
    assert_same(got["optimizer"]["state"], optimizer.state_dict()["state"])
    assert got["whole"].class_path == "torch.optim.adam.Adam"
    assert got["scaler"] == value["scaler"]
    assert got["date"].class_path == "datetime.datetime"
    assert (got["path"], got["windows"]) == ("/runs/train/exp", "C:\\runs")
    assert got["opt"].state["epochs"] == 300
    assert got["opt"].state["cfg"].state == {"lr": 0.01}
    assert got["partial"].args == (Named("torch.nn.modules.batchnorm.BatchNorm2d"),)
    assert got["device"].args == ("cuda", 1)
    assert got["float"] == Named("numpy.float32")
    assert got["range"].args == (0, 3, 1)
    assert got["class"] == Named("torch.nn.modules.conv.Conv2d")


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module `models.common` with two classes, as a YOLO repository has it."""
    module = types.ModuleType("models.common")

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        raise AssertionError(self, x)

    for name, base in (("Conv", nn.Module), ("Names", list)):
        cls = type(name, (base,), {"forward": forward, "__module__": "models.common"})
        setattr(module, name, cls)
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.common", module)
    yield module
    for name in ("models", "models.common"):
        monkeypatch.delitem(sys.modules, name)


def block(common: types.ModuleType) -> nn.Module:
    made: nn.Module = common.Conv()
    made.conv = nn.Conv2d(2, 3, 1)
    made.act = nn.SiLU()
    made.inner = nn.Sequential(nn.BatchNorm2d(3), made.act)
    made.register_buffer("stride", torch.tensor([8.0, 16.0]))
    made.names = common.Names(["a", "b"])
    return made.half()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", FORMS)
def test_modules_come_out_as_what_they_hold(
    tmp_path: Path, common: types.ModuleType, zipped: bool
) -> None:
    want = block(common)
    path = saved(tmp_path, {"model": want, "epoch": -1}, zipped=zipped)
    del sys.modules["models.common"].Conv  # The class may not be looked for again.
    got = read_checkpoint(path, lambda name: name in ("models.common.Conv", "models.common.Names"))[
        "model"
    ]
    assert (type(got), got.class_path, got.args) == (Inert, "models.common.Conv", ())
    modules = got.state["_modules"]
    assert list(modules) == ["conv", "act", "inner"]
    assert modules["conv"].class_path == "torch.nn.modules.conv.Conv2d"
    assert modules["conv"].state["kernel_size"] == (1, 1)
    assert modules["inner"].state["_modules"]["1"] is modules["act"]
    assert_same(modules["conv"].state["_parameters"], dict(want.get_submodule("conv")._parameters))
    assert_same(got.state["_buffers"], dict(want._buffers))
    assert got.state["names"].items == ["a", "b"]


def test_an_unknown_block_is_named_with_the_way_to_register_it(
    tmp_path: Path, common: types.ModuleType
) -> None:
    path = saved(tmp_path, block(common))
    with pytest.raises(ForbiddenGlobalError) as caught:
        read_checkpoint(path, lambda name: name == "models.common.Names")
    assert str(caught.value) == (
        f"{path}: its pickle names models.common.Conv, for which yqc has no twin; "
        "nothing of it was run. If that is a block you know, register a traceable twin for it, "
        "in a file for --load:\n"
        "    import yqc\n"
        "    class MyTwin(nn.Module): ...\n"
        '    yqc.register_block("models.common.Conv", MyTwin)'
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: cannot be opened: No such file"):
        read_checkpoint(tmp_path / "absent.pt", nobody)
    with pytest.raises(CheckpointError, match="it is no file; give the checkpoint itself"):
        read_checkpoint(tmp_path, nobody)


def test_check_sums_may_be_left_out(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, MATRIX)
    finally:
        torch.serialization.set_crc32_options(before)
    assert_same(read_checkpoint(path, nobody), MATRIX)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NUMBERS = st.lists(st.floats(width=16), max_size=9).map(lambda row: torch.tensor(row).half())
NESTED = st.recursive(
    PLAIN | st.binary() | NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=4)
    ),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None)
@given(value=NESTED, zipped=st.booleans(), protocol=st.sampled_from([2, 3, 4, 5]))
def test_whatever_is_saved_is_read(
    tmp_path_factory: pytest.TempPathFactory, value: object, zipped: bool, protocol: int
) -> None:
    folder = tmp_path_factory.mktemp("round")
    assert_same(
        read_checkpoint(saved(folder, value, zipped=zipped, protocol=protocol), nobody), value
    )


GOLDEN = ["yolov5n", "yolov7-tiny", "yolov7", "yolov5nu", "yolov8n", "yolov9t", "yolov10n"]
GOLDEN += ["yolo11n", "yolo12n", "yolo26n"]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_checkpoints_hold_every_parameter(shared: Path, name: str) -> None:
    facts = json.loads((shared / "golden" / f"{name}.json").read_text())
    classes = set(facts["pickle_classes"])
    got = read_checkpoint(shared / "golden" / f"{name}.pt", classes.__contains__)
    weights = got["ema"] or got["model"]
    assert weights.class_path == facts["model_class"]
    found = {id(p): p for p in parameters(weights)}
    assert sum(p.numel() for p in found.values()) == facts["params"]
    assert {p.dtype for p in found.values()} == {torch.float16}


def parameters(module: Inert) -> Iterator[nn.Parameter]:
    yield from (p for p in module.state["_parameters"].values() if p is not None)
    for child in module.state["_modules"].values():
        yield from parameters(child)


@pytest.mark.parametrize("name", ["yolov5n-coco", "yolov7-tiny-bccd", "yolov8n-bccd"])
def test_trained_checkpoints_are_read_at_once(shared: Path, name: str) -> None:
    before = time.process_time()
    got = read_checkpoint(
        shared / "models" / f"{name}.pt", lambda path: path.startswith(("models.", "ultralytics."))
    )
    assert time.process_time() - before < 1.5  # 0.15 s on an idle machine
    assert sum(p.numel() for p in parameters(got["model"])) > 1_800_000


def test_without_its_classes_a_golden_checkpoint_is_refused(shared: Path) -> None:
    with pytest.raises(ForbiddenGlobalError, match=r"ultralytics\.nn\.tasks\.DetectionModel"):
        read_checkpoint(shared / "golden" / "yolov8n.pt", nobody)
