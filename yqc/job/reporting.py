"""The report and the recipe of a compile, from what its stages left."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from torch import fx

from yqc import report as rp
from yqc.emit import emit, layer_bytes, size_parts, weight_bytes, yolo_metadata
from yqc.emit.embedding import Embedding
from yqc.evaluation import count_cores
from yqc.graph.compare import macs, parameter_count
from yqc.job.layers import list_layers, rounds_activations
from yqc.job.measure import Measured
from yqc.job.sensitivity import sensitivity_rows
from yqc.job.verification import Verified
from yqc.models.source import Source
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline, reproducible
from yqc.pipeline.step import Step
from yqc.settings import Settings, write_recipe
from yqc.version import __version__


@dataclass(frozen=True)
class Compiled:
    """A model behind its passes, with what it was made from."""

    source: Source
    settings: Settings
    pipeline: Pipeline
    ctx: Context
    gm: fx.GraphModule
    """The rewritten graph."""
    steps: list[Step]

    @property
    def passes(self) -> str:
        """The pipeline text that does the same again, with the options that passes chose."""
        return reproducible(self.pipeline, self.steps)

    @property
    def metadata(self) -> dict[str, str]:
        """What `metadata_props` of the ONNX file hold."""
        source = self.source
        own = {"version": __version__, "pipeline": self.passes, "input_sha256": source.sha256}
        if not source.is_detector:
            return {f"yqc.{key}": value for key, value in own.items()}
        size, task = source.imgsz, source.task
        return yolo_metadata(source.names, source.strides, size, batch=1, task=task, **own)

    def emit(self) -> onnx.ModelProto:
        """Turn the rewritten graph into a checked ONNX model."""
        settings = self.settings
        return emit(
            self.gm,
            metadata=self.metadata,
            opset=settings.opset,
            dynamic=settings.dynamic,
            target=settings.target,
        )

    @property
    def embedding(self) -> Embedding:
        """What to put around the detector once it is measured."""
        return Embedding.parse(self.settings.embed or "")

    @property
    def recipe(self) -> str:
        """The TOML text that repeats this compile."""
        settings = replace(self.settings, passes=self.passes)
        return write_recipe(settings, __version__, self.source.path, self.source.sha256)


def make_report(
    compiled: Compiled,
    emitted: onnx.ModelProto,
    file: Path,
    verified: Verified,
    measured: Measured,
    *,
    sensitivity: bool,
) -> rp.Report:
    """Gather the numbers of a compile.

    Args:
        compiled: the model behind its passes.
        emitted: the ONNX model.
        file: where it is written.
        verified: how far it is from its graph.
        measured: accuracy and latency.
        sensitivity: whether to rank the layers by sensitivity.
    """
    source, gm, ctx = compiled.source, compiled.gm, compiled.ctx
    expanded = ",".join(str(step.action) for step in compiled.steps)
    return rp.Report(
        yqc=__version__,
        input=rp.ModelInput(
            path=source.path, sha256=source.sha256, params=source.params, facts=source.facts
        ),
        pipeline=rp.PipelineText(text=str(compiled.pipeline), expanded=expanded),
        passes=tuple(step.record for step in compiled.steps),
        size=rp.Size.measured(
            params_before=source.params,
            params_after=parameter_count(gm),
            weight_bytes=weight_bytes(emitted),
            file_bytes=file.stat().st_size,
            parts=rp.SizeParts(**size_parts(emitted)),
        ),
        compute=rp.Compute(macs_before=macs(source.gm), macs_after=macs(gm)),
        accuracy=measured.accuracy,
        verification=rp.Verification.of(verified.trip, rounds=rounds_activations(gm)),
        latency=measured.latency,
        layers=list_layers(gm, layer_bytes(emitted)),
        warnings=(*source.warnings, *ctx.warnings, *verified.warnings, *measured.warnings),
        environment=rp.Environment.here(threads=count_cores(), seed=compiled.settings.seed),
        sensitivity=sensitivity_rows(source, ctx) if sensitivity else None,
    )
