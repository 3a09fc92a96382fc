"""A report with every part in it, and a terminal of 80 columns that writes into a string."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from yqc.facts import ModelFacts
from yqc.report import (
    Accuracy,
    Compute,
    DataInput,
    Environment,
    Latency,
    Layer,
    LoadedFile,
    ModelInput,
    PassRecord,
    PipelineText,
    Report,
    RoundTripError,
    Scores,
    Size,
    Skip,
    Verification,
)

Print = Callable[[RenderableType], str]


@pytest.fixture
def printed() -> Print:
    """What a page looks like in a log: 80 columns, no terminal."""

    def printed(page: RenderableType) -> str:
        stream = io.StringIO()
        Console(file=stream, width=80, force_terminal=False).print(page)
        return stream.getvalue()

    return printed


@pytest.fixture
def ledger() -> tuple[PassRecord, ...]:
    shared = "conv has other users"
    skips = (Skip(node="model.2.cv1", why=shared), Skip(node="model.4.cv1", why=shared))
    return (
        PassRecord(
            name="prune",
            seconds=0.31,
            rewrites=24,
            skips=(*skips, Skip(node="model.9", why="it is kept")),
            says=("30.0% of params removed by l2",),
            changed=True,
            nodes_before=231,
            nodes_after=231,
            weight_bytes_before=12_100_000,
            weight_bytes_after=7_910_000,
            max_abs_error=0.41,
            sqnr_db=21.5,
        ),
        PassRecord(
            name="fold-bn",
            seconds=0.041,
            rewrites=57,
            skips=(),
            changed=True,
            nodes_before=231,
            nodes_after=174,
            weight_bytes_before=7_910_000,
            weight_bytes_after=7_900_000,
            max_abs_error=3.1e-6,
            sqnr_db=120.0,
        ),
        PassRecord(
            name="observe",
            seconds=11.3,
            rewrites=0,
            skips=skips,
            changed=False,
            nodes_before=174,
            nodes_after=174,
            weight_bytes_before=7_900_000,
            weight_bytes_after=7_900_000,
            max_abs_error=0.0,
            sqnr_db=None,
        ),
    )


@pytest.fixture
def sample(ledger: tuple[PassRecord, ...]) -> Report:
    before = Scores(map=0.3377, map50=0.5012, map75=0.3611, small=0.1922, medium=0.3901, large=None)
    after = Scores(map=0.3351, map50=0.4998, map75=0.3577, small=0.1947, medium=0.3866, large=None)
    return Report(
        yqc="0.1.0",
        input=ModelInput.of(
            path="yolov5n-coco.pt",
            sha256="0123456789abcdef" * 4,
            params=1_872_157,
            facts=ModelFacts(
                family="yolov5",
                names=("person", "fenêtre"),
                strides=(8, 16, 32),
                imgsz=(640, 480),
            ),
        ),
        data=DataInput(path="data.yaml", sha256="d" * 64, images=200),
        target="onnxruntime",
        loaded=(LoadedFile(path="my_pass.py", sha256="e" * 64),),
        pipeline=PipelineText(
            text="prune{ratio=0.3},int8",
            expanded="prune{ratio=0.3},fold-bn,observe,calibrate,quantize",
            dropped=("recover (of prune): it runs once, and recover comes later",),
        ),
        passes=ledger,
        size=Size.measured(
            params_before=1_872_157,
            params_after=1_210_331,
            weight_bytes=1_263_114,
            file_bytes=1_401_022,
            deflated_bytes=1_203_040,
        ),
        compute=Compute(macs_before=2_253_000_000, macs_after=1_601_000_000),
        accuracy=Accuracy.of_map(
            images=128, float_=before, compiled=after, interval=(-0.004, 0.019)
        ),
        verification=Verification(
            optimized=RoundTripError(boxes=2.1e-6, scores=3e-7, extra=0.0),
            unoptimized=RoundTripError(boxes=1.2e-6, scores=4e-7, extra=0.0),
            within_tolerance=True,
        ),
        latency=Latency(
            runtime="onnxruntime",
            version="1.32.0",
            float_ms=54.6,
            compiled_ms=44.2,
            p10=(54.1, 43.9),
            p90=(57.0, 45.2),
            ratio=54.6 / 44.2,
            interval=(1.2304, 1.2416),
            rounds=20,
            threads=1,
            load_ms=(120.0, 180.0),
        ),
        layers=(
            Layer(
                name="model.0.conv",
                role="backbone",
                op="Conv2d",
                shape=(16, 3, 6, 6),
                weight_bits=None,
                activation_bits=None,
                scheme=None,
                granularity=None,
                rounding=None,
                weight_bytes=6912,
                sqnr_db=None,
            ),
            Layer(
                name="model.24.m.0",
                role="head.box",
                op="Conv2d",
                shape=(255, 64, 1, 1),
                weight_bits=4,
                activation_bits=8,
                scheme="symmetric",
                granularity="channel",
                rounding="gptq",
                weight_bytes=8160,
                sqnr_db=23.44,
            ),
        ),
        warnings=(
            "activation ranges come from the batch norms, since no calibration images were given",
        ),
        environment=Environment.here(threads=1, torch_threads=1, seed=0),
    )
