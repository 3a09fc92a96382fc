"""The report of a compile, the tables of the commands, progress; without torch or ONNX.

`parts`        the parts of a report, whose fields are the keys of the JSON
`environment`  versions and machine
`report`       the report
`contract`     dataclasses to JSON and strictly back
`advice`       what helps where int8 is no faster than float
`human`        numbers and names as people read them
`layout`       tables for the terminal
`terminal`     the parts of a report as tables
`shown`        data that shows itself, as tables and as JSON
`rows`         the data of the commands' tables
`tables`       these tables
`estimate`     how long work will still take
`progress`     progress on stderr
`page`         the data of the HTML page
`charts`       its charts
`drawing`      its drawing of the graph
`histogram`    its histograms
`html`         the page
`pareto`       points that no other one beats
`scatter`      pages without a script, and drawings of bytes against another value
"""

from yqc.report.contract import to_json
from yqc.report.environment import Environment
from yqc.report.layout import make_console, say
from yqc.report.parts import (
    Accuracy,
    Agreement,
    ClassScore,
    Compute,
    DataInput,
    DeviceFit,
    Latency,
    Layer,
    LoadedFile,
    ModelInput,
    OutputAgreement,
    PassRecord,
    PipelineText,
    RoundTripError,
    Scores,
    Sensitivity,
    Size,
    SizeParts,
    Skip,
    Swap,
    Unfit,
    UsedPlugin,
    Verification,
)
from yqc.report.progress import make_progress
from yqc.report.report import Report
from yqc.report.rows import (
    AddedName,
    Bench,
    BenchRow,
    CacheListing,
    CacheRow,
    EvalResult,
    ModelSummary,
    NodeCost,
    OptionHelp,
    PassHelp,
    PassList,
    PassListing,
    WrittenFile,
)
from yqc.report.shown import Shown, render
from yqc.report.tables import (
    bench_table,
    cache_table,
    eval_table,
    inspect_table,
    pass_help,
    passes_table,
    skips_table,
)
from yqc.report.terminal import layers_table, written_files

__all__ = [
    "Accuracy",
    "AddedName",
    "Agreement",
    "Bench",
    "BenchRow",
    "CacheListing",
    "CacheRow",
    "ClassScore",
    "Compute",
    "DataInput",
    "DeviceFit",
    "Environment",
    "EvalResult",
    "Latency",
    "Layer",
    "LoadedFile",
    "ModelInput",
    "ModelSummary",
    "NodeCost",
    "OptionHelp",
    "OutputAgreement",
    "PassHelp",
    "PassList",
    "PassListing",
    "PassRecord",
    "PipelineText",
    "Report",
    "RoundTripError",
    "Scores",
    "Sensitivity",
    "Shown",
    "Size",
    "SizeParts",
    "Skip",
    "Swap",
    "Unfit",
    "UsedPlugin",
    "Verification",
    "WrittenFile",
    "bench_table",
    "cache_table",
    "eval_table",
    "inspect_table",
    "layers_table",
    "make_console",
    "make_progress",
    "pass_help",
    "passes_table",
    "render",
    "say",
    "skips_table",
    "to_json",
    "written_files",
]
