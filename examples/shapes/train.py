"""Train the small detector on drawn shapes, some 20 minutes on two CPU cores: `shapes.yqc`.

Every epoch ends in one checkpoint file, so that a run that was stopped can be resumed. The val
split is never read here: the loss that is shown is that of held-out pictures of the train split.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import cast

import torch
from batches import Pictures, drawn, plain, varied
from loss import Objects, answers, detection_loss
from model import STRIDES, ShapesNet
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from yqc.data.scenes import NAMES, SIZE
from yqc.errors import CheckpointError, YqcError
from yqc.graph.serial import save_graph
from yqc.models.trace import trace
from yqc.progress import Advance, Progress
from yqc.report.progress import make_progress


@dataclass(frozen=True)
class Plan:
    """Length, data and learning rate of the training."""

    pictures: int = 6000
    held_out: int = 300
    epochs: int = 24
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.03
    warmup: int = 300
    memory: float = 0.998
    seed: int = 0

    @property
    def steps(self) -> int:
        """Batches in the whole training; a last odd batch of an epoch is left out."""
        return self.epochs * (self.pictures // self.batch)

    def rate_at(self, step: int) -> float:
        """A linear rise times half a cosine down to a hundredth (Loshchilov & Hutter, 2017)."""
        cosine = 0.505 + 0.495 * math.cos(math.pi * step / self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup) * cosine


class Training:
    """A model, its running average, its optimizer, and their progress."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.model = self.make_model()
        self.average = self.make_model().requires_grad_(requires_grad=False).eval()
        self.average.load_state_dict(self.model.state_dict())
        weights = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": plan.decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate)
        self.epoch = 0
        self.step = 0

    def make_model(self) -> nn.Module:
        """Return the model before any training."""
        return ShapesNet(len(NAMES))

    def run_epoch(self, pictures: Pictures, advance: Advance) -> dict[str, float]:
        """Go once over the pictures; returns the mean of each loss."""
        plan, history = self.plan, []
        self.model.train()
        for images, objects in varied(pictures, plan.batch, plan.seed * 100_003 + self.epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate_at(self.step)
            losses = self.losses(self.model, images, objects)
            self.optimizer.zero_grad()
            torch.autograd.backward(torch.stack(tuple(losses.values())).sum())
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
            self.step += 1
            self.follow()
            history.append({name: value.item() for name, value in losses.items()})
            advance(1)
        self.epoch += 1
        return {name: fmean(one[name] for one in history) for name in history[0]}

    @torch.no_grad()
    def follow(self) -> None:
        """Move the running average a little towards the model (faster while it is young)."""
        keep = min(self.plan.memory, (1 + self.step) / (10 + self.step))
        new = self.model.state_dict()
        for name, old in self.average.state_dict().items():
            if old.is_floating_point():
                old.lerp_(new[name], 1 - keep)
            else:
                old.copy_(new[name])

    @torch.no_grad()
    def held_out_loss(self, pictures: Pictures) -> float:
        """The average model's loss on pictures that it was not trained on."""
        return fmean(
            sum(loss.item() for loss in self.losses(self.average, images, objects).values())
            for images, objects in plain(pictures, 50)
        )

    def losses(self, model: nn.Module, images: Tensor, objects: Objects) -> dict[str, Tensor]:
        """Return the losses of the model on a batch."""
        return detection_loss(answers(cast(ShapesNet, model).raw(images), STRIDES), objects)

    def save(self, path: Path) -> None:
        """Write a checkpoint into one file, replaced as a whole."""
        state: dict[str, Tensor] = {}
        for part, module in (("model", self.model), ("average", self.average)):
            state |= {f"{part}.{k}": v for k, v in module.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        about = {"epoch": self.epoch, "step": self.step, "plan": vars(self.plan)}
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata={"about": json.dumps(about)})
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: it is of another plan.
        """
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
        if about["plan"] != vars(self.plan):
            raise CheckpointError(
                f"{path} belongs to a training with other settings; remove it, or name another "
                "folder with --work."
            )
        state = load_file(path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if part == "optimizer":
                number, _, key = rest.partition(".")
                moments.setdefault(int(number), {})[key] = value
        self.model.load_state_dict(_below(state, "model."))
        self.average.load_state_dict(_below(state, "average."))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.epoch, self.step = about["epoch"], about["step"]


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def train(plan: Plan, folder: Path, progress: Progress) -> ShapesNet:
    """Train by the plan, or resume it, in `folder`; return the averaged model.

    Raises:
        CheckpointError: the folder's checkpoint is of another plan.
    """
    pictures = drawn(plan.pictures + plan.held_out, plan.seed, folder, progress)
    checkpoint = folder / "checkpoint.safetensors"
    return cast(ShapesNet, run_plan(Training(plan), pictures, checkpoint, progress))


def run_plan(
    training: Training, pictures: Pictures, checkpoint: Path, progress: Progress
) -> nn.Module:
    """Train on pictures, of which the last ones are held out, or resume it; return the average.

    Raises:
        CheckpointError: the checkpoint is of another plan.
    """
    plan = training.plan
    learn, check = pictures.part(slice(plan.pictures)), pictures.part(slice(plan.pictures, None))
    if checkpoint.exists():
        training.restore(checkpoint)
        progress.note(f"going on after epoch {training.epoch} of {plan.epochs}")
    with progress.task("training", total=plan.steps - training.step) as advance:
        while training.epoch < plan.epochs:
            losses = training.run_epoch(learn, advance)
            training.save(checkpoint)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            held_out = training.held_out_loss(check)
            progress.note(f"epoch {training.epoch}  {shown}  held out {held_out:.3f}")
    return training.average


def write_model(model: ShapesNet, path: Path) -> None:
    """Trace the model and write it as a file that `yqc compile` takes."""
    graph = trace(model.eval(), torch.zeros(1, 3, SIZE, SIZE))
    info = {
        "kind": "model",
        "family": "yqc",
        "name": "shapes",
        "names": list(NAMES),
        "strides": list(STRIDES),
        "imgsz": [SIZE, SIZE],
        "layout": "yolov8",
        "task": "detect",
        "head": asdict(model.detect.facts()),
    }
    save_graph(graph, path, info)


def main() -> int:
    """Read the command line, train, write the model file; returns the exit status."""
    here, usual = Path(__file__).parent, Plan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=here / "shapes.yqc", help="the model")
    parser.add_argument(
        "--work", type=Path, default=Path("build/shapes"), help="for drawn pictures and checkpoint"
    )
    parser.add_argument("--pictures", type=int, default=usual.pictures, help="to draw and learn")
    parser.add_argument("--epochs", type=int, default=usual.epochs, help="times through them")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of data and training")
    parser.add_argument("--threads", type=int, default=2, help="for torch")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    try:
        plan = Plan(pictures=wish.pictures, epochs=wish.epochs, seed=wish.seed)
        write_model(train(plan, wish.work, make_progress()), wish.output)
    except YqcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(wish.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
