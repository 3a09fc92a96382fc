"""The tables of the other commands, at 80 columns."""

import json
from collections.abc import Callable
from dataclasses import replace

from rich.cells import cell_len
from rich.console import RenderableType

from yqc.facts import ModelFacts
from yqc.report import (
    Bench,
    BenchRow,
    EvalResult,
    ModelSummary,
    OptionHelp,
    PassHelp,
    PassList,
    PassListing,
    Scores,
    Skip,
    bench_table,
    eval_table,
    inspect_table,
    pass_help,
    skips_table,
    to_json,
)

Print = Callable[[RenderableType], str]

DOC = """\
prune: remove the channels that matter least.

Channels that must go together are found by walking the graph, each group is scored by one
criterion, and the groups with the lowest scores go.

    score(g) = mean over conv in g of |gamma|

1. Groups that touch the head stay.
2. Groups that `keep` names stay; this line is longer than a terminal of 80 columns is wide.
"""

HELP = """\
prune  from yqc_passes

remove the channels that matter least.

Channels that must go together are found by walking the graph, each group is
scored by one criterion, and the groups with the lowest scores go.

    score(g) = mean over conv in g of |gamma|

1. Groups that touch the head stay.
2. Groups that `keep` names stay; this line is longer than a terminal of 80
   columns is wide.

requires  traced
excludes  int8
provides  pruned, smaller

option  type   default
ratio   float  0.5      Part of the channels to remove, among those that may go
                        at all.
keep    str    ""       Modules to leave alone.
"""

RECIPE = """\
int8  from acme-yqc 1.2

eight bits

runs      fold-bn,observe,calibrate,quantize

no options
"""

PASSES = """\
name       what it does                                               from
recipes    what to ask for
  prune    remove the channels that matter least, and whatever        yqc_passes
           depends on them
passes     what recipes are made of
  squeeze                                                             ./mine.py
"""

SKIPS = """\
fold-bn rewrites 1 place and skips 3

count  why                   nodes
2x     conv has other users  model.2.cv1, model.4.cv1
1x     it is kept            model.9
"""

SUMMARY = """\
file        runs/best.pt
            6.2 MB, sha256 1f1f1f1f1f1f
model       yolov8n, ultralytics
task        detect
classes     14
            c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, and 2 more
strides     8, 16, 32
trained at  320 x 320
output      [N, 18, A]
parameters  3.01 M
MACs        980 M
blocks      57 Conv, 8 C2f, 1 Detect, 1 SPPF

warning   the file holds no EMA weights: those of `model` are used
"""

EVAL = """\
file      a.onnx
on        128 images (2 more could not be read)
took      34 s, of which 9.8 s in the network

mAP
50-95     0.3377
50        0.5012
75        0.3611
small     0.1922
medium    0.3901
large          -
"""

BENCH = """\
file      size  median ms    10 to 90 %  ratio            95 %
a.onnx  7.5 MB       54.6  53.9 to 58.1  1.00x               -
b.onnx  1.4 MB       44.2             -  1.24x  1.20x to 1.25x
50 rounds in turn, 1 thread, openvino 2026.4.1, f32, end to end, a processor
ratio: how many times as fast as the first file, with its 95 % interval
b.onnx loads in 480 ms, the first file in 120 ms
"""


CHECKPOINT = ModelSummary(
    path="runs/best.pt",
    sha256="1f" * 32,
    bytes=6_212_000,
    facts=ModelFacts(
        family="ultralytics",
        name="yolov8n",
        names=tuple(f"c{index}" for index in range(14)),
        strides=(8, 16, 32),
        imgsz=(320, 320),
    ),
    params=3_011_238,
    macs=980_100_000,
    output="[N, 18, A]",
    blocks={"Detect": 1, "Conv": 57, "C2f": 8, "SPPF": 1},
    warnings=("the file holds no EMA weights: those of `model` are used",),
)


def test_help_of_a_pass(printed: Print) -> None:
    about = PassHelp(
        name="prune",
        origin="yqc_passes",
        doc=DOC,
        options=(
            OptionHelp(
                name="ratio",
                type="float",
                default="0.5",
                doc="Part of the channels to remove, among those that may go at all.",
            ),
            OptionHelp(name="keep", type="str", default="", doc="Modules to leave alone."),
        ),
        requires=("traced",),
        excludes=("int8",),
        provides=("pruned", "smaller"),
    )
    assert printed(pass_help(about)) == HELP


def test_help_of_a_recipe(printed: Print) -> None:
    steps = "fold-bn,observe,calibrate,quantize"
    about = PassHelp(name="int8", origin="acme-yqc 1.2", doc="int8: eight bits", expands_to=steps)
    assert printed(pass_help(about)) == RECIPE


def test_list_of_passes(printed: Print) -> None:
    doc = "prune: remove the channels that matter least, and whatever depends on them."
    listings = [
        PassListing(name="prune", doc=doc, origin="yqc_passes", recipe=True),
        PassListing(name="squeeze", doc="", origin="./mine.py"),
    ]
    assert printed(PassList(tuple(listings))) == PASSES


def test_skips_are_grouped_by_reason_the_most_frequent_first(printed: Print) -> None:
    skips = [
        Skip(node="model.9", why="it is kept"),
        Skip(node="model.2.cv1", why="conv has other users"),
        Skip(node="model.4.cv1", why="conv has other users"),
    ]
    assert printed(skips_table("fold-bn", 1, skips)) == SKIPS
    assert printed(skips_table("fold-bn", 2, [])) == "fold-bn rewrites 2 places and skips 0\n"


def test_summary_of_a_checkpoint(printed: Print) -> None:
    assert printed(inspect_table(CHECKPOINT)) == SUMMARY


def test_summary_leaves_out_what_a_file_does_not_tell(printed: Print) -> None:
    bare = ModelSummary(
        path="x.onnx",
        sha256="ab" * 32,
        bytes=999,
        facts=ModelFacts(family="", task=""),
        params=0,
        blocks={"Conv": 1},
    )
    assert printed(inspect_table(bare)).splitlines() == [
        "file        x.onnx",
        "            999 B, sha256 abababababab",
        "parameters  0",
        "blocks      1 Conv",
    ]


def test_summary_of_what_is_unknown(printed: Print) -> None:
    model = replace(
        CHECKPOINT,
        params=None,
        macs=None,
        unknown=("acme.Twist", "acme.Turn"),
        advice="register a twin:\n    import yqc\n    yqc.register_block(...)",
    )
    lines = printed(inspect_table(model)).splitlines()
    assert lines[lines.index("output      [N, 18, A]") + 1 :] == [
        "blocks      57 Conv, 8 C2f, 1 Detect, 1 SPPF",
        "unknown     acme.Twist, acme.Turn",
        "",
        "register a twin:",
        "    import yqc",
        "    yqc.register_block(...)",
        "",
        SUMMARY.splitlines()[-1],
    ]


def test_accuracy_of_one_file(printed: Print) -> None:
    result = EvalResult(
        path="a.onnx",
        images=128,
        scores=Scores(
            map=0.3377, map50=0.5012, map75=0.3611, small=0.1922, medium=0.3901, large=None
        ),
        seconds_total=34.2,
        seconds_session=9.84,
        unreadable=2,
    )
    assert printed(eval_table(result)) == EVAL


def test_latency_of_files(printed: Print) -> None:
    rows = [
        BenchRow(
            path="a.onnx", bytes=7_500_000, median_ms=54.61, p10_ms=53.9, p90_ms=58.1, load_ms=120.0
        ),
        BenchRow(
            path="b.onnx", bytes=1_400_000, median_ms=44.21, interval=(1.2, 1.25), load_ms=480.0
        ),
    ]
    conditions = {"runtime": "openvino", "version": "2026.4.1", "precision": "f32"}
    bench = Bench.measured(
        threads=1, runs=50, cpu="a processor", rows=rows, end_to_end=True, **conditions
    )
    assert [row.ratio for row in bench.rows] == [1.0, 54.61 / 44.21]
    assert printed(bench_table(bench)) == BENCH


def test_long_words_stay_within_80_columns(printed: Print) -> None:
    word = "no_end_of_it_" * 12
    listing = PassListing(name=word, doc=word, origin=word)
    row = BenchRow(
        path=word,
        bytes=10**12,
        median_ms=123456.0,
        p10_ms=99999.0,
        p90_ms=10**7,
        ratio=1.0,
        interval=(1.0, 1.0),
    )
    option = OptionHelp(name=word, type=word, default=word, doc=word)
    about = PassHelp(name=word, origin=word, doc=f"    {word}", options=(option,), requires=(word,))
    model = replace(
        CHECKPOINT,
        path=word,
        facts=replace(CHECKPOINT.facts, names=(word,) * 3),
        blocks={word: 3},
        warnings=(word,),
        unknown=(word,),
        advice=word,
    )
    pages = [
        PassList((listing,)),
        pass_help(about),
        skips_table(word, 3, [Skip(node=word, why=word)] * 3),
        inspect_table(model),
        bench_table(Bench.measured(threads=1, runs=1, cpu=word, rows=[row])),
    ]
    for page in map(printed, pages):
        assert all(cell_len(line) <= 80 for line in page.splitlines())
        assert all(line == line.rstrip() for line in page.splitlines())
        assert page.count("no_end") >= 1


def test_every_row_has_json_too() -> None:
    listing = PassListing(name="prune", doc="less", origin="yqc_passes")
    keys = {"name": "prune", "doc": "less", "origin": "yqc_passes", "recipe": False, "added": []}
    assert to_json([listing]) == json.dumps([keys], indent=2) + "\n"
    assert '"blocks": {\n    "Detect": 1,' in CHECKPOINT.to_json()


def test_choices_of_an_option_break_behind_their_bars(printed: Print) -> None:
    kind = "auto|bn-scale|l1|l2|taylor|hessian|reconstruction|random"
    option = OptionHelp(name="criterion", type=kind, default="auto", doc="How channels are scored.")
    shown = printed(PassHelp(name="prune", origin="yqc_passes", doc="", options=(option,)))
    cells = [line[11:31].strip() for line in shown.splitlines()[-4:]]
    assert cells == ["auto|bn-scale|l1|l2|", "taylor|hessian|", "reconstruction|", "random"]
