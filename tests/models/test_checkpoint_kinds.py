"""Checkpoints as people save them: wrapped, compiled, masked, with losses, hooks and settings."""

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from tests.models.hostile import text, zipped
from yqc.errors import CheckpointError, ForbiddenGlobalError
from yqc.facts import OutputForm
from yqc.models.load import LoadedModel, load
from yqc.models.pickles.dill import GLOBAL
from yqc.models.pickles.globals import BUILDERS, Gate
from yqc.models.pickles.read import Inert, Named
from yqc.models.pickles.values import Allowance
from yqc.models.register import register_block

Edit = Callable[[Any, Any], Any]
"""Changes a pickled model; returns what the file is to hold, or None for the model."""


def saved(path: Path, detector: Any, checkpoints: ModuleType, edit: Edit) -> Path:
    with checkpoints.project_modules():
        model = checkpoints.pickled_model(detector, "ultralytics", names=["a", "b", "c"])
        top = edit(model, checkpoints.stand_in)
        torch.save({"model": model} if top is None else top, path)
    return path


def held(stand_in: Any, class_path: str, **attributes: Any) -> Any:
    """Make an object of a class that only its project knows."""
    made = stand_in(class_path)()
    made.__dict__ |= attributes
    return made


def plain(stand_in: Any, class_path: str, **attributes: Any) -> Any:
    """Make an object of a class of another package that is no module."""
    home = sys.modules[stand_in(f"{class_path}Home").__module__]
    name = class_path.rpartition(".")[2]
    made = type(name, (), {"__module__": home.__name__})()
    setattr(home, name, type(made))
    vars(made).update(attributes)
    return made


def wrapped(stand_in: Any, class_path: str, name: str, model: Any) -> Any:
    """Make a module of such a class around another one."""
    made = stand_in(class_path)()
    setattr(made, name, model)
    return made


WRAPPERS: dict[str, Edit] = {
    "YOLO": lambda m, new: wrapped(new, "ultralytics.models.yolo.model.YOLO", "model", m),
    "older YOLO": lambda m, new: {
        "model": held(
            new, "ultralytics.yolo.engine.model.YOLO", task="detect", _modules={}, model=m
        )
    },
    "AutoShape": lambda m, new: wrapped(new, "models.common.AutoShape", "model", m),
    "backend": lambda m, new: wrapped(
        new,
        "models.common.AutoShape",
        "model",
        wrapped(new, "models.common.DetectMultiBackend", "model", m),
    ),
    "compiled": lambda m, new: {
        "model": wrapped(new, "acme.compiled.OptimizedModule", "_orig_mod", m)
    },
    "parallel, compiled": lambda m, new: {
        "ema": nn.DataParallel(wrapped(new, "acme.compiled.OptimizedModule", "_orig_mod", m))
    },
    "ensemble of one": lambda m, new: wrapped(new, "models.experimental.Ensemble", "0", m),
    "another key": lambda m, _: {"epoch": 3, "net": m},
    "a list": lambda m, _: [m],
    "trainer": lambda m, new: held(new, "acme.train.Trainer", model=m, epoch=3, _modules={}),
}


@pytest.mark.parametrize("how", WRAPPERS)
def test_the_model_is_found_in_its_wrappers(
    how: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = saved(tmp_path / "m.pt", v8, checkpoints, WRAPPERS[how])
    x = checkpoints.images(1)
    with torch.no_grad():
        torch.testing.assert_close(load(path).module(x), v8(x))


def test_what_torch_itself_leaves_in_files_is_data() -> None:
    gate = Gate("m.pt", lambda _: False)
    for path in (
        "torch._dynamo.eval_frame.OptimizedModule",
        "torch._TorchCompileInductorWrapper",
        "contextlib.nullcontext",
        "torch.nn.utils.prune.PruningContainer",
        "torch.nn.functional.relu",
        "torch._C._nn.gelu",
        "torch.utils.data.dataloader.DataLoader",
    ):
        assert gate.allows(path)


def outer_loss(model: Any, stand_in: Any) -> None:
    model.criterion = stand_in("acme.losses.WIoULoss")()
    model.compute_loss = nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))
    model.model[-1].loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    model.model[-1].assigner = stand_in("acme.loss.Assigner")()
    model.model[2].mse = nn.MSELoss()


def settings(model: Any, stand_in: Any) -> Any:
    model.args = plain(stand_in, "acme.config.Config", imgsz=320)
    model.ema = plain(stand_in, "acme.ema.ModelEMA", updates=3)
    opt = argparse.Namespace(imgsz=256, device=torch.device("cpu"))
    return {"model": model, "opt": opt, "wandb": plain(stand_in, "acme.logs.Run", lr=0.1)}


@pytest.mark.parametrize("edit", [outer_loss, settings])
def test_losses_and_settings_beside_the_model_are_left_out(
    edit: Edit, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    found = load(saved(tmp_path / "m.pt", v8, checkpoints, edit))
    x = checkpoints.images(1)
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), v8(x))
    assert found.warnings == ()


def hooks(model: Any, stand_in: Any) -> None:
    home = sys.modules[stand_in("acme.hooks.Home").__module__]
    home.count = types.FunctionType(hooks.__code__, {}, "count")  # type: ignore[attr-defined]
    home.count.__module__, home.count.__qualname__ = "acme.hooks", "count"
    model.model[0].conv.register_forward_hook(home.count)
    model.model[2].register_forward_hook(held(stand_in, "acme.hooks.Keeper"))


def test_hooks_are_left_out_and_said(tmp_path: Path, v8: Any, checkpoints: ModuleType) -> None:
    found = load(saved(tmp_path / "m.pt", v8, checkpoints, hooks))
    x = checkpoints.images(1)
    for module in v8.modules():
        module._forward_hooks.clear()
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), v8(x))
    (said,) = found.warnings
    assert said.startswith("the file holds hooks on 2 modules (model.0.conv: acme.hooks.count), w")


class Call:
    """Pickles as a call of a function of another package."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, ("x",)


def test_a_call_of_another_packages_function_is_refused(
    tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    def call(model: Any, stand_in: Any) -> Any:
        home = sys.modules[stand_in("acme.tools.Home").__module__]
        home.remove = types.FunctionType(hooks.__code__, {}, "remove")  # type: ignore[attr-defined]
        home.remove.__module__, home.remove.__qualname__ = "acme.tools", "remove"
        return {"model": model, "x": Call(home.remove)}

    with pytest.raises(ForbiddenGlobalError, match=r"names acme\.tools\.remove, for which"):
        load(saved(tmp_path / "m.pt", v8, checkpoints, call))


PARTS: dict[str, Callable[[nn.Module], Any]] = {
    "prune": lambda conv: prune.l1_unstructured(conv, "weight", 0.4),  # type: ignore[no-untyped-call]
    "prune twice": lambda conv: prune.ln_structured(  # type: ignore[no-untyped-call]
        prune.random_unstructured(conv, "weight", 0.3),  # type: ignore[no-untyped-call]
        *("weight", 0.3, 2, 0),
    ),
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
}


@pytest.mark.parametrize("how", PARTS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_hooks_of_torch_compute_is_computed(
    how: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    name = "model.0.conv.weight"
    before = v8.state_dict()[name].clone()
    for conv in (v8.model[0].conv, v8.model[2].cv1.conv, v8.head.cv3[0][2]):
        PARTS[how](conv)
    v8.eval()
    x = checkpoints.images(1)
    with torch.no_grad():
        want = v8(x)
    for conv in (v8.model[0].conv, v8.model[2].cv1.conv, v8.head.cv3[0][2]):
        vars(conv).pop("weight", None)  # what the last forward computed
    found = load(saved(tmp_path / "m.pt", v8, checkpoints, lambda *_: None))
    torch.testing.assert_close(found.module(x), want, rtol=1e-4, atol=1e-4)
    assert found.warnings == ()
    assert how == "weight norm" or not torch.equal(before, found.module.state_dict()[name])


# dill


def build(name: str, *args: Any) -> Any:
    return BUILDERS[f"dill._dill.{name}"](args, Allowance())


def test_dill_names_things_in_ways_of_its_own() -> None:
    assert build("_load_type", "set") == Named("builtins.set")
    assert build("_load_type", "CodeType").class_path == "dill._dill._load_type"
    module = build("_import_module", "ultralytics.nn.modules.conv")
    conv = build("_get_attr", module, "Conv")
    assert (conv.class_path, conv.args) == (GLOBAL, ("ultralytics.nn.modules.conv.Conv",))
    forward = build("_get_attr", Named("ultralytics.nn.modules.conv.Conv"), "forward_fuse")
    bound: Any = BUILDERS["types.MethodType"]((forward, Inert("a.Conv")), Allowance())
    assert (bound.class_path, bound.args) == ("builtins.getattr", ("forward_fuse",))
    made = build("_create_type", Named("builtins.type"), "Net", (), {"__module__": "acme.nets"})
    assert made.args == ("acme.nets.Net",)
    assert build("_create_function", 1, {}, "f").args == ()


def test_what_dill_hides_behind_an_attribute_is_checked(tmp_path: Path) -> None:
    def program(module: str, name: str, call: bytes) -> bytes:
        imported = b"cdill._dill\n_import_module\n" + text(module) + b"\x85R"
        found = b"cdill._dill\n_get_attr\n" + imported + text(name) + b"\x86R"
        return b"\x80\2" + found + call + b"."

    path = tmp_path / "m.pt"
    path.write_bytes(zipped(program("os", "system", b"X\1\0\0\0x\x85R")))
    with pytest.raises(ForbiddenGlobalError, match=r"names os\.system, which is not among"):
        load(path)
    path.write_bytes(zipped(program("os", "system", b"")))
    with pytest.raises(CheckpointError, match="holds no YOLO model"):
        load(path)


# Heads of a user's own


class Decoding(nn.Module):
    """A head with branches `box` and `cls` that decodes as YOLOv8 with `reg_max` 1."""

    def forward(self: Any, maps: list[Tensor]) -> Tensor:
        rows = []
        for i, x in enumerate(maps):
            h, w = x.shape[-2:]
            stride = self.stride[i]
            box, score = self.box[i](x) * stride, self.cls[i](x).sigmoid()
            cx = (torch.arange(w) + 0.5) * stride + box[:, :1]
            cy = ((torch.arange(h) + 0.5) * stride)[:, None] + box[:, 1:2]
            rows.append(torch.cat((cx, cy, box[:, 2:].exp(), score), 1).flatten(2))
        y = torch.cat(rows, 2)
        return self.lay_out(y)  # type: ignore[no-any-return]

    def lay_out(self, y: Tensor) -> Tensor:
        return y


class Rows(Decoding):
    def lay_out(self, y: Tensor) -> Tensor:
        return torch.cat((y[:, :4], y[:, 4:5], y[:, 4:]), 1).transpose(1, 2)


class Picked(Decoding):
    def lay_out(self, y: Tensor) -> Tensor:
        top, where = y[:, 4:].amax(1).topk(20, 1)
        boxes = y[:, :4].gather(2, where[:, None].expand(-1, 4, -1))
        return torch.cat((boxes, top[:, None], torch.zeros_like(top)[:, None]), 1).transpose(1, 2)


class Stated(Decoding):
    layout = "yolov8"
    nc = 3


class Pair(Decoding):
    def forward(self, maps: list[Tensor]) -> Any:
        return super().forward(maps), maps


class Undecoded(Decoding):
    def lay_out(self, y: Tensor) -> Tensor:
        return y.flatten(1)


class Misstated(Decoding):
    layout = "yolo9000"


class Points(Decoding):
    """Two keypoints of x and y behind each box."""

    task, kpt_shape = "pose", (2, 2)

    def lay_out(self, y: Tensor) -> Tensor:
        return torch.cat((y, y[:, :4] + 1), 1)


class PickedPoints(Points):
    def lay_out(self, y: Tensor) -> Tensor:
        rows = Picked.lay_out(self, y)  # type: ignore[arg-type]
        return torch.cat((rows, rows[..., :4]), 2)


class Turned(Decoding):
    task = "obb"

    def lay_out(self, y: Tensor) -> Tensor:
        return torch.cat((y, y[:, :1] * 0.1), 1)


class Masks(Decoding):
    task = "segment"

    def lay_out(self, y: Tensor) -> Tensor:
        return torch.cat((y, y[:, :2]), 1)

    def forward(self, maps: list[Tensor]) -> Any:
        return super().forward(maps), maps[0][:, :2]


class Labels(Decoding):
    task = "classify"

    def forward(self: Any, maps: list[Tensor]) -> Any:
        logits = [self.cls[i](x).mean((2, 3)) + self.box[i](x).mean() for i, x in enumerate(maps)]
        return sum(logits).softmax(1)


class Pointless(Decoding):
    task = "pose"


class Unmasked(Decoding):
    task = "segment"


class Taskless(Decoding):
    task = "dream"


def own_head(path: Path, detector: Any, checkpoints: ModuleType) -> Path:
    def edit(model: Any, stand_in: Any) -> None:
        head = stand_in("acme.heads.DetectX")()
        widths = [layer[0].conv.in_channels for layer in model.model[-1].cv2]
        head.box = nn.ModuleList(nn.Conv2d(c, 4, 1) for c in widths)
        head.cls = nn.ModuleList(nn.Conv2d(c, 3, 1) for c in widths)
        head.stride, head.f, head.i = torch.tensor([8.0, 16.0, 32.0]), model.model[-1].f, 10
        model.model[-1] = head

    return saved(path, detector, checkpoints, edit)


@pytest.mark.parametrize(
    ("twin", "layout", "shape"),
    [
        (Decoding, "yolov8", (2, 7, 504)),
        (Stated, "yolov8", (2, 7, 504)),
        (Pair, "yolov8", (2, 7, 504)),
        (Rows, "yolov5", (2, 504, 8)),
        (Picked, "end2end", (2, 20, 6)),
    ],
)
def test_a_registered_head_is_known_by_its_output(
    twin: type[nn.Module],
    layout: str,
    shape: tuple[int, ...],
    tmp_path: Path,
    v8: Any,
    checkpoints: ModuleType,
) -> None:
    path = own_head(tmp_path / "m.pt", v8, checkpoints)
    register_block("acme.heads.DetectX", twin)
    found: LoadedModel = load(path)
    assert (found.layout, found.nc, found.names) == (layout, 3, ("a", "b", "c"))
    assert (found.strides, found.warnings) == ((8, 16, 32), ())
    assert found.module(checkpoints.images(2)).shape == shape


@pytest.mark.parametrize(
    ("twin", "form", "shapes"),
    [
        (Points, OutputForm("yolov8", 3, "pose", kpt_shape=(2, 2)), [(2, 11, 504)]),
        (PickedPoints, OutputForm("end2end", 3, "pose", kpt_shape=(2, 2)), [(2, 20, 10)]),
        (Turned, OutputForm("yolov8", 3, "obb"), [(2, 8, 504)]),
        (Masks, OutputForm("yolov8", 3, "segment", 2), [(2, 9, 504), (2, 2, 16, 24)]),
        (Labels, OutputForm("classes", 3, "classify"), [(2, 3)]),
    ],
)
def test_a_registered_head_may_be_of_any_task(
    twin: type[nn.Module],
    form: OutputForm,
    shapes: list[tuple[int, ...]],
    tmp_path: Path,
    v8: Any,
    checkpoints: ModuleType,
) -> None:
    path = own_head(tmp_path / "m.pt", v8, checkpoints)
    register_block("acme.heads.DetectX", twin)
    found: LoadedModel = load(path)
    assert (found.form, found.warnings) == (form, ())
    assert found.strides == ((1,) if form.task == "classify" else (8, 16, 32))
    outputs = found.module(checkpoints.images(2))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(y.shape) for y in outputs] == shapes


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (Pointless, r"the head Pointless states kpt_shape None: state how many keypoints"),
        (Unmasked, "the head Unmasked states task 'segment': return detections and prototypes"),
        (Taskless, "the head Taskless states task 'dream'; the tasks are detect, segment"),
        (Undecoded, r"the head Undecoded gives \[1, 2352\] for 336 cells: decode it to \[N, 4"),
        (Misstated, "the head Misstated states layout 'yolo9000'; the layouts are yolov5, yolov8"),
        (nn.Identity, "last layer is not a detection head"),
    ],
)
def test_a_registered_head_that_is_none_is_refused(
    twin: type[nn.Module], said: str, tmp_path: Path, v8: Any, checkpoints: ModuleType
) -> None:
    path = own_head(tmp_path / "m.pt", v8, checkpoints)
    register_block("acme.heads.DetectX", twin)
    with pytest.raises(CheckpointError, match=said):
        load(path)
