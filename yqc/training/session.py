"""One training under way: student, teacher, optimiser, running average, and how far they are."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yqc.training.heads import Tap
from yqc.training.losses import distance
from yqc.training.plan import LEAST, MOVED, RATE, STEADY, Plan
from yqc.training.student import Student
from yqc.training.teacher import Teacher

JUDGED_AT_ONCE = 8
READ = 256
"""A layer that reads so many numbers, or fewer, gets the whole learning rate."""
ROUNDED = 0.03
"""bfloat16 alone moves a head by about a third of this."""


@dataclass(frozen=True)
class Arithmetic:
    """How a training computes: in which type, and how images lie in memory."""

    device: str
    half: bool
    """Convolutions in bfloat16, where sums stay in float32."""

    @classmethod
    def best(cls, device: str, far: float, *, quantized: bool) -> "Arithmetic":
        """Choose what is fast: bfloat16 on GPUs, and on CPUs that multiply it in hardware (AMX).

        A graph with quantizers is trained in float32, since eight bits of mantissa would hide their
        steps; so is one that differs from its original hardly more than by bfloat16's rounding.

        Args:
            device: where the graph is.
            far: its distance from the original.
            quantized: whether it has quantizers.
        """
        amx = torch.cpu._is_amx_tile_supported()  # noqa: SLF001  # there is no public name for it
        return cls(device, not quantized and far > ROUNDED and (device != "cpu" or amx))

    def cast(self) -> contextlib.AbstractContextManager[None]:
        """Compute in this arithmetic inside."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.half)

    def images(self, batch: NDArray) -> Tensor:  # type: ignore[type-arg]
        """Turn uint8 [N, 3, H, W] into float32 in 0..1 where the graph is."""
        pixels = torch.from_numpy(batch).to(self.device)
        return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


class Session:
    """What a training has learned so far.

    Args:
        student: the graph in training.
        teacher: what it is to be like.
        taps: what is compared.
        plan: how to train.
    """

    def __init__(self, student: Student, teacher: Teacher, taps: Sequence[Tap], plan: Plan) -> None:
        self.student, self.teacher, self.taps, self.plan = student, teacher, taps, plan
        self.arithmetic = Arithmetic(student.device, half=False)
        student.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = student.parameters
        self.optimizer = make_optimizer(self.parameters, plan)
        self.average = {k: v.clone() for k, v in student.state.items()}
        self.step = 0

    def fit(self, far: float, images: NDArray) -> None:  # type: ignore[type-arg]
        """Choose arithmetic and learning rate for a graph that is so far from its original.

        Args:
            far: its loss.
            images: uint8 [N, 3, H, W], some to try steps on.
        """
        student, plan = self.student, self.plan
        apart = math.inf if plan.bn_l1 else far  # sparsity takes it away from there
        self.arithmetic = Arithmetic.best(student.device, apart, quantized=student.quantized)
        tried = plan.lr is None and plan.optimizer == "adamw" and math.isfinite(apart) and far > 0
        self.plan = plan.fitted(far, self.reach(min(far, MOVED), images) if tried else None)

    def reach(self, far: float, images: NDArray) -> float:  # type: ignore[type-arg]
        """Return the learning rate at which one first step of AdamW moves the outputs by `far`.

        Nearly: the largest of a row in which each is half of the one before. Nothing is changed.
        """
        start = {k: v.clone() for k, v in self.student.state.items()}
        self.student.learn(freeze_bn=True)
        exact = Arithmetic(self.student.device, half=False)
        self.compare(images, exact).backward()  # type: ignore[no-untyped-call]
        steps = [
            (p, share(p, self.plan) * p.grad.sign())
            for p in self.parameters.values()
            if p.grad is not None
        ]
        self.optimizer.zero_grad()
        self.student.module.eval()
        own = [replace(tap, kept=None) for tap in self.taps]
        given, rate = self.teacher.shared(exact.images(images)), RATE / STEADY
        with torch.no_grad():
            here = self.student.module(*given)
            while rate > LEAST * RATE / STEADY:
                for parameter, step in steps:
                    parameter.sub_(rate * step)
                there = self.student.module(*given)
                self.student.load(start)
                if float(distance(own, there, here, self.plan.features)) <= far:
                    break
                rate /= 2
        return rate

    def take(self, batch: NDArray, steps: int | None) -> float:  # type: ignore[type-arg]
        """Take one step on uint8 [N, 3, H, W]; returns its loss, finite or not.

        With a loss or gradient that is not finite nothing is changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.plan.rate(self.step, steps)
        self.student.learn(freeze_bn=self.plan.frozen(self.step, steps))
        loss = self.compare(batch, self.arithmetic)
        if self.plan.bn_l1:
            scales = [n.weight.abs().sum() for n in self.student.norms if n.affine]
            loss = loss + self.plan.bn_l1 * torch.stack(scales).sum() if scales else loss
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.plan.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return float("nan")
        self.optimizer.step()
        self.step += 1
        self._follow()
        return float(loss.detach())

    def compare(self, batch: NDArray, arithmetic: Arithmetic) -> Tensor:  # type: ignore[type-arg]
        """Return the loss on uint8 [N, 3, H, W], with gradients if the student's modules have them.

        The loss itself is computed in float32.
        """
        images = arithmetic.images(batch)
        with arithmetic.cast():
            given = self.teacher.shared(images)
            wanted = self.teacher.wanted(given)
            found = self.student.module(*given)
        return distance(self.taps, found, wanted, self.plan.features)

    @torch.no_grad()
    def judge(self, images: NDArray) -> float:  # type: ignore[type-arg]
        """Return the loss of the student as it is, in inference, on uint8 [N, 3, H, W].

        In float32, whatever it is trained in.
        """
        self.student.module.eval()
        exact = Arithmetic(self.student.device, half=False)
        parts = [
            self.compare(images[i : i + JUDGED_AT_ONCE], exact)
            for i in range(0, len(images), JUDGED_AT_ONCE)
        ]
        return float(torch.stack(parts).mean())

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average towards the student, faster while it is young."""
        keep = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.student.state.items():
            self.average[name].lerp_(value, 1 - keep)


def make_optimizer(parameters: dict[str, nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """Make the optimiser; only tensors of two dimensions and more decay."""
    by_share: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters.values():
        decay = plan.decay if parameter.ndim > 1 else 0.0
        by_share.setdefault((share(parameter, plan), decay), []).append(parameter)
    groups = [
        {"params": members, "share": part, "weight_decay": decay}
        for (part, decay), members in by_share.items()
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate(0, None), momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.rate(0, None))


def share(parameter: Tensor, plan: Plan) -> float:
    """Return which part of the learning rate a parameter gets, 0..1.

    AdamW moves all values of a weight by the same amount. A layer's output sums up as many of these
    moves as it reads numbers, so wide layers get smaller ones (Yang et al., Tensor Programs V,
    2022).
    """
    if plan.optimizer == "sgd" or parameter.ndim < 2:  # noqa: PLR2004  # scales and shifts
        return 1.0
    return min(1.0, READ / max(1, parameter[0].numel()))
