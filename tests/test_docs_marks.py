"""The page of marks names every mark of yqc, where its class stands, and every state."""

import importlib
import pkgutil
import re
from pathlib import Path

import yqc
import yqc.quant
import yqc_passes
from yqc.graph.metadata import TOPICS

PAGE = (Path(__file__).parents[1] / "docs" / "marks.md").read_text("utf-8")
NO_CLASSES = {"value", "role"}
"""Topics that hold no mark."""


def test_the_table_has_every_mark_with_its_class() -> None:
    for place in (yqc.graph, yqc.quant, yqc_passes):
        for found in pkgutil.walk_packages(place.__path__, f"{place.__name__}."):
            importlib.import_module(found.name)
    rows = re.findall(r"^\| `([\w-]+)` \| `?([\w.]+)`?", PAGE, re.MULTILINE)
    listed = {topic: path for topic, path in rows if topic not in NO_CLASSES}
    own = {
        key.removeprefix("yqc."): kind for key, kind in TOPICS.items() if is_own(kind.__module__)
    }
    assert listed.keys() == own.keys()
    for topic, path in listed.items():
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name) is own[topic]


def is_own(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in {"yqc", "yqc_passes"}


def test_the_page_has_every_state() -> None:
    listed = PAGE.partition("`yqc.State`:")[2].partition(". ")[0]
    assert re.findall(r"`([\w-]+)`", listed) == [*map(str, yqc.State)]
