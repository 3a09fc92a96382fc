"""What a user sees after a compile, at exactly 80 columns."""

import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from yqc.report import (
    Accuracy,
    Agreement,
    PassRecord,
    PipelineText,
    Report,
    RoundTripError,
    SizeParts,
    UsedPlugin,
    Verification,
    WrittenFile,
    layers_table,
    make_console,
    written_files,
)

Print = Callable[[RenderableType], str]

PAGE = """\
model     yolov5n-coco.pt
          yolov5, detect, 2 classes, 640 x 480
pipeline  prune{ratio=0.3},int8
runs as   prune{ratio=0.3},fold-bn,observe,calibrate,quantize
left out  recover (of prune): it runs once, and recover comes later
target    onnxruntime

#  pass        ms  rewrites  skips       nodes         weights  max err
1  prune      310        24      3         231  12.1 -> 7.9 MB     0.41
2  fold-bn     41        57      0  231 -> 174          7.9 MB  3.1e-06
3  observe  11300         0      2         174          7.9 MB        0
   why 3 skipped: yqc explain prune
   why 2 skipped: yqc explain observe

prune: 30.0% of params removed by l2

size                    before     after     ratio
weights, as float32     7.5 MB    1.3 MB     5.93x
weights, as float16     3.7 MB    1.3 MB     2.96x
file, as float32        7.5 MB    1.4 MB     5.35x
  deflated                        1.2 MB
parameters              1.87 M    1.21 M     1.55x
MACs                    2.25 G    1.60 G     1.41x
bits a weight               32      8.35     3.83x

mAP, 128 images          float  compiled      drop
50-95                   0.3377    0.3351    0.0026
50                      0.5012    0.4998    0.0014
75                      0.3611    0.3577    0.0034
small                   0.1922    0.1947   -0.0025
medium                  0.3901    0.3866    0.0035
large                        -         -         -
relative drop of mAP: 0.8 %; 95 % interval over images: -0.4 to 1.9 %

file vs graph         equal within tolerance: boxes 2.1e-06, scores 4e-07
latency               54.6 -> 44.2 ms, 1.24x as fast (95 %: 1.23x to 1.24x)
  10 to 90 %          54.1 to 57.0 -> 43.9 to 45.2 ms
  in                  onnxruntime 1.32.0, 1 thread, 20 rounds in turn

warning   activation ranges come from the batch norms, since no calibration
          images were given
"""

UNMEASURED = """\
accuracy              not measured

file vs graph         NOT equal within tolerance
  optimised run       boxes 0.021, scores 0.003
  plain run           boxes 1.2e-06, scores -
latency               not measured
"""

AGREEMENT = """\
agreement                 AP50       mAP
with the float model    0.9120    0.8300
on 64 images without labels: how alike the two detect, not how well

file vs graph         not compared
"""

LAYERS = """\
layer           how                            shape  w/a   bytes    dB
backbone
  model.0.conv  -                           16x3x6x6  -/-  6.9 kB     -
head.box
  model.24.m.0  symmetric channel gptq  255x64x1x1x1  4/8  8.2 kB  23.4
"""

LONG = "a_module_that_someone_named_at_length." * 4
HOSTILE = "\x1b[31m[red]\r\n\x07\u202e名前"


def at_most_80(text: str) -> bool:
    return all(cell_len(line) <= 80 and line == line.rstrip() for line in text.split("\n"))


def test_the_page_of_a_compile(sample: Report, printed: Print) -> None:
    assert printed(sample) == PAGE


def test_says_what_was_not_measured_and_what_is_wrong(sample: Report, printed: Print) -> None:
    verification = Verification(
        optimized=RoundTripError(boxes=0.021, scores=3e-3),
        unoptimized=RoundTripError(boxes=1.2e-6, scores=None),
        within_tolerance=False,
    )
    page = printed(
        dataclasses.replace(
            sample,
            accuracy=Accuracy.unmeasured(),
            verification=verification,
            latency=None,
            warnings=(),
        )
    )
    assert page.endswith(f"\n\n{UNMEASURED}")


def test_what_is_not_yqcs_own_is_named(sample: Report, printed: Print) -> None:
    mine = UsedPlugin(
        kind="criterion", name="entropy", origin="acme-yqc 1.2", file="acme/entropy.py", sha256="ab"
    )
    page = printed(dataclasses.replace(sample, plugins=(mine,)))
    assert "target    onnxruntime\nplugin    criterion entropy, acme-yqc 1.2\n" in page


def test_a_long_load_time_is_shown(sample: Report, printed: Print) -> None:
    """From twice the float file's on."""
    assert sample.latency is not None
    for load, shown in ((240.0, False), (241.0, True)):
        latency = dataclasses.replace(sample.latency, load_ms=(120.0, load))
        page = printed(dataclasses.replace(sample, latency=latency))
        assert ("\n  load                120 -> 241 ms\n" in page) is shown


def test_labels_agreement_as_agreement(sample: Report, printed: Print) -> None:
    agreed = Accuracy.of_agreement(images=64, agreement=Agreement(ap50=0.912, map=0.83))
    page = printed(dataclasses.replace(sample, accuracy=agreed, verification=Verification()))
    assert f"\n\n{AGREEMENT}" in page
    assert "drop" not in page


def test_an_empty_pipeline_has_no_ledger(sample: Report, printed: Print) -> None:
    nothing = PipelineText(text="", expanded="")
    page = printed(dataclasses.replace(sample, pipeline=nothing, passes=()))
    assert page.splitlines()[2:6] == [
        "pipeline  no passes",
        "target    onnxruntime",
        "",
        "size                    before     after     ratio",
    ]


def test_layers_stand_under_their_part_of_the_model(sample: Report, printed: Print) -> None:
    first, last = sample.layers
    deep = dataclasses.replace(last, shape=(255, 64, 1, 1, 1))
    assert printed(layers_table([first, deep])) == LAYERS
    other = dataclasses.replace(first, name="model.1", role="backbone")
    regrouped = printed(layers_table([first, last, other])).splitlines()
    assert [line.split()[0] for line in regrouped[1:]] == [
        "backbone",
        "model.0.conv",
        "model.1",
        "head.box",
        "model.24.m.0",
    ]


def test_the_damage_of_layers_is_shown_where_it_was_measured(
    sample: Report, printed: Print
) -> None:
    first, last = sample.layers
    lines = printed(layers_table([first, dataclasses.replace(last, sensitivity=0.0725)]))
    heads, *rows = lines.splitlines()
    assert heads.split()[-2:] == ["dB", "damage"]
    assert [row.split()[-1] for row in rows if row.startswith("  ")] == ["-", "0.072"]


def test_weights_are_split_into_what_they_are_made_of(sample: Report, printed: Print) -> None:
    parts = SizeParts(weights=935_264, scales=21_172, codebooks=0, biases=11_274, rest=1784)
    page = dataclasses.replace(sample, size=dataclasses.replace(sample.size, parts=parts))
    lines = printed(page).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("weights, as float16"))
    assert [line.split() for line in lines[at + 1 : at + 5]] == [
        ["weights", "935", "kB"],
        ["scales", "21.2", "kB"],
        ["biases", "11.3", "kB"],
        ["rest", "1.8", "kB"],
    ]


def test_files_are_named_with_their_sizes(printed: Print) -> None:
    files = [WrittenFile(path="a.onnx", bytes=1_401_022), WrittenFile(path="a.toml", bytes=402)]
    assert printed(written_files(files)) == "wrote     a.onnx  1.4 MB\n          a.toml  402 B\n"


def test_a_pipeline_breaks_between_its_passes(sample: Report, printed: Print) -> None:
    step = "prune{ratio=0.3 keep=model.22*,model.9*}"
    text = PipelineText(text="int8", expanded=",".join([step] * 3))
    lines = printed(dataclasses.replace(sample, pipeline=text)).splitlines()
    assert lines[3:6] == [f"runs as   {step},", f"          {step},", f"          {step}"]


def test_long_names_stay_within_80_columns(sample: Report, printed: Print) -> None:
    ledger = tuple(
        dataclasses.replace(one, name=f"a-pass-with-quite-a-name-{LONG}", seconds=123456.0)
        for one in sample.passes
    )
    text = PipelineText(text=LONG, expanded=f"{LONG}{{keep={LONG}}},{LONG}")
    page = dataclasses.replace(
        sample,
        input=dataclasses.replace(sample.input, path=LONG, family=LONG),
        pipeline=text,
        passes=ledger,
        warnings=(LONG,),
    )
    layers = [dataclasses.replace(one, name=LONG, scheme=LONG) for one in sample.layers]
    for shown in (page, layers_table(layers), written_files([WrittenFile(path=LONG, bytes=9)])):
        assert at_most_80(printed(shown))
    assert "123456000" in printed(page), "figures are never torn"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.text(max_size=200), number=st.floats(), count=st.integers(0, 10**12))
def test_any_name_and_number_is_safe_to_print(
    sample: Report, printed: Print, name: str, number: float, count: int
) -> None:
    model = dataclasses.replace(sample.input, path=name, family=name)
    record = dataclasses.replace(
        sample.passes[0], name=name, max_abs_error=number, weight_bytes_after=count
    )
    page = printed(
        dataclasses.replace(
            sample,
            input=model,
            passes=(record,),
            warnings=(name,),
            pipeline=PipelineText(text=name, expanded=name),
        )
    )
    assert at_most_80(page)
    assert page.replace("\n", "").isprintable()


def test_names_are_shown_and_not_obeyed(sample: Report, printed: Print) -> None:
    model = dataclasses.replace(sample.input, path=HOSTILE)
    first = printed(dataclasses.replace(sample, input=model)).splitlines()[0]
    assert first == r"model     \x1b[31m[red]\r\n\x07\u202e名前"


def test_a_narrow_terminal_folds_words_and_no_figures(sample: Report) -> None:
    stream = io.StringIO()
    Console(file=stream, width=68, force_terminal=False).print(sample)
    lines = stream.getvalue().splitlines()
    assert all(cell_len(line) <= 68 for line in lines)
    assert any(line.endswith("231  12.1 -> 7.9 MB     0.41") for line in lines)


def coloured(report: Report) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=True, color_system="standard").print(report)
    return stream.getvalue()


def test_a_terminal_gets_colour_and_the_same_words(
    sample: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mwarning" in coloured(sample)
    assert "\x1b[32mequal" in coloured(sample)
    assert re.search(r"\x1b\[2mobserve", coloured(sample)), "what changed nothing is dim"
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured(sample)) == PAGE


@pytest.mark.parametrize("terminal", [False, True])
def test_no_color_leaves_no_escape_behind(
    sample: Report, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    make_console().print(sample)
    assert stream.getvalue() == PAGE


def test_letters_that_an_encoding_lacks_are_escaped() -> None:
    script = "from yqc.report import make_console; make_console().print('fenêtre 名')"
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", script],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"fen\\xeatre \\u540d\n"


def test_figures_that_are_missing_are_dashes(
    sample: Report, ledger: tuple[PassRecord, ...], printed: Print
) -> None:
    bare = dataclasses.replace(
        ledger[0],
        seconds=None,
        skips=(),
        weight_bytes_before=None,
        weight_bytes_after=None,
        max_abs_error=None,
    )
    page = printed(dataclasses.replace(sample, passes=(bare,)))
    row = next(line for line in page.splitlines() if line.startswith("1 "))
    assert row.split() == ["1", "prune", "-", "24", "0", "231", "-", "-"]
    assert "why" not in page


def test_a_model_that_is_no_detector_has_no_classes(sample: Report, printed: Print) -> None:
    model = dataclasses.replace(sample.input, family="custom", task="", names=(), nc=0, strides=())
    page = printed(dataclasses.replace(sample, input=model))
    assert page.splitlines()[1] == "          custom, 640 x 480"


def test_one_class_is_one_class(sample: Report, printed: Print) -> None:
    model = dataclasses.replace(sample.input, names=("cell",), nc=1)
    assert "detect, 1 class, 640" in printed(dataclasses.replace(sample, input=model))
