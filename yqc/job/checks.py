"""What a compile refuses before any work: devices, data, outputs that do not fit its settings."""

from collections.abc import Sequence
from pathlib import Path

import torch

from yqc.emit import PACKED_OPSETS, check_writable, refuse_cut
from yqc.emit.embedding import Embedding
from yqc.emit.suppression import check_suppression
from yqc.errors import BudgetError, EmitError, PipelineError
from yqc.job.fitting import choose_opset
from yqc.job.inputs import decode_of
from yqc.job.outputs import Outputs
from yqc.models.source import AnyModel, Source
from yqc.pipeline.base import Given, Pass
from yqc.pipeline.order import check_end
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.state import State
from yqc.report import Accuracy
from yqc.settings import Budget, SettingError, Settings
from yqc.targets import find_target

BUILT_IN = "yqc_passes."
"""Where yqc's own passes live; others may replace what cannot be written."""


def check(
    settings: Settings,
    pipeline: Pipeline,
    files: Outputs,
    model: AnyModel,
    source: Source | None = None,
) -> None:
    """Refuse what can be refused before the model is read, and, once it is, before any pass.

    Raises:
        PipelineError: a wrong order of passes, no such device, no images for a pass that needs
            some, options of suppression that do not exist.
        EmitError: suppression of an output that has no boxes, or is suppressed already.
        OutputError: the outputs cannot be written.
        LoweringError: an operation of the graph has no ONNX form, and every pass is one of yqc's.
    """
    passes, embedding = check_passes(settings, pipeline), Embedding.of(settings)
    check_decode(settings, source)
    device = find_target(settings.target).file
    loaded = [path for path, _ in pipeline.registry.files]
    named = [settings.data, settings.arch, device, *loaded]
    named += [str(model)] if isinstance(model, str | Path) else []
    files.check(Path(name) for name in named if name)
    if source is None:
        return
    if embedding.nms is not None:
        check_suppression(source.form)
    if all(type(each).__module__.startswith(BUILT_IN) for each in passes):
        check_writable(source.gm, opset=choose_opset(settings), dynamic=settings.dynamic)


def check_passes(settings: Settings, pipeline: Pipeline) -> list[Pass]:
    """Return the passes of a pipeline if they fit each other and the settings.

    Raises:
        YqcError: as of `check`.
    """
    given = settings.data is not None
    passes = pipeline.expand(given=Given(settings.target, has_data=given, can_train=given))
    check_end(passes)
    check_device(settings.device, passes)
    check_images(settings, passes)
    check_packed(settings, passes)
    return passes


def check_budget(budget: Budget, settings: Settings, *, evaluate: bool) -> None:
    """Raise a SettingError if a loss is bounded that will not be measured."""
    if budget.drop is not None and (settings.data is None or not evaluate):
        why = "nothing is evaluated" if settings.data else "there is no data; give --data"
        raise SettingError("--max-drop", f"cannot be checked: {why}")


def require_budget(budget: Budget, accuracy: Accuracy) -> None:
    """Raise a BudgetError if more accuracy is lost than allowed, or none could be measured."""
    if (drop := budget.drop) is None:
        return
    loss = drop.of(accuracy)
    if loss is None:
        raise BudgetError(f"--max-drop {drop} cannot be checked: no accuracy could be measured")
    if loss > drop.value:
        figure = "agreement with the float model" if accuracy.agreement else accuracy.main
        raise BudgetError(
            f"the {figure} drops by {drop.show(loss)}, more than --max-drop {drop}; nothing was "
            "written. A milder pipeline loses less; `yqc tune` searches for one"
        )


def check_decode(settings: Settings, source: Source | None) -> None:
    """Raise a PipelineError unless the decoding can be cut off where that is asked for."""
    decode = decode_of(settings)
    if decode == "full":
        return
    where = f"--decode {decode}" if settings.decode else f"{settings.target}, decode = {decode!r},"
    if settings.head == "one2one":
        raise PipelineError(
            f"--head one2one picks its detections in the decoding, which {where} cuts off; leave "
            "one of them out"
        )
    if Embedding.of(settings).nms is not None:
        raise PipelineError(
            f"--nms suppresses decoded boxes, and {where} cuts the decoding off; leave one of them"
            " out"
        )
    if source is not None and (why := refuse_cut(source.form, source.facts.head)):
        raise PipelineError(f"{where} cannot cut the decoding of {source.path or 'it'} off: {why}")


def check_device(device: str, passes: Sequence[Pass]) -> None:
    """Raise a PipelineError unless there is a device, and a pass that can use it."""
    if device == "cpu":
        return
    if not any(each.trains for each in passes):
        raise PipelineError(
            f"no pass here can run on {device!r}: none of them trains; leave --device out"
        )
    number = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise PipelineError(
            f"there is no device {device!r} here ({count} found by torch); leave --device out"
        )


def check_images(settings: Settings, passes: Sequence[Pass]) -> None:
    """Raise a PipelineError unless passes that learn from images are given some."""
    learner = next((each for each in passes if each.needs_images), None)
    if learner is not None and settings.data is None:
        raise PipelineError(
            f"{learner.name} learns from images, and none are given: add --data with a data YAML, "
            "a COCO JSON, or a folder of images"
        )


def check_packed(settings: Settings, passes: Sequence[Pass]) -> None:
    """Raise an EmitError unless packed weights can be written in the opset that is asked for."""
    packing = next((each for each in passes if State.PACKED in each.provides), None)
    needed = PACKED_OPSETS.get(find_target(settings.target).weights, 21)
    opset = choose_opset(settings)
    if packing is not None and opset is not None and opset < needed:
        raise EmitError(
            f"opset {opset} is too low: the weights that {packing.name} packs need opset"
            f" {needed} for {settings.target}"
        )
