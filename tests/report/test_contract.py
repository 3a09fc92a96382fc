"""The JSON of a report is a contract: exactly its keys, exactly its types, strictly read back."""

import dataclasses
import json
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yqc.errors import DataError
from yqc.report import (
    Accuracy,
    Agreement,
    Latency,
    Report,
    RoundTripError,
    Scores,
    Size,
    Verification,
    to_json,
)
from yqc.report.parts import ratio

SCORES = {
    **dict.fromkeys(("map", "map50", "map75", "small", "medium"), "float"),
    **dict.fromkeys(("large", "mask", "keypoints", "rotated", "top1", "top5"), "NoneType"),
}
FULL = {
    "schema": "str",
    "yqc": "str",
    "input": {
        "path": "str",
        "sha256": "str",
        "family": "str",
        "task": "str",
        "params": "int",
        "nc": "int",
        "names": ["str"],
        "strides": ["int"],
        "imgsz": ["int"],
    },
    "data": {"path": "str", "sha256": "str", "images": "int"},
    "target": "str",
    "loaded": [{"path": "str", "sha256": "str"}],
    "pipeline": {"text": "str", "expanded": "str", "dropped": ["str"]},
    "passes": [
        {
            "name": "str",
            "seconds": "float",
            "rewrites": "int",
            "skips": [{"node": "str", "why": "str"}],
            "says": ["str"],
            "changed": "bool",
            "nodes_before": "int",
            "nodes_after": "int",
            "weight_bytes_before": "int",
            "weight_bytes_after": "int",
            "max_abs_error": "float",
            "sqnr_db": "float",
            "values": [],
        }
    ],
    "size": {
        "params_before": "int",
        "params_after": "int",
        "fp32_bytes": "int",
        "fp16_bytes": "int",
        "weight_bytes": "int",
        "file_bytes": "int",
        "deflated_bytes": "int",
        "ratio_vs_fp32": "float",
        "ratio_vs_fp16": "float",
        "file_ratio_vs_fp32": "float",
        "parts": "NoneType",
    },
    "compute": {"macs_before": "int", "macs_after": "int"},
    "accuracy": {
        "kind": "str",
        "images": "int",
        "baseline": "str",
        "float": SCORES,
        "compiled": SCORES,
        "drop": "float",
        "relative_drop": "float",
        "interval": ["float"],
        "task": "str",
        "main": "str",
        "agreement": "NoneType",
        "outputs": "NoneType",
        "classes": [],
    },
    "verification": {
        "optimized": {"boxes": "float", "scores": "float", "extra": "float"},
        "unoptimized": {"boxes": "float", "scores": "float", "extra": "float"},
        "within_tolerance": "bool",
        "not_run": "NoneType",
    },
    "latency": {
        "runtime": "str",
        "version": "str",
        "float_ms": "float",
        "compiled_ms": "float",
        "p10": ["float"],
        "p90": ["float"],
        "ratio": "float",
        "interval": ["float"],
        "rounds": "int",
        "threads": "int",
        "load_ms": ["float"],
        "machine": "NoneType",
    },
    "layers": [
        {
            "name": "str",
            "role": "str",
            "op": "str",
            "shape": ["int"],
            "weight_bits": "float",
            "activation_bits": "int",
            "scheme": "str",
            "granularity": "str",
            "rounding": "str",
            "weight_bytes": "int",
            "sqnr_db": "float",
            "sensitivity": "NoneType",
        }
    ],
    "warnings": ["str"],
    "environment": {
        "python": "str",
        "torch": "str",
        "onnx": "str",
        "onnxruntime": "str",
        "onnxsim": "str",
        "numpy": "str",
        "platform": "str",
        "cpu": "str",
        "threads": "int",
        "torch_threads": "int",
        "seed": "int",
    },
    "swaps": [],
    "device": "NoneType",
    "plugins": [],
    "sensitivity": "NoneType",
}


def outline(value: Any) -> Any:
    """Keys in order and types; of a list, those of its elements that differ from each other."""
    if isinstance(value, dict):
        return {key: outline(one) for key, one in value.items()}
    if isinstance(value, list):
        return [outline(value[0])] if value else []
    return type(value).__name__


ANY, FINITE = st.floats(), st.floats(allow_nan=False, allow_infinity=False)


def anything(kind: Any, floats: st.SearchStrategy[float] = ANY) -> st.SearchStrategy[Any]:
    """Values of a declared type: any float at all, any text, counts as large as they get.

    Times are measured, so those of a latency are finite; the ends of intervals are, too.
    """
    inner, floats = get_args(kind), FINITE if kind is Latency else floats
    if get_origin(kind) is Literal:
        return st.sampled_from(inner)
    if get_origin(kind) in (UnionType, Union):
        return st.one_of(*(anything(one, floats) for one in inner))
    if get_origin(kind) is tuple and inner[-1] is Ellipsis:
        return st.lists(anything(inner[0], floats), max_size=3).map(tuple)
    if get_origin(kind) is tuple:
        return st.tuples(*(anything(one, FINITE) for one in inner))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=90),
        int: st.integers(0, 10**13),
        float: floats,
        bool: st.booleans(),
        NoneType: st.none(),
        Mapping[str, float]: st.dictionaries(st.text(max_size=9), FINITE, max_size=3),
    }
    if kind in plain:
        return plain[kind]
    hints = get_type_hints(kind)
    return st.builds(
        kind, **{one.name: anything(hints[one.name], floats) for one in dataclasses.fields(kind)}
    )


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def changed(report: Report, *keys: str | int, to: object) -> str:
    """The JSON of a report with one value replaced."""
    top = json.loads(report.to_json())
    place = top
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return json.dumps(top)


def test_has_exactly_the_keys_and_types_of_the_contract(sample: Report) -> None:
    brief = dataclasses.replace(sample, passes=sample.passes[:1], layers=sample.layers[1:])
    found = json.loads(brief.to_json())
    assert outline(found) == FULL
    assert json.dumps(outline(found)) == json.dumps(FULL), "the keys are in another order"
    assert found["schema"] == "1"
    assert found["input"]["imgsz"] == [640, 480]


def test_is_null_where_nothing_was_measured(sample: Report) -> None:
    bare = dataclasses.replace(
        sample,
        accuracy=Accuracy.unmeasured(),
        latency=None,
        verification=Verification(),
        size=Size.measured(params_before=3, params_after=None, weight_bytes=None, file_bytes=None),
    )
    found = json.loads(bare.to_json())
    assert found["accuracy"] == {
        "kind": "none",
        "task": "detect",
        "main": None,
        "images": 0,
        "baseline": None,
        "float": None,
        "compiled": None,
        "drop": None,
        "relative_drop": None,
        "interval": None,
        "agreement": None,
        "outputs": None,
        "classes": [],
    }
    assert found["latency"] is None
    assert found["verification"]["within_tolerance"] is None
    assert found["size"] == {
        "params_before": 3,
        "params_after": None,
        "fp32_bytes": 12,
        "fp16_bytes": 6,
        "weight_bytes": None,
        "file_bytes": None,
        "deflated_bytes": None,
        "ratio_vs_fp32": None,
        "ratio_vs_fp16": None,
        "file_ratio_vs_fp32": None,
        "parts": None,
    }


def test_reads_back_what_it_wrote(sample: Report) -> None:
    assert Report.from_json(sample.to_json()) == sample


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(report=anything(Report))
def test_any_numbers_and_names_give_strict_json(report: Report) -> None:
    text = report.to_json()
    assert finite(json.loads(text))
    assert text.encode("utf-8").endswith(b"}\n")
    assert Report.from_json(text).to_json() == text


def test_prints_the_same_bytes_each_time(sample: Report) -> None:
    twin = dataclasses.replace(
        sample, environment=type(sample.environment).here(threads=1, torch_threads=1, seed=0)
    )
    assert twin.to_json() == sample.to_json()
    assert '"fenêtre"' in sample.to_json()


def test_keeps_a_file_name_that_is_no_utf8(sample: Report) -> None:
    path = b"mod\xe8le.pt".decode("utf-8", "surrogateescape")
    odd = dataclasses.replace(sample, input=dataclasses.replace(sample.input, path=path))
    text = odd.to_json().encode("utf-8").decode("utf-8")
    assert Report.from_json(text).input.path == r"mod\udce8le.pt"


def test_takes_numbers_of_numpy_and_whole_floats() -> None:
    numbers: list[object] = [np.float32(0.5), np.float64(2), np.nan, np.int64(1), -np.inf, 2]
    assert json.loads(to_json(numbers)) == [0.5, 2.0, None, 1, None, 2]
    with pytest.raises(TypeError, match="complex has no form in JSON"):
        to_json(1j)


def test_writes_whole_floats_as_floats(sample: Report) -> None:
    assert sample.latency is not None
    latency = dataclasses.replace(sample.latency, float_ms=2)
    assert '"float_ms": 2.0,' in dataclasses.replace(sample, latency=latency).to_json()


def test_finds_a_wrong_type_when_it_is_written(sample: Report) -> None:
    wrong = dataclasses.replace(sample, yqc=1)  # type: ignore[arg-type]  # the subject
    with pytest.raises(DataError, match=r"^report: yqc must be a valid string, not 1$"):
        wrong.to_json()


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("schema",), "2", """schema must be '1', not "2\""""),
        (("input", "params"), 1.5, "input.params must be a valid integer, not 1.5"),
        (("input", "params"), True, "input.params must be a valid integer, not true"),
        (("input", "params"), None, "input.params must be a valid integer, not null"),
        (("input", "imgsz"), [640], "key 'input.imgsz[1]' is missing"),
        (("input", "names"), "a", 'input.names must be a valid array, not "a"'),
        (("input", "names"), ["a", 2], "input.names[1] must be a valid string, not 2"),
        (("passes", 1, "changed"), 0, "passes[1].changed must be a valid boolean, not 0"),
        (("accuracy", "drop"), "low", 'accuracy.drop must be a valid number, not "low"'),
        (("accuracy", "kind"), None, "accuracy.kind must be 'map', 'agreement' or 'none'"),
        (("size",), 3, "size must be an object, not 3"),
        (("size", "mood"), 3, "key 'size.mood' is unknown"),
        (("latency",), {"threads": 1}, "key 'latency.runtime' is missing"),
        (("latency", "ratio"), 10**400, "latency.ratio must be a finite number"),
    ],
)
def test_refuses_another_contract(
    sample: Report, keys: tuple[str | int, ...], value: object, says: str
) -> None:
    with pytest.raises(DataError) as refusal:
        Report.from_json(changed(sample, *keys, to=value))
    assert says in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000])
def test_refuses_what_is_no_json(text: str) -> None:
    with pytest.raises(DataError, match="not a JSON report"):
        Report.from_json(text)


@pytest.mark.parametrize("text", ["[]", "[NaN]", "null", "{}", '{"schema": 1e999}'])
def test_refuses_json_that_is_no_report(text: str) -> None:
    with pytest.raises(DataError, match=r"^report: "):
        Report.from_json(text)


def test_derives_ratios_and_drop() -> None:
    size = Size.measured(params_before=1000, params_after=500, weight_bytes=800, file_bytes=1600)
    assert (size.ratio_vs_fp32, size.ratio_vs_fp16, size.file_ratio_vs_fp32) == (5.0, 2.5, 2.5)
    one = Scores(map=0.5, map50=0.6, map75=0.5, small=None, medium=0.0, large=None)
    two = dataclasses.replace(one, map=0.75)
    accuracy = Accuracy.of_map(images=3, float_=one, compiled=two)
    assert accuracy.drop == -0.25
    assert accuracy.float_ == one
    agreed = Accuracy.of_agreement(images=3, agreement=Agreement(ap50=0.5, map=None))
    assert agreed.agreement == Agreement(ap50=0.5, map=None)


def test_divides_by_nothing() -> None:
    size = Size.measured(params_before=0, params_after=0, weight_bytes=0, file_bytes=9)
    assert (size.ratio_vs_fp32, size.file_ratio_vs_fp32) == (None, 0.0)
    assert ratio(1e300, 1e-300) is None
    assert ratio(None, 1.0) is None
    nothing = Scores(map=None, map50=None, map75=None, small=None, medium=None, large=None)
    assert Accuracy.of_map(images=0, float_=nothing, compiled=nothing).drop is None


def test_takes_over_a_round_trip() -> None:
    found = Verification(
        optimized=RoundTripError.of(1e-6, 2e-6),
        unoptimized=RoundTripError.of(0.5, 0.25, extra=0.125),
        within_tolerance=False,
    )
    assert json.loads(to_json(found)) == {
        "optimized": {"boxes": 1e-6, "scores": 2e-6, "extra": 0.0},
        "unoptimized": {"boxes": 0.5, "scores": 0.25, "extra": 0.125},
        "within_tolerance": False,
        "not_run": None,
    }
    assert RoundTripError.of(0, 0, 1e-7) == RoundTripError(boxes=None, scores=None)
