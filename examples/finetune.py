"""Slim a detector, train what is left in a loop of your own, and hand it back to yqc.

    python examples/finetune.py best.pt --data data.yaml --passes prune,recover -o tuned.yqc
    yqc compile tuned.yqc --passes int8 --data data.yaml

`yqc compile --emit onnx,pt2` writes the rewritten float graph as a `torch.export` file. The loop
below is plain PyTorch on that file, with labels: replace it by yours. The exported program infers,
so its batch norms keep their statistics; everything else learns. Parameters have the names that
they have in yqc's graph, which is how they go back.

The loss works on decoded outputs, so it fits heads of all families but the end-to-end ones. For
each object, the ten predictions that fit best by score and overlap are its positives (task-aligned
assignment, Feng et al., TOOD, 2021); scores learn the overlap, boxes learn the generalised IoU.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import yqc
from yqc.data import Data, letterbox, load_data, read_image, to_float
from yqc.errors import DataError, YqcError
from yqc.graph.serial import save_graph
from yqc.models.source import open_model

POSITIVES = 10
Batch = tuple[Tensor, list[Tensor]]
"""Images float32 [N,3,H,W], and for each its objects: class, left, top, right, bottom in pixels."""


def batches(data: Data, imgsz: tuple[int, int], size: int, seed: int) -> Iterator[Batch]:
    """Go once through the labelled training images, in a random order, every other one mirrored."""
    truth = data.train.annotations
    if truth is None:
        raise DataError(f"{data.source} has no labels; fine-tuning needs some")
    objects: dict[int, list[list[float]]] = {entry["id"]: [] for entry in truth["images"]}
    for entry in truth["annotations"]:
        x, y, w, h = entry["bbox"]
        objects[entry["image_id"]].append([entry["category_id"] - 1, x, y, x + w, y + h])
    order = [(i, p) for i, p in enumerate(data.train.images, start=1) if i in objects]
    rng = random.Random(seed)  # noqa: S311  # an order of images, no secret
    rng.shuffle(order)
    for first in range(0, len(order) - size + 1, size):
        pairs = [
            placed(path, objects[i], imgsz, mirror=rng.random() < 0.5)  # noqa: PLR2004
            for i, path in order[first : first + size]
        ]
        yield torch.cat([image for image, _ in pairs]), [boxes for _, boxes in pairs]


def placed(
    path: Path, objects: list[list[float]], imgsz: tuple[int, int], *, mirror: bool
) -> tuple[Tensor, Tensor]:
    """Letterbox an image and its objects: float32 [1,3,H,W] and [M,5]."""
    image_file, _ = read_image(path)
    pixels, place = letterbox(image_file, imgsz)
    image, boxes = torch.from_numpy(to_float(pixels)), torch.tensor(objects).view(-1, 5)
    shift = torch.tensor([place.dx, place.dy, place.dx, place.dy])
    boxes[:, 1:] = boxes[:, 1:] * place.scale + shift
    if mirror:
        image = image.flip(3)
        boxes[:, [1, 3]] = imgsz[1] - boxes[:, [3, 1]]
    return image, boxes


def predictions(output: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Split a decoded output into corners [N,A,4] and scores [N,A,classes]."""
    if output.shape[1] == 4 + classes:
        output = output.transpose(1, 2)
        scores = output[..., 4:]
    elif output.shape[2] == 5 + classes:
        scores = output[..., 4:5] * output[..., 5:]
    else:
        raise YqcError("this loop trains decoded heads; give models with an end-to-end head a loss")
    centre, half = output[..., :2], output[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), -1), scores


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of corners that broadcast, [..., 4]."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    both = inner.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    hull = outer.prod(-1).clamp(min=1e-6)
    iou = both / union.clamp(min=1e-6)
    return iou, iou - (hull - union) / hull


def loss_of(output: Tensor, objects: list[Tensor], classes: int) -> Tensor:
    """Return the loss of a batch, an object."""
    boxes, scores = predictions(output, classes)
    total, count = output.new_zeros(()), sum(len(each) for each in objects)
    for box, score, truth in zip(boxes, scores, objects, strict=True):
        target = torch.zeros_like(score)
        if len(truth):
            kind, corners = truth[:, 0].long(), truth[:, 1:]
            overlap, general = giou(box[:, None], corners[None])  # [A, M]
            with torch.no_grad():
                fit = score[:, kind].sqrt() * overlap**6
                best = fit.topk(min(POSITIVES, len(fit)), dim=0).indices
                chosen = torch.zeros_like(fit).scatter_(0, best, 1.0) * (overlap > 0)
                target[:, kind] = torch.maximum(target[:, kind], chosen * overlap)
            weight = chosen * overlap.detach()
            total = total + (weight * (1 - general)).sum() / weight.sum().clamp(min=1) * len(truth)
        safe = score.clamp(1e-6, 1 - 1e-6)
        total = total + nn.functional.binary_cross_entropy(safe, target, reduction="sum")
    return total / max(1, count)


def tune(
    module: nn.Module, data: Data, classes: int, imgsz: tuple[int, int], wish: argparse.Namespace
) -> None:
    """Train a module in place; this is the loop to replace."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=wish.lr, weight_decay=1e-4)
    for epoch in range(wish.epochs):
        losses = []
        for images, objects in batches(data, imgsz, wish.batch, wish.seed + epoch):
            loss = loss_of(module(images), objects, classes)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(module.parameters(), 10.0)
            optimizer.step()
            losses.append(loss.item())
        if not losses:
            raise DataError(f"there are fewer than {wish.batch} training images; lower --batch")
        print(f"epoch {epoch + 1} of {wish.epochs}: loss {np.mean(losses):.3f}", flush=True)


def finetune(wish: argparse.Namespace) -> Path:
    """Compile, tune, and save the graph; returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "slim.onnx"
        result = yqc.compile(
            wish.model, wish.passes, output=out, data=wish.data, evaluate=False, emit="onnx,pt2"
        )
        module = torch.export.load(result.files.exported).module()
    about = result.report.input
    tune(module, load_data(wish.data), about.nc, about.imgsz, wish)
    result.gm.load_state_dict(module.state_dict(), strict=False)
    save_graph(result.gm, wish.output, open_model(wish.model, imgsz=about.imgsz).info())
    return Path(wish.output)


def main() -> int:
    """Read the command line, tune, write the graph; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="data YAML or COCO JSON")
    parser.add_argument("--passes", default="prune,recover", help="float passes to run before")
    parser.add_argument("-o", "--output", type=Path, default=Path("tuned.yqc"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    wish = parser.parse_args()
    try:
        print(finetune(wish))
    except YqcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
