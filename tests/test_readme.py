"""The table of what loads, family by family: it names what is there and what is tested.

Run this file as a program to write the table anew.
"""

import re
from pathlib import Path
from typing import NamedTuple

from yqc.models.register import SHARED, ULTRALYTICS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
BEGIN = "<!-- families: written by `python tests/test_readme.py` -->\n"
END = "<!-- end of families -->\n"


class Family(NamedTuple):
    """A row of the table of what loads."""

    name: str
    blocks: str
    """Its typical blocks."""
    golden: str = ""
    """The models of it that are golden-tested."""

    @property
    def status(self) -> str:
        """`golden-tested`, with the models, or `unit-tested`.

        Golden-tested: a checkpoint that the project wrote gives the outputs that the project
        computes. Unit-tested: a checkpoint of the same form with every block of the family, written
        by the tests, loads, traces, and computes the same before and after.
        """
        return f"golden-tested: {self.golden}" if self.golden else "unit-tested"


def families() -> tuple[Family, ...]:
    """Return what loads, family by family; sizes of a family are made of the same blocks."""
    return (
        Family("YOLOv5 n to x, P6 (releases 4 to 7)", "C3, SPPF, Detect", "yolov5n"),
        Family("YOLOv5 before, and variants", "Focus, BottleneckCSP, SPP, C3TR, C3Ghost"),
        Family("YOLOv7 tiny, v7, x", "RepConv, SPPCSPC, MP, IDetect", "yolov7-tiny, yolov7"),
        Family("YOLOv7 w6, e6, d6, e6e", "ReOrg, DownC, Shortcut, IAuxDetect"),
        Family("YOLOv3u, v5u (Ultralytics)", "C3, SPP, SPPF, Bottleneck", "yolov5nu"),
        Family("YOLOv6 (Ultralytics)", "Conv with ReLU, ConvTranspose2d"),
        Family("YOLOv8 n to x, P2, P6", "C2f, SPPF, Detect", "yolov8n"),
        Family("YOLOv8 ghost", "C3Ghost, GhostConv"),
        Family("YOLOv9 t to m", "RepNCSPELAN4, ELAN1, AConv, SPPELAN", "yolov9t"),
        Family("YOLOv9 c, e", "ADown, CBLinear, CBFuse"),
        Family("YOLOv9, GELAN of their authors", "DDetect, DualDDetect, TripleDDetect"),
        Family("YOLOv10 n to x", "SCDown, C2fCIB, PSA, v10Detect", "yolov10n, both heads"),
        Family("YOLO11 n to x", "C3k2, C2PSA", "yolo11n"),
        Family("YOLO12 n to x", "A2C2f, area attention", "yolo12n"),
        Family("YOLO26 n to x", "C3k2 with attention, no DFL", "yolo26n, both heads"),
        Family("YOLOv8, 9, 11, 12 -seg, P6", "Segment, Proto", "yolo11n-seg"),
        Family("YOLOv8, 11, 12 -pose, P6", "Pose", "yolo11n-pose"),
        Family("YOLOv8, 11, 12 -obb", "OBB", "yolov8n-obb"),
        Family("YOLOv8, 11, 12, 26 -cls", "Classify", "yolo11n-cls"),
        Family("YOLO26 -seg", "Segment26, Proto26", "yolo26n-seg, both heads"),
        Family("YOLO26 -pose", "Pose26", "yolo26n-pose, both heads"),
        Family("YOLO26 -obb", "OBB26", "yolo26n-obb, both heads"),
        Family("YOLOv5 -seg, -cls (its project)", "Segment, Proto; Classify"),
    )


def families_table() -> str:
    """Return `families()` as the Markdown table that the page holds."""
    rows = [f"| {row.name} | {row.blocks} | {row.status} |\n" for row in families()]
    return "".join(["| family | blocks | status |\n", "| --- | --- | --- |\n", *rows])


def with_table(text: str) -> str:
    """Return the page's text with a fresh table between the two marks."""
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n{families_table()}\n{text[after:]}"


def test_the_page_holds_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_table(text), "write it anew with: python tests/test_readme.py"


def test_a_row_says_what_it_was_tested_by() -> None:
    assert families_table().splitlines()[:4] == [
        "| family | blocks | status |",
        "| --- | --- | --- |",
        "| YOLOv5 n to x, P6 (releases 4 to 7) | C3, SPPF, Detect | golden-tested: yolov5n |",
        "| YOLOv5 before, and variants | Focus, BottleneckCSP, SPP, C3TR, C3Ghost | unit-tested |",
    ]


def test_golden_tested_is_what_the_golden_tests_test() -> None:
    tested = set()
    for file, name in (
        ("models/test_golden.py", "NAMES"),
        ("test_golden_tasks.py", "NAMES"),
        ("test_golden_tasks.py", "DUAL"),
    ):
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        listed = re.search(rf"^{name} = \((.*?)\)$", source, re.MULTILINE | re.DOTALL)
        assert listed is not None
        tested |= set(re.findall(r'"([^"]+)"', listed[1]))
    claimed = {name for row in families() for name in re.findall(r"yolo\w+(?:-\w+)?", row.golden)}
    assert claimed == tested


def test_the_blocks_named_exist() -> None:
    known = {*ULTRALYTICS, *SHARED, "ConvTranspose2d"}
    for row in families():
        named = re.findall(r"\b(?:[A-Z]\w*[A-Z0-9]\w*|v10Detect)\b", row.blocks)
        assert set(named) - known <= {"ReLU", "DFL"}, row.name
        assert re.split(r"[ ,]", row.blocks)[0] in known, row.name


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
