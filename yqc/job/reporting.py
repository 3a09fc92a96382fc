"""The report and the recipe of a compile, from what its stages left."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import fx

from yqc import report as rp
from yqc.data import Data
from yqc.emit import cut_decode, emit, layer_bytes, size_parts, weight_bytes, yolo_metadata
from yqc.emit.embedding import Embedding
from yqc.errors import EmitError, PassError, TraceError
from yqc.evaluation import count_cores
from yqc.facts import OutputForm
from yqc.graph.compare import check_finite, macs, parameter_count
from yqc.graph.half import holds_half
from yqc.graph.resizing import resize_graph, trial_size
from yqc.job.deflated import deflated_size
from yqc.job.entering import find_origin
from yqc.job.fitting import (
    Fitted,
    check_fit,
    choose_opset,
    describe_target,
)
from yqc.job.layers import list_layers, list_swaps, rounds_activations
from yqc.job.measure import Measured
from yqc.job.runtime_rules import check_rules
from yqc.job.sensitivity import sensitivity_rows
from yqc.job.verification import Verified, check_weights
from yqc.models.source import DEFAULT_STRIDE, Source
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline, reproducible
from yqc.pipeline.step import Step
from yqc.settings import Provenance, Settings, write_recipe
from yqc.targets import find_target
from yqc.version import __version__


@dataclass(frozen=True)
class Compiled:
    """A model behind its passes, with what it was made from."""

    source: Source
    data: Data | None
    settings: Settings
    pipeline: Pipeline
    ctx: Context
    gm: fx.GraphModule
    """The rewritten graph."""
    steps: list[Step]
    fitted: Fitted

    @cached_property
    def cut(self) -> tuple[fx.GraphModule, dict[str, Any]] | None:
        """The rewritten graph without its decoding and what is known of it; None if it stays."""
        return None if self.ctx.decode == "full" else self._cut(self.gm)

    def _cut(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        facts, decode = self.source.facts, self.ctx.decode
        if facts.form is None or facts.head is None or decode == "full":
            raise EmitError("the decoding cannot be cut off: it is not known")
        return cut_decode(gm, facts.form, facts.head, decode)

    @property
    def written(self) -> fx.GraphModule:
        """The graph that the file computes."""
        return self.gm if self.cut is None else self.cut[0]

    @property
    def written_form(self) -> OutputForm | None:
        """What the file's outputs are."""
        return self.source.form if self.cut is None else OutputForm("raw")

    @property
    def passes(self) -> str:
        """The pipeline text that does the same again, with the options that passes chose."""
        return reproducible(self.pipeline, self.steps)

    @property
    def metadata(self) -> dict[str, str]:
        """What `metadata_props` of the ONNX file hold."""
        source = self.source
        own = {"version": __version__, "pipeline": self.passes, "input_sha256": source.sha256}
        own |= describe_target(find_target(self.settings.target))
        if self.cut is not None:
            own["heads"] = json.dumps(self.cut[1])
        if not source.is_detector:
            return {f"yqc.{key}": value for key, value in own.items()}
        return yolo_metadata(
            source.names,
            source.strides,
            source.imgsz,
            batch=1,
            task=source.task,
            channels=source.channels,
            kpt_shape=source.facts.kpt_shape,
            dynamic=self.resized is not None,
            nms=self.embedding.nms is not None,
            **own,
        )

    def emit(self) -> onnx.ModelProto:
        """Turn the rewritten graph into a checked ONNX model.

        Raises:
            PassError: the passes left numbers that are not finite.
        """
        check_finite(self.gm, "the graph behind the passes", PassError)
        settings, other = self.settings, self.resized[0] if self.resized else None
        if other is not None and self.cut is not None:
            other = self._cut(other)[0]
        return emit(
            self.written,
            metadata=self.metadata,
            other=other,
            opset=choose_opset(settings),
            dynamic=settings.dynamic,
            target=settings.target,
        )

    @property
    def graphs(self) -> list[tuple[fx.GraphModule, fx.GraphModule]]:
        """The rewritten graph and the float one, at each size that the file is verified at."""
        pairs = [(self.gm, self.source.gm), *([self.resized] if self.resized else [])]
        if self.cut is None:
            return pairs
        return [(self._cut(gm)[0], self._cut(original)[0]) for gm, original in pairs]

    @cached_property
    def resized(self) -> tuple[fx.GraphModule, fx.GraphModule] | None:
        """The rewritten graph and the float one at another size; None where they are fixed."""
        if not self.settings.dynamic:
            return None
        reason = self.source.fixed
        try:
            if not reason:
                size = trial_size(self.gm, max(self.source.strides, default=DEFAULT_STRIDE))
                return resize_graph(self.gm, size), resize_graph(self.source.gm, size)
        except TraceError as error:
            reason = str(error)
        self.ctx.warn(f"only the batch is dynamic: {reason}")
        return None

    @property
    def embedding(self) -> Embedding:
        """What to put around the detector once it is measured."""
        return Embedding.of(self.settings)

    @property
    def origin(self) -> Provenance:
        """What this compile read, with the hashes of what was read."""
        return find_origin(self.source, self.data, self.settings, self.pipeline)

    @property
    def data_input(self) -> rp.DataInput | None:
        """The data that was read, as the report names it."""
        data, file = self.data, self.origin.data
        if data is None or file is None:
            return None
        count = len({*data.train.images, *data.val.images})
        return rp.DataInput(path=file.path, sha256=file.sha256, images=count)

    @property
    def recipe(self) -> str:
        """The TOML text that repeats this compile."""
        return write_recipe(replace(self.settings, passes=self.passes), self.origin)


def make_report(
    compiled: Compiled,
    emitted: onnx.ModelProto,
    file: Path,
    verified: Verified,
    measured: Measured,
    *,
    sensitivity: bool,
) -> rp.Report:
    """Gather the numbers of a compile whose ONNX model `emitted` is written to `file`.

    If `sensitivity`, the layers are ranked by it.
    """
    source, gm, ctx = compiled.source, compiled.gm, compiled.ctx
    origin, settings = compiled.origin, compiled.settings
    expanded = ",".join(str(step.action) for step in compiled.steps)
    threads = settings.threads or count_cores()
    exact = not rounds_activations(gm) and not holds_half(gm)
    return rp.Report(
        yqc=__version__,
        input=rp.ModelInput.of(
            path=source.path, sha256=source.sha256, params=source.params, facts=source.facts
        ),
        data=compiled.data_input,
        target=settings.target,
        loaded=tuple(rp.LoadedFile(path=f.path, sha256=f.sha256) for f in origin.loaded),
        plugins=tuple(rp.UsedPlugin(**vars(one)) for one in origin.plugins),
        pipeline=rp.PipelineText(
            text=str(compiled.pipeline), expanded=expanded, dropped=tuple(ctx.records.dropped)
        ),
        passes=tuple(step.record for step in compiled.steps),
        size=rp.Size.measured(
            params_before=source.params,
            params_after=parameter_count(gm),
            weight_bytes=weight_bytes(emitted),
            file_bytes=file.stat().st_size,
            deflated_bytes=deflated_size(file),
            parts=rp.SizeParts(**size_parts(emitted)),
        ),
        compute=rp.Compute(macs_before=macs(source.gm), macs_after=macs(gm)),
        accuracy=measured.accuracy,
        verification=describe_verified(verified, exact=exact),
        latency=measured.latency,
        layers=list_layers(gm, layer_bytes(emitted)),
        swaps=list_swaps(gm),
        device=check_fit(emitted, compiled.fitted, settings),
        warnings=(
            *settings.written_for.changes(origin),
            *source.warnings,
            *ctx.warnings,
            *verified.warnings,
            *check_weights(gm, file, ctx.rules),
            *measured.warnings,
            *check_rules(emitted, settings.target),
        ),
        environment=rp.Environment.here(
            threads=threads, torch_threads=torch.get_num_threads(), seed=settings.seed
        ),
        sensitivity=sensitivity_rows(source, ctx) if sensitivity else None,
    )


def describe_verified(verified: Verified, *, exact: bool) -> rp.Verification:
    """Return how far a file is from its graph; `exact` if no rounding can make a difference."""
    trip = verified.trip
    if trip is None:
        return rp.Verification(not_run=verified.not_run)
    return rp.Verification(
        optimized=rp.RoundTripError.of(**vars(trip.optimised)),
        unoptimized=rp.RoundTripError.of(**vars(trip.plain)),
        within_tolerance=trip.within() if exact else None,
    )
