"""Train the small detector on drawn shapes: `python examples/shapes/train.py`, about an hour on two CPU cores.

Every epoch ends in one checkpoint file, so a run that was stopped goes on where it was. The val split is never
looked at here: what is printed is the loss on pictures of the train split that are held out.
"""

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from batches import Pictures, drawn, plain, varied
from loss import answers, detection_loss
from model import STRIDES, ShapesNet
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn

from yqc.data.shapes import NAMES, SIZE
from yqc.progress import Progress, Silent

HELD_OUT = 300


@dataclass(frozen=True)
class Plan:
    """How to train; a checkpoint of another plan is not gone on with."""

    pictures: int = 6000
    epochs: int = 50
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.03
    warmup: int = 300
    memory: float = 0.998
    seed: int = 0

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate: a linear rise, then half a cosine down to a hundredth (Loshchilov & Hutter, 2017)."""
        cosine = 0.505 + 0.495 * math.cos(math.pi * step / steps)
        return self.rate * min(1.0, (step + 1) / self.warmup) * cosine


class Training:
    """A model, its running average, its optimiser and how far they have come."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.model = ShapesNet(len(NAMES))
        self.average = ShapesNet(len(NAMES)).requires_grad_(requires_grad=False).eval()
        self.average.load_state_dict(self.model.state_dict())
        weights = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": plan.decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate)
        self.epoch = 0
        self.step = 0

    def run_epoch(self, pictures: Pictures) -> dict[str, float]:
        """Go once over the pictures; returns the mean of each loss."""
        plan, sums = self.plan, dict.fromkeys(("box", "class", "spread"), 0.0)
        steps = plan.epochs * (len(pictures.pixels) // plan.batch)
        self.model.train()
        count = 0
        for images, objects in varied(pictures, plan.batch, plan.seed * 100_003 + self.epoch):
            for group in self.optimizer.param_groups:
                group["lr"] = plan.rate_at(self.step, steps)
            losses = detection_loss(answers(self.model.raw(images), STRIDES), objects)
            self.optimizer.zero_grad()
            torch.stack(tuple(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
            self.step += 1
            count += 1
            self.follow()
            for name, value in losses.items():
                sums[name] += value.item()
        self.epoch += 1
        return {name: total / count for name, total in sums.items()}

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
        total, batches = 0.0, 0
        for images, objects in plain(pictures, 50):
            losses = detection_loss(answers(self.average.raw(images), STRIDES), objects)
            total += sum(value.item() for value in losses.values())
            batches += 1
        return total / batches

    def save(self, path: Path) -> None:
        """Write everything that going on needs, in one file that is either old or new."""
        state: dict[str, Tensor] = {}
        for part, module in (("model", self.model), ("average", self.average)):
            state |= {f"{part}.{k}": v for k, v in module.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        about = {"epoch": self.epoch, "step": self.step, "plan": vars(self.plan)}
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata={"about": json.dumps(about)})
        os.replace(partial, path)  # noqa: PTH105  # one system call, so nobody sees half a file

    def restore(self, path: Path) -> bool:
        """Go back to a checkpoint; false if there is none of this plan."""
        if not path.exists():
            return False
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
        if about["plan"] != vars(self.plan):
            return False
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
        return True


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def train(plan: Plan, folder: Path, progress: Progress) -> ShapesNet:
    """Train by the plan, or go on with it; returns the averaged model."""
    pictures = drawn(plan.pictures + HELD_OUT, plan.seed, folder, progress)
    learn, check = pictures.part(slice(plan.pictures)), pictures.part(slice(plan.pictures, None))
    training, checkpoint = Training(plan), folder / "checkpoint.safetensors"
    if training.restore(checkpoint):
        print(f"going on after epoch {training.epoch}", flush=True)
    began, first = time.monotonic(), training.epoch
    while training.epoch < plan.epochs:
        losses = training.run_epoch(learn)
        training.save(checkpoint)
        done = training.epoch - first
        left = (time.monotonic() - began) / done * (plan.epochs - training.epoch) / 60
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        print(
            f"epoch {training.epoch}/{plan.epochs}  {shown}  "
            f"held out {training.held_out_loss(check):.3f}  {left:.0f} min left",
            flush=True,
        )
    return training.average


def main() -> None:
    """Read the command line, train, write the model file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/shapes"), help="pictures and checkpoint")
    parser.add_argument("--pictures", type=int, default=Plan.pictures)
    parser.add_argument("--epochs", type=int, default=Plan.epochs)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=2)
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    plan = Plan(pictures=wish.pictures, epochs=wish.epochs, seed=wish.seed)
    train(plan, wish.work, Silent())


if __name__ == "__main__":
    main()
