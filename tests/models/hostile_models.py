"""Hostile models: pickles of allowed names only, whose modules ask for terabytes or make no sense.

Each case turns fields of a sound small detector into something else. `cases` names what was changed
and gives what the pickle then holds.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from yqc.models.pickles.read import Inert

SPEC = {
    "nc": 2,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "C2f", [8, True]],
        [-1, 1, "nn.MaxPool2d", [2, 2, 0]],
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 1], 1, "Concat", [1]],
        [-1, 1, "SPPF", [8, 5]],
    ],
    "head": [[[5], 1, "Detect", ["nc"]]],
}
NAN, INF, BIG = float("nan"), float("inf"), 1 << 31
NUMBERS = (None, -1, 0, 7, 1 << 20, 1 << 40, -(1 << 63), 1 << 70, NAN, INF, "3", True, ())
PAIRS = ((0, 0), (-1, -1), (BIG, BIG), (1 << 20, 1 << 20), (1 << 62, 1 << 62), (1,) * 9, (NAN, 1))
FIELDS: dict[str, dict[str, tuple[object, ...]]] = {
    "conv.Conv2d": {
        "in_channels": NUMBERS,
        "out_channels": NUMBERS,
        "groups": NUMBERS,
        "kernel_size": PAIRS,
        "stride": PAIRS,
        "padding": (*PAIRS, "same", "valid", "x"),
        "dilation": PAIRS,
        "padding_mode": ("reflect", "circular", "x", 3, None),
        "bias": ("x",),
    },
    "batchnorm.BatchNorm2d": {"num_features": NUMBERS, "eps": NUMBERS},
    "pooling.MaxPool2d": {
        "kernel_size": (*NUMBERS, *PAIRS),
        "stride": (*NUMBERS, *PAIRS),
        "padding": (*NUMBERS, *PAIRS),
        "dilation": (*NUMBERS, *PAIRS),
    },
    "upsampling.Upsample": {
        "scale_factor": (1e3, 1e6, 1e30, NAN, INF, -2.0, 0.0, 1 << 40, (2, 1 << 30), "2"),
        "size": (BIG, (BIG, BIG), (100_000, 100_000), (-1, 1), (0, 0), "x"),
        "mode": ("bicubic", "x", 3, None, "linear"),
    },
    "block.C2f": {"c": NUMBERS},
    "conv.Concat": {"d": (*NUMBERS, -5)},
    "head.Detect": {
        "nc": NUMBERS,
        "no": NUMBERS,
        "nl": NUMBERS,
        "reg_max": NUMBERS,
        "stride": (
            None,
            torch.zeros(1),
            torch.full((1,), NAN),
            torch.full((99,), 8.0),
            "x",
            [1e30],
        ),
    },
}
ROUTES: tuple[object, ...] = (
    *(None, 0, 1, -2, -99, 99, 1 << 40, 0.5, "x"),
    *([], [0], [-1, -1], [99, -1], [None], [[0]]),
)
SHAPES = (
    torch.zeros(0),
    torch.zeros(()),
    torch.zeros(1, 1, 1, 1),
    torch.zeros(1).expand(1 << 22),
    torch.zeros(8, 3, 3, 3, dtype=torch.complex64),
    torch.zeros(8, 3, 3, 3, dtype=torch.bool),
    torch.full((8, 3, 3, 3), NAN),
)

Tree = dict[str, Any]
Case = tuple[str, Callable[[Tree], None]]


def inside(value: object, seen: set[int] | None = None) -> Iterator[Inert]:
    """Every module of a tree, once."""
    seen = set() if seen is None else seen
    for inner in value.values() if isinstance(value, dict) else ():
        if isinstance(inner, Inert) and id(inner) not in seen:
            seen.add(id(inner))
            yield inner
            yield from inside(inner.state.get("_modules"), seen)
        elif isinstance(inner, dict):
            yield from inside(inner, seen)


def of(tree: Tree, name: str) -> Inert:
    return next(part for part in inside(tree) if part.class_path.endswith(name))


def fields() -> Iterator[Case]:
    for name, attributes in FIELDS.items():
        for key, values in attributes.items():
            for value in values:

                def change(tree: Tree, at: tuple[str, str, object] = (name, key, value)) -> None:
                    of(tree, at[0]).state[at[1]] = at[2]

                yield f"{name}.{key} is {value!r:.40}", change


def routes() -> Iterator[Case]:
    for name, value in itertools.product(("Conv", "C2f", "Concat", "Detect"), ROUTES):

        def change(tree: Tree, at: tuple[str, object] = (name, value)) -> None:
            of(tree, f".{at[0]}").state["f"] = at[1]

        yield f"{name}.f is {value!r}", change


def tensors() -> Iterator[Case]:
    for name, value in itertools.product(("weight", "bias", "running_var"), SHAPES):

        def change(tree: Tree, at: tuple[str, object] = (name, value)) -> None:
            for part in inside(tree):
                for section in ("_parameters", "_buffers"):
                    held = part.state.get(section, {})
                    if at[0] in held:
                        held[at[0]] = at[1]
                        return

        yield f"{name} is {tuple(value.shape)} {value.dtype}", change


def nested() -> Iterator[Case]:  # noqa: C901  # a list of small changes
    """Modules within modules: many, deep, shared, or in places where none may be."""

    def deep(tree: Tree) -> None:
        model = of(tree, "DetectionModel").state["_modules"]
        for _ in range(150):
            model["model"] = Inert(
                "torch.nn.modules.container.Sequential", (), {"_modules": {"0": model["model"]}}
            )

    def doubled(tree: Tree) -> None:
        act: Any = Inert("torch.nn.modules.activation.SiLU")
        for _ in range(60):
            act = Inert(
                "torch.nn.modules.container.Sequential", (), {"_modules": {"0": act, "1": act}}
            )
        of(tree, ".Conv").state["_modules"]["act"] = act

    def forty_upsamplings(tree: Tree) -> None:
        up = Inert(
            "torch.nn.modules.upsampling.Upsample", (), {"scale_factor": 2.0, "mode": "nearest"}
        )
        of(tree, ".Conv").state["_modules"]["act"] = Inert(
            "torch.nn.modules.container.Sequential",
            (),
            {"_modules": {str(k): up for k in range(40)}},
        )

    def padded(tree: Tree) -> None:
        of(tree, ".Conv").state["_modules"]["act"] = Inert(
            "torch.nn.modules.padding.ZeroPad2d", (), {"padding": (1 << 17,) * 4}
        )

    def pooled(tree: Tree) -> None:
        of(tree, ".Conv").state["_modules"]["act"] = Inert(
            "torch.nn.modules.pooling.AdaptiveAvgPool2d", (), {"output_size": (1 << 18, 1 << 18)}
        )

    def linear(tree: Tree) -> None:
        of(tree, ".Conv").state["_modules"]["act"] = Inert(
            "torch.nn.modules.linear.Linear", (), {"in_features": 1 << 40, "out_features": 1 << 40}
        )

    def softmax(tree: Tree) -> None:
        of(tree, ".Conv").state["_modules"]["act"] = Inert(
            "torch.nn.modules.activation.Softmax", (), {"dim": 1 << 40}
        )

    def layers(tree: Tree) -> None:
        held = of(tree, "DetectionModel").state["_modules"]["model"].state["_modules"]
        first = held["0"]
        held.clear()
        held.update({str(k): first for k in range(30_000)})

    def no_layers(tree: Tree) -> None:
        of(tree, "DetectionModel").state["_modules"]["model"].state["_modules"].clear()

    def module_as_tensor(tree: Tree) -> None:
        conv = of(tree, ".Conv2d")
        conv.state["_parameters"]["weight"] = conv

    def names(tree: Tree) -> None:
        of(tree, "DetectionModel").state["names"] = {1 << 60: "x", "\u202e": ["y"], None: 3}

    def many_names(tree: Tree) -> None:
        of(tree, "DetectionModel").state["names"] = dict.fromkeys(range(20000), "x" * 1000)

    def digits(tree: Tree) -> None:
        of(tree, "DetectionModel").state["names"] = {"9" * 5000: "x", "\u0664": "y", "\u00b2": "z"}

    def size(tree: Tree) -> None:
        of(tree, "DetectionModel").state["args"] = {"imgsz": 1 << 40}

    makers = (
        *(deep, doubled, forty_upsamplings, padded, pooled, linear, softmax, layers, no_layers),
        *(module_as_tensor, names, many_names, digits, size),
    )
    yield from ((maker.__name__.replace("_", " "), maker) for maker in makers)


def cases(sound: Tree) -> Iterator[tuple[str, Tree]]:
    """Every case: what was changed, and the tree that results."""
    for name, change in itertools.chain(fields(), routes(), tensors(), nested()):
        tree = copy.deepcopy(sound)
        change(tree)
        yield name, tree
