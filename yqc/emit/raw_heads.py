"""Cut the decoding off a graph: what the head's last layers compute becomes its outputs.

Devices that cannot run the decoding, or lose the scales of int8 in it, run such a file, and
`yqc.runtime` decodes what it gives. A level of stride 8 has the outputs `box_8`, `cls_8`, `coef_8`,
`kpt_8`, `angle_8`, of an anchor head `raw_8`; beside them are `proto` and `logits`. With `scores`,
the sigmoid of class scores (the softmax of logits) stays in the file.
"""

import copy
import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import fx

from yqc.errors import EmitError
from yqc.facts import HeadFacts, OutputForm
from yqc.graph.compare import head_nodes
from yqc.graph.roles import role
from yqc.graph.values import KEY, TensorSpec, propagate

OUTPUT_NAMES = "yqc.output_names"
"""Under this key the output node's meta names the outputs of the file."""
VERSION = 1
KINDS = {
    "head.box": "box",
    "head.cls": "cls",
    "head.mask": "coef",
    "head.keypoint": "kpt",
    "head.angle": "angle",
    "head.proto": "proto",
    "head.logits": "logits",
}
OBJECTNESS = 5
"""Numbers of an anchor before its class scores: a box, and an objectness."""

CutForm = Literal["scores", "raw"]


def cut_decode(
    gm: fx.GraphModule, form: OutputForm, head: HeadFacts, decode: CutForm
) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Return the graph without its decoding, and the metadata entry `yqc.heads`.

    The graph shares the modules of `gm`. The entry says of each output its name, kind and stride,
    and how all are decoded.

    Raises:
        EmitError: the graph's raw outputs are not those of the head that it was traced from.
    """
    graph = copy.deepcopy(gm.graph)
    made = fx.GraphModule(gm, graph, type(gm).__name__)
    image = next(node for node in graph.nodes if node.op == "placeholder")
    height = _shape(image)[2]
    found = [_describe(node, form, height) for node in head_nodes(made)]
    order = [*KINDS.values(), "raw"]
    found.sort(key=lambda one: (one.get("stride", height + 1), order.index(one["kind"])))
    names = [str(one["name"]) for one in found]
    if not found or len(set(names)) != len(names):
        raise EmitError(f"the decoding cannot be cut off: the outputs before it are {names}")
    results = [one.pop("node") for one in found]
    if decode == "scores":
        results = [_with_scores(node, one, form) for node, one in zip(results, found, strict=True)]
    end = graph.output_node()
    end.args = (tuple(results),)
    end.meta[OUTPUT_NAMES] = tuple(names)
    graph.eliminate_dead_code()
    made.recompile()
    propagate(made)
    return made, describe_heads(found, form, head, decode)


def describe_heads(
    outputs: Sequence[dict[str, Any]], form: OutputForm, head: HeadFacts, decode: CutForm
) -> dict[str, Any]:
    """Return the metadata entry `yqc.heads`; keys that do not apply are left out."""
    factor, offset = head.keypoints or (0.0, 0.0)
    found = {
        "version": VERSION,
        "decode": decode,
        "task": form.task,
        "layout": form.layout,
        "nc": form.nc,
        "outputs": list(outputs),
        "reg_max": head.reg_max,
        "anchors": [[list(size) for size in level] for level in head.anchors],
        "coefficients": form.coefficients,
        "kpt_shape": form.kpt_shape and list(form.kpt_shape),
        "keypoints": head.keypoints and {"factor": factor, "offset": offset},
        "angle": head.angle,
    }
    return {key: value for key, value in found.items() if value}


def refuse_cut(form: OutputForm | None, head: HeadFacts | None) -> str:
    """Say why the decoding of a model cannot be cut off; "" if it can."""
    if form is None or head is None:
        return (
            "how its raw outputs are decoded is not known; compile the checkpoint that it was "
            "traced from, or with --decode full"
        )
    if form.layout == "end2end":
        return "it picks its detections in the graph; trace it with --head one2many"
    return ""


def _shape(node: fx.Node) -> tuple[int, ...]:
    spec = node.meta.get(KEY)
    return spec.shape if isinstance(spec, TensorSpec) else ()


def _describe(node: fx.Node, form: OutputForm, height: int) -> dict[str, Any]:
    """Return an output's node, kind, name and, of a level, stride."""
    kind = KINDS.get(role(node), "raw")
    if form.layout == "yolov5" and kind != "proto":
        kind = "raw"
    if kind in {"proto", "logits"}:
        return {"node": node, "name": kind, "kind": kind}
    stride = height // max(_shape(node)[2], 1)
    return {"node": node, "name": f"{kind}_{stride}", "kind": kind, "stride": stride}


def _with_scores(node: fx.Node, about: dict[str, Any], form: OutputForm) -> fx.Node:
    """Append the sigmoid or softmax of the scores among an output's numbers."""
    add = node.graph.call_function
    with node.graph.inserting_before(node.graph.output_node()):
        match about["kind"]:
            case "logits":
                return add(torch.softmax, (node, 1))
            case "raw" if form.coefficients:
                each = [OBJECTNESS + (form.nc or 0), form.coefficients]
                anchors = _shape(node)[1] // sum(each)
                parts = add(torch.split, (node, each * anchors, 1))
                split = [add(operator.getitem, (parts, i)) for i in range(2 * anchors)]
                split[::2] = [add(torch.sigmoid, (part,)) for part in split[::2]]
                return add(torch.cat, (split, 1))
            case "raw" | "cls":
                return add(torch.sigmoid, (node,))
    return node
