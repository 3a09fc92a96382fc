"""What trainers store beside the weights counts, or is said to be ignored."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import yqc.models.pickles.read as reading
from yqc.errors import CheckpointError
from yqc.graph.serial import save_graph
from yqc.models.heads.picking import pick_best
from yqc.models.load import load
from yqc.models.source import open_model

Specs = Mapping[str, Any]
NAMES = ["a", "b", "c"]


def saved(path: Path, detector: Any, checkpoints: ModuleType, top: Any = None, **head: Any) -> Path:
    detector.head.__dict__ |= head
    return Path(checkpoints.save(path, detector, "ultralytics", names=NAMES, top=top or {}))


@pytest.fixture
def v26(checkpoints: ModuleType, specs: Specs) -> Any:
    """A small YOLO26 of random weights."""
    return checkpoints.make(specs["yolo26"])


def test_max_det_is_the_number_of_rows(tmp_path: Path, v26: Any, checkpoints: ModuleType) -> None:
    loaded = load(saved(tmp_path / "m.pt", v26, checkpoints, max_det=500))
    assert loaded.module(checkpoints.images(1, (256, 256))).shape == (1, 500, 6)
    assert loaded.warnings == ()


def test_agnostic_nms_gives_each_cell_once(
    tmp_path: Path, v26: Any, checkpoints: ModuleType
) -> None:
    x = checkpoints.images(1)
    plain = load(saved(tmp_path / "m.pt", v26, checkpoints)).module(x)
    rows = load(saved(tmp_path / "n.pt", v26, checkpoints, agnostic_nms=True)).module(x)
    assert len({tuple(row[:4].tolist()) for row in rows[0]}) == rows.shape[1]
    assert not torch.equal(rows, plain)


def test_agnostic_rows_hold_the_best_class_of_the_best_cells() -> None:
    boxes = torch.arange(4 * 3.0).view(1, 4, 3)
    scores = torch.tensor([[[0.9, 0.1, 0.3], [0.8, 0.7, 0.2]]])
    rows = pick_best(boxes, scores, 2, agnostic=True)[0]
    assert rows.tolist() == [
        pytest.approx([0, 3, 6, 9, 0.9, 0]),
        pytest.approx([1, 4, 7, 10, 0.7, 1]),
    ]


@pytest.mark.parametrize("key", ["end2end", "_end2end"])
def test_a_head_that_is_switched_off_is_not_used(
    key: str, tmp_path: Path, v26: Any, checkpoints: ModuleType
) -> None:
    path = saved(tmp_path / "m.pt", v26, checkpoints, **{key: False})
    loaded = load(path)
    assert loaded.layout == "yolov8"
    assert loaded.warnings == (
        "the file switches its one-to-one branches off: the others are used",
    )
    assert load(path, head="one2one").layout == "end2end"


def test_limits_of_picking_are_said_to_be_ignored_where_nothing_is_picked(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    loaded = load(saved(tmp_path / "m.pt", v8, checkpoints, max_det=500, agnostic_nms=True))
    assert [line.partition(",")[0] for line in loaded.warnings] == [
        "the head records max_det 500",
        "the head records agnostic_nms",
    ]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_cannot_be_is_refused(
    limit: int, tmp_path: Path, v26: Any, checkpoints: ModuleType
) -> None:
    with pytest.raises(CheckpointError, match=f"max_det is {limit}"):
        load(saved(tmp_path / "m.pt", v26, checkpoints, max_det=limit))


def test_a_size_that_is_not_recorded_is_assumed_aloud(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = saved(tmp_path / "m.pt", v8, checkpoints)
    assert open_model(path).warnings == (
        "the file records no image size; 640 x 640 is assumed, see --imgsz",
    )
    assert open_model(path, imgsz=(64, 64)).warnings == ()
    recorded = saved(tmp_path / "n.pt", v8, checkpoints, {"train_args": {"imgsz": [64, 96]}})
    source = open_model(recorded)
    assert (source.imgsz, source.warnings) == ((64, 96), ())


@pytest.mark.parametrize("key", ["modelopt", "modelopt_state"])
def test_ranges_beside_the_model_are_said_to_be_ignored(
    key: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    (said,) = load(saved(tmp_path / "m.pt", v8, checkpoints, {key: {"ranges": [1.0]}})).warnings
    assert said.startswith(f"the file holds ranges of quantization-aware training ({key})")
    assert load(saved(tmp_path / "n.pt", v8, checkpoints, {key: None})).warnings == ()


@pytest.mark.filterwarnings("ignore")  # torch's own, that its module will move
def test_observers_and_fake_quantizers_are_left_out_aloud(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    quantization: Any = torch.ao.quantization
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(v8, "ultralytics", names=NAMES)
        convs: list[Any] = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        for conv in convs:
            conv.qconfig = quantization.get_default_qat_qconfig("fbgemm")
            conv.activation_post_process = conv.qconfig.activation()
            conv.weight_fake_quant = conv.qconfig.weight()
            conv.__class__ = torch.ao.nn.qat.Conv2d
        torch.save({"model": model}, tmp_path / "m.pt")
    loaded = load(tmp_path / "m.pt")
    torch.testing.assert_close(loaded.module(x), want)
    assert [line.partition(",")[0].split(" ", 4)[4] for line in loaded.warnings] == [
        "ranges of quantization-aware training"
    ]


def test_a_model_of_one_channel(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    conv = v8.model[0].conv
    v8.model[0].conv = nn.Conv2d(1, conv.out_channels, 3, 2, 1, bias=False)
    x = checkpoints.images(1)[:, :1]
    with torch.no_grad():
        want = v8(x)
    path = saved(tmp_path / "m.pt", v8, checkpoints)
    loaded = load(path)
    assert loaded.facts.channels == 1
    torch.testing.assert_close(loaded.module(x), want)
    torch.testing.assert_close(open_model(path, imgsz=(128, 192)).gm(x), want)


def test_a_graph_file_keeps_the_channels(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    v8.model[0].conv = nn.Conv2d(1, v8.model[0].conv.out_channels, 3, 2, 1, bias=False)
    source = open_model(saved(tmp_path / "m.pt", v8, checkpoints), imgsz=(64, 64))
    save_graph(source.gm, tmp_path / "m.yqc", source.info())
    assert open_model(tmp_path / "m.yqc").facts == source.facts


def test_the_hash_is_of_the_bytes_that_were_read(
    tmp_path: Path, v8: Any, checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.pt", v8, checkpoints)
    want = load(path).sha256
    parse = reading._read

    def replaced_meanwhile(*args: Any) -> object:
        (tmp_path / "other").write_bytes(b"another model")
        (tmp_path / "other").replace(path)
        return parse(*args)

    monkeypatch.setattr(reading, "_read", replaced_meanwhile)
    assert load(path).sha256 == want


def test_a_file_that_is_written_to_while_it_is_read_is_refused(
    tmp_path: Path, v8: Any, checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.pt", v8, checkpoints)
    parse = reading._read

    def appended_meanwhile(*args: Any) -> object:
        value = parse(*args)
        with path.open("ab") as file:
            file.write(b"more")
        return value

    monkeypatch.setattr(reading, "_read", appended_meanwhile)
    with pytest.raises(CheckpointError, match="was written to while it was read"):
        load(path)


def test_five_hundred_rows_of_the_cases(shared: Path) -> None:
    path = shared / "cases" / "e_md500.pt"
    if not path.is_file():
        pytest.skip("needs the cases")
    assert load(path).module(torch.zeros(1, 3, 192, 192)).shape == (1, 500, 6)
