"""The README's table of families is the one that yqc prints.

Run this file as a program to write the table anew.
"""

import re
from pathlib import Path

from yqc.models.register import ULTRALYTICS, YOLOV5, YOLOV7, families, families_table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN = "<!-- families: written by `python tests/test_readme.py` -->\n"
END = "<!-- end of families -->\n"


def with_table(text: str) -> str:
    """Return the README's text with a fresh table between the two marks."""
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n{families_table()}\n{text[after:]}"


def test_the_readme_holds_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "write it anew with: python tests/test_readme.py"


def test_a_row_says_what_it_was_tested_by() -> None:
    assert families_table().splitlines()[:4] == [
        "| family | blocks | status |",
        "| --- | --- | --- |",
        "| YOLOv5 n to x, P6 (releases 4 to 7) | C3, SPPF, Detect | golden-tested: yolov5n |",
        "| YOLOv5 before, and variants | Focus, BottleneckCSP, SPP, C3TR, C3Ghost | unit-tested |",
    ]


def test_golden_tested_is_what_the_golden_tests_test() -> None:
    source = (ROOT / "tests" / "models" / "test_golden.py").read_text(encoding="utf-8")
    listed = re.search(r"^NAMES = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    assert listed is not None
    claimed = {name for row in families() for name in re.findall(r"yolo\w+(?:-\w+)?", row.golden)}
    assert claimed == set(re.findall(r'"([^"]+)"', listed[1]))


def test_the_blocks_named_exist() -> None:
    known = {*ULTRALYTICS, *YOLOV5, *YOLOV7, "ConvTranspose2d"}
    for row in families():
        named = re.findall(r"\b(?:[A-Z]\w*[A-Z0-9]\w*|v10Detect)\b", row.blocks)
        assert set(named) - known <= {"ReLU", "DFL"}, row.name


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
