"""The HTML page: whole, self-contained, small, the same twice; and in a real browser without error.

The browser is a headless Chromium; without one in the PATH that test is skipped.
"""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from yqc.report import (
    Accuracy,
    DeviceFit,
    LoadedFile,
    Report,
    Sensitivity,
    SizeParts,
    Unfit,
    UsedPlugin,
    Verification,
)
from yqc.report.charts import charts, choose_marks
from yqc.report.html import SECTIONS, to_html
from yqc.report.page import (
    Box,
    ClassScore,
    Curve,
    Drawing,
    GraphNode,
    Page,
    Picture,
    ValueHistogram,
)

LIMIT = 50_000
"""Of a page of little: a library within it would take more."""


def node(name: str, x: float, y: float = 0, **more: Any) -> GraphNode:
    plain = GraphNode(
        name=name,
        op="Conv",
        type="f32[1,4,8,8]",
        role="backbone",
        x=x,
        y=y,
        bits=None,
        sqnr_db=None,
        bytes=0,
        passes=(),
        history="",
    )
    return replace(plain, **more)


def picture() -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (90, 60), (90, 120, 60)).save(buffer, "JPEG")
    box = Box(x=10, y=10, width=30, height=20, label="<cell>", score=0.91)
    return Picture(
        name="a.jpg",
        jpeg=buffer.getvalue(),
        width=90,
        height=60,
        float_=(box,),
        compiled=(replace(box, x=12),),
    )


@pytest.fixture
def page(sample: Report) -> Page:
    nodes = (
        node("images", 0, op="input"),
        node("a", 1, 1, bits=8, sqnr_db=20.0, passes=("fold-bn",), history="changed by fold-bn"),
        node("b", 1, -1, bits=8, sqnr_db=35.0),
        node("output", 2, role="head.decode"),
    )
    parts = SizeParts(weights=9000, scales=400, codebooks=64, biases=400, rest=0)
    costs = (Sensitivity(name="a", role="backbone", sqnr_db=18.0, agreement=0.97),)
    return Page(
        report=replace(
            sample,
            size=replace(sample.size, parts=parts),
            sensitivity=costs,
            warnings=("look <here>",),
        ),
        recipe='passes = "int8"\n',
        drawing=Drawing(nodes=nodes, edges=((0, 1), (0, 2), (1, 3), (2, 3))),
        spreads=(
            ValueHistogram(
                layer="a",
                what="weights",
                bits=8,
                edges=(-1.0, 0.0, 1.0),
                counts=(0, 7),
                low=-1,
                high=0.9,
            ),
        ),
        curves=(
            Curve(name="float", precision=(1.0, 0.8, 0.0)),
            Curve(name="compiled", precision=(1.0, 0.7, 0.0)),
        ),
        classes=(
            ClassScore(name="cell", float_=0.5, compiled=0.4),
            ClassScore(name="none", float_=None, compiled=None),
        ),
        pictures=(picture(),),
    )


def fitted(page: Page) -> Page:
    """The page of a compile for the file of a device."""
    unfit = Unfit(
        node="split", op="Split", limit="operators", what="the device has no Split", remedy=None,
        fix="no pass removes it <b>",
    )  # fmt: skip
    device = DeviceFit(
        path="npu.toml", sha256="0", base="portable", decode="full", inserted=("split-pools",),
        nodes=9, unfit_before=4, unfit=(unfit,), slow_activations=2, swap="relu",
    )  # fmt: skip
    return replace(page, report=replace(page.report, device=device))


def test_what_does_not_fit_a_device_is_shown(page: Page) -> None:
    text = to_html(fitted(page))
    assert (
        "4 nodes of the float file do not fit npu.toml, 1 of this one's 9. Inserted: split-pools."
        " 2 activations are not among those that it names as fast; relu puts in one that is."
    ) in text
    assert "<td>1 node: the device has no Split (1)</td>" in text
    assert "<td>no pass removes it &lt;b&gt;</td>" in text
    assert 'id="device"' not in to_html(page)


def test_every_section_is_there(page: Page) -> None:
    text = to_html(fitted(page))
    for anchor, title in SECTIONS:
        assert f'<section id="{anchor}"><h2>{title}</h2>' in text
        assert f'<a href="#{anchor}">{title}</a>' in text
    assert " px, for onnxruntime</p>" in text
    for shown in ("fold-bn", "changed by fold-bn", "codebooks", "a.jpg", "0.3377"):
        assert shown in text


def test_latency_is_shown_with_its_interval(page: Page) -> None:
    text = to_html(page)
    assert "1.24x as fast (95 %: 1.23x to 1.24x); onnxruntime 1.32.0, 1 thread, 20 rounds" in text
    assert "54.1 to 57.0 -&gt; 43.9 to 45.2 ms" in text
    assert "to open the file in" not in text
    assert page.report.latency is not None
    slow = replace(page.report, latency=replace(page.report.latency, load_ms=(120.0, 300.0)))
    assert "to open the file in onnxruntime" in to_html(replace(page, report=slow))


def test_what_is_not_yqcs_own_is_named(page: Page) -> None:
    mine = UsedPlugin(kind="pass", name="snap", origin="snap.py", file="snap.py", sha256="ab")
    text = to_html(replace(page, report=replace(page.report, plugins=(mine,))))
    assert "<p>plugin: pass snap, snap.py</p>" in text


def test_the_command_has_its_files_and_what_does_not_run_is_said(page: Page) -> None:
    report = replace(
        page.report,
        loaded=(LoadedFile(path="my gate.py", sha256="ab"),),
        accuracy=Accuracy.unmeasured(),
        verification=Verification(not_run="acme.ops"),
    )
    text = to_html(replace(page, report=report))
    assert "--load &#39;my gate.py&#39; --target" in text
    assert "Not measured: the file is valid, and does not run in onnxruntime" in text
    assert "acme.ops" in text
    assert "measuring was turned off" not in text


def test_it_asks_for_nothing_and_is_small(page: Page) -> None:
    text = to_html(page)
    assert len(text.encode()) < LIMIT
    assert "default-src 'none'" in text
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    sources = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert sources
    assert all(s.startswith(("#", "data:")) for s in sources)
    assert '<link rel="stylesheet' not in text


def test_names_are_escaped(page: Page) -> None:
    text = to_html(page)
    assert "look &lt;here&gt;" in text
    assert "&lt;cell&gt;" in text
    assert "<cell>" not in text
    assert "<here>" not in text


def test_the_same_page_gives_the_same_text(page: Page) -> None:
    assert to_html(page) == to_html(page)


def test_a_page_of_little_says_what_was_not_measured(page: Page) -> None:
    bare = replace(
        page,
        report=replace(page.report, sensitivity=None, warnings=(), layers=(), passes=()),
        drawing=Drawing(nodes=(), edges=()),
        spreads=(),
        curves=(),
        classes=(),
        pictures=(),
    )
    text = to_html(bare)
    for gone in ("warnings", "images", "ranges", "graph"):
        assert f'<section id="{gone}"' not in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_an_error(
    page: Page, tmp_path: Path, scheme: str, width: int
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a headless Chromium in the PATH")
    path = tmp_path / "x.html"
    path.write_text(to_html(page), encoding="utf-8")
    options = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--window-size={width},2000",
    ]
    done = subprocess.run(  # noqa: S603  # found above
        [browser, *options, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    assert 'data-ready="yes"' in done.stdout, "the page's own script has run"
    for anchor, _ in SECTIONS:
        assert (f'<section id="{anchor}"' in done.stdout) == (anchor != "device")
    assert len(re.findall(r"<svg class=\"spread weights\"", done.stdout)) == 1


def test_charts_and_graph_are_there_without_a_script(page: Page) -> None:
    text = re.sub(r"<script>.*?</script>", "", to_html(page), flags=re.DOTALL)
    assert text.count('<div class="plane ') == 4  # bytes, noise, sensitivity, curves
    assert text.count('<div class="rows">') == 3  # causes, classes, sizes
    assert '<rect class="backbone" x="3.75%" y="15.29%" width="42.5%" height="84.71%">' in text
    assert "<title>0 model.0.conv: backbone, 6,912 bytes</title>" in text
    assert "<title>1 model.24.m.0: 23.4 dB, bits 4/8</title>" in text
    assert '<span class="compiled" style="width:32.0%"></span>0.4000</div>' in text
    assert text.count("<g ") - text.count('<g class="float') - text.count('<g class="comp') == 4
    assert "<title>a\nConv f32[1,4,8,8]\nbackbone, 8 bits, SQNR 20.0 dB\nchanged by fold-bn" in text
    assert 'data-p="1"' in text, "the second pass changed it"
    assert '<div class="controls" hidden>' in text


def test_every_chart_leaves_out_what_was_not_measured(page: Page) -> None:
    layers = tuple(replace(one, sqnr_db=None) for one in page.report.layers)
    bare = replace(page, report=replace(page.report, sensitivity=None, layers=layers), curves=())
    assert {*charts(bare)} == {"bytes_by_cause", "bytes_by_layer", "classes", "sizes"}


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 14_200, [0, 5000, 10_000]),
        (18.2, 48.1, [20, 30, 40]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3.1, 2.2, [-2, 0, 2]),
        (7, 7, [7]),
    ],
)
def test_axes_have_round_numbers(low: float, high: float, marks: list[float]) -> None:
    assert choose_marks(low, high) == marks


def test_control_characters_are_escaped_everywhere(page: Page) -> None:
    hostile = "\x1b[31mred\x9b2J\u202e"
    first, *rest = page.drawing.nodes
    text = to_html(
        replace(
            page,
            report=replace(page.report, warnings=(hostile,)),
            recipe=f"a = 1\nb = {hostile!r}\n",
            classes=(ClassScore(name=hostile, float_=0.5, compiled=0.4),),
            drawing=replace(page.drawing, nodes=(replace(first, name=hostile), *rest)),
            pictures=(replace(page.pictures[0], name=hostile),),
        )
    )
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "".join(c for c in markup if c != "\n").isprintable()
    assert markup.count(r"\x1b[31mred") >= 3
    assert "a = 1\nb = " in markup
