"""Schemas and reference pages in the docs are those of the code; `make schemas` writes them."""

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from yqc.report import Report
from yqc.report.contract import to_schema
from yqc.settings import SETTINGS, recipe_schema

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("name", "schema"),
    [("report.schema.json", to_schema(Report)), ("recipe.schema.json", recipe_schema())],
)
def test_the_schema_is_that_of_the_code(name: str, schema: dict[str, Any]) -> None:
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("YQC_WRITE_SCHEMAS"):
        (DOCS / name).write_text(text, encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == text, "run `make schemas`"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The program that writes the reference."""
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["commands.md", "passes.md", "recipe.md", "report.md", "python.md"]
)
def test_the_reference_is_that_of_the_code(reference: ModuleType, name: str) -> None:
    text = reference.PAGES[name]()
    if os.environ.get("YQC_WRITE_SCHEMAS"):
        (reference.REFERENCE / name).write_text(text, encoding="utf-8")
    assert (reference.REFERENCE / name).read_text(encoding="utf-8") == text, "run `make schemas`"


def test_the_reference_has_every_page(reference: ModuleType) -> None:
    assert sorted(reference.PAGES) == sorted(p.name for p in reference.REFERENCE.iterdir())


def test_the_schemas_name_and_describe_every_key() -> None:
    recipe = recipe_schema()["properties"]
    assert {*SETTINGS} < {*recipe}
    assert recipe["calib_images"]["description"] == "Images to calibrate on, at most."
    assert (recipe["calib_images"]["minimum"], recipe["calib_images"]["default"]) == (1, 128)
    report: Any = to_schema(Report)
    assert "float" in report["$defs"]["Accuracy"]["properties"]
    assert report["$defs"]["Latency"]["properties"]["rounds"]["type"] == "integer"
    assert report["additionalProperties"] is False
