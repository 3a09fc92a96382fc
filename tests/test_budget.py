"""Budgets: what is read, what is refused with a caret, which bounds a file misses."""

from pathlib import Path

import pytest

from tests.command import Run, here
from yqc import Budget, SettingError
from yqc.settings import Drop


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        ("1%", Drop(0.01, relative=True)),
        ("0.005", Drop(0.005, relative=False)),
        ("0", Drop(0.0, relative=False)),
        *((text, None) for text in ("1.5", "-1%", "100%", "1%%", "", "nan", "1 %")),
    ],
)
def test_a_drop_is_relative_or_absolute(text: str, drop: Drop | None) -> None:
    if drop is not None:
        assert Budget(max_drop=text).drop == drop
        return
    with pytest.raises(SettingError) as caught:
        Budget(max_drop=text)
    first, shown, caret = str(caught.value).split("\n")
    assert "must be a share" in first
    assert shown[caret.index("^") : caret.rindex("^") + 1] == (text or " ")


@pytest.mark.parametrize(("text", "size"), [("1MB", 10**6), ("950KB", 950_000), ("0", None)])
def test_bytes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(SettingError, match="must be a number of bytes"):
            Budget(max_size=text)
    else:
        assert Budget(max_size=text).size == size


@pytest.mark.parametrize(
    ("text", "ms"), [("20", 20.0), ("2.5ms", 2.5), ("0", None), ("inf", None), ("fast", None)]
)
def test_milliseconds(text: str, ms: float | None) -> None:
    if ms is None:
        with pytest.raises(SettingError, match="must be a number of milliseconds"):
            Budget(max_ms=text)
    else:
        assert Budget(max_ms=text).ms == ms


def test_what_is_missed_is_named() -> None:
    budget = Budget(max_drop="1%", max_size="1MB", max_ms=20)
    assert str(budget) == "a drop of at most 1%, at most 1MB, at most 20 ms"
    assert budget.missed(loss=0.01, size=10**6, ms=20.0) == ()
    assert budget.missed(loss=0.011, size=10**6 + 1, ms=None) == ("max_drop", "max_size", "max_ms")
    assert Budget().missed(loss=None, size=10**9, ms=None) == ()


def test_a_compile_that_loses_more_writes_nothing(run: Run, data: Path) -> None:
    model = Path(__file__).parents[1] / "examples" / "shapes" / "shapes.yqc"
    how = ("compile", model, "--passes", "int4{spare=0}", "--data", data, "--no-latency")
    over = run(*how, "--max-drop", "0", "-o", "x.onnx", "--calib-images", 8)
    assert over.code == 3, over.err
    assert "more than --max-drop 0; nothing was written" in over.err
    assert here() == {}


def test_a_loss_that_is_not_measured_is_refused_before_any_work(run: Run, data: Path) -> None:
    for more in ((), ("--data", data, "--no-eval")):
        refused = run("compile", "model.pt", "--passes", "int4", "--max-drop", "1%", *more)
        assert refused.code == 2
        assert "--max-drop cannot be checked" in refused.err
