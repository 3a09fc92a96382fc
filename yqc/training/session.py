"""One training under way: student, teacher, optimizer and running average."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yqc.graph import lay_out
from yqc.training.heads import Tap
from yqc.training.losses import distance
from yqc.training.plan import LEAST, MOVED, RATE, STEADY, Plan
from yqc.training.student import Student
from yqc.training.teacher import Teacher

EVALUATED_AT_ONCE = 8
"""Images of one evaluation; the losses do not depend on it, memory does."""
READ = 256
"""A layer with this many inputs per output, or fewer, gets the whole learning rate. Half and double
of it halve and double the rates of wider layers."""
ROUNDING = 0.03
"""Distance from the original below which a training computes in float32. The rounding of bfloat16
alone moves a head by about a third of it: with half of it that hides most of the loss; double is
slower for damage that bfloat16 can see."""


@dataclass(frozen=True)
class Arithmetic:
    """The type in which a training computes, and the place and order of its images in memory."""

    device: str
    bfloat16: bool
    """Convolutions in bfloat16, where sums stay in float32."""

    @classmethod
    def choose(cls, device: str, distance: float, *, quantized: bool) -> "Arithmetic":
        """Choose the faster type: bfloat16 on GPUs, and on CPUs that multiply it in hardware (AMX).

        A graph with quantizers is trained in float32, since eight bits of mantissa would hide their
        steps; so is one whose distance from its original is at most `ROUNDING`.
        """
        amx = torch.cpu._is_amx_tile_supported()  # noqa: SLF001  # there is no public name for it
        return cls(device, not quantized and distance > ROUNDING and (device != "cpu" or amx))

    def cast(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that computes in this type."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.bfloat16)

    def images(self, batch: NDArray) -> Tensor:  # type: ignore[type-arg]
        """Turn uint8 [N, C, H, W] into float32 in 0..1 on the graph's device."""
        pixels = torch.from_numpy(batch).to(self.device)
        return pixels.float().div_(255).contiguous(memory_format=torch.channels_last)


class Session:
    """The state of a training, and its steps."""

    def __init__(self, student: Student, teacher: Teacher, taps: Sequence[Tap], plan: Plan) -> None:
        self.student, self.teacher, self.taps, self.plan = student, teacher, taps, plan
        self.arithmetic = Arithmetic(student.device, bfloat16=False)
        lay_out(student.module)
        self.parameters = student.parameters
        self.optimizer = make_optimizer(self.parameters, plan)
        self.average = {k: v.clone() for k, v in student.state.items()}
        self.step = 0

    def adapt(self, far: float, images: NDArray) -> None:  # type: ignore[type-arg]
        """Choose type and learning rate for a student whose loss, its distance, is `far`.

        Trial steps are taken on images, uint8 [N, C, H, W].
        """
        student, plan = self.student, self.plan
        apart = math.inf if plan.bn_l1 else far  # sparse training moves it away
        self.arithmetic = Arithmetic.choose(student.device, apart, quantized=student.quantized)
        tried = plan.lr is None and plan.optimizer == "adamw" and math.isfinite(apart) and far > 0
        rate = self.find_moving_rate(min(far, MOVED), images) if tried else None
        self.plan = plan.adapted(far, rate)

    def find_moving_rate(self, far: float, images: NDArray) -> float:  # type: ignore[type-arg]
        """Find the learning rate at which one first step of AdamW moves the outputs by `far`.

        It is the largest of a series of halved rates that moves them by no more. The student stays
        as it is.
        """
        start = {k: v.clone() for k, v in self.student.state.items()}
        self.student.set_training(freeze_bn=True)
        exact = Arithmetic(self.student.device, bfloat16=False)
        self.compute_loss(images, exact).backward()  # type: ignore[no-untyped-call]
        steps = [
            (p, learning_rate_share(p, self.plan) * p.grad.sign())
            for p in self.parameters.values()
            if p.grad is not None
        ]
        self.optimizer.zero_grad()
        self.student.module.eval()
        own = [replace(tap, kept=None) for tap in self.taps]
        given, rate = self.teacher.run_front(exact.images(images)), RATE / STEADY
        with torch.no_grad():
            here = self.student.module(*given)
            while rate > LEAST * RATE / STEADY:
                for parameter, step in steps:
                    parameter.sub_(rate * step)
                there = self.student.module(*given)
                self.student.load_state(start)
                if float(distance(own, there, here, self.plan.features)) <= far:
                    break
                rate /= 2
        return rate

    def train_step(self, batch: NDArray, steps: int | None) -> float:  # type: ignore[type-arg]
        """Take one step on uint8 [N, C, H, W]; return its loss.

        With a loss or gradient that is not finite nothing is changed, and NaN is returned.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.plan.rate_at(self.step, steps)
        self.student.set_training(freeze_bn=self.plan.freezes_bn_at(self.step, steps))
        loss = self.compute_loss(batch, self.arithmetic)
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
        self._update_average()
        return float(loss.detach())

    def compute_loss(self, batch: NDArray, arithmetic: Arithmetic) -> Tensor:  # type: ignore[type-arg]
        """Return the loss on uint8 [N, C, H, W], with gradients if the student's modules have them.

        The loss itself is computed in float32.
        """
        images = arithmetic.images(batch)
        with arithmetic.cast():
            given = self.teacher.run_front(images)
            wanted = self.teacher.run_rest(given)
            found = self.student.module(*given)
        return distance(self.taps, found, wanted, self.plan.features)

    @torch.no_grad()
    def evaluate_loss(self, images: NDArray) -> float:  # type: ignore[type-arg]
        """Return the loss of the student in inference, on uint8 [N, C, H, W], in float32."""
        self.student.module.eval()
        exact = Arithmetic(self.student.device, bfloat16=False)
        parts = [
            self.compute_loss(images[i : i + EVALUATED_AT_ONCE], exact)
            for i in range(0, len(images), EVALUATED_AT_ONCE)
        ]
        return float(torch.stack(parts).mean())

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the running average towards the student, faster while it is young."""
        keep = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.student.state.items():
            self.average[name].lerp_(value, 1 - keep)


def make_optimizer(parameters: dict[str, nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """Make the optimizer; only tensors of two dimensions and more have weight decay."""
    by_share: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters.values():
        decay = plan.decay if parameter.ndim > 1 else 0.0
        by_share.setdefault((learning_rate_share(parameter, plan), decay), []).append(parameter)
    groups = [
        {"params": members, "share": part, "weight_decay": decay}
        for (part, decay), members in by_share.items()
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate_at(0, None), momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.rate_at(0, None))


def learning_rate_share(parameter: Tensor, plan: Plan) -> float:
    """Return the share of the learning rate that a parameter gets, 0..1.

    AdamW moves all values of a weight by the same amount. A layer's output sums up the moves of all
    its inputs, so wide layers get smaller ones (Yang et al., Tensor Programs V, 2022).
    """
    if plan.optimizer == "sgd" or parameter.ndim < 2:  # noqa: PLR2004  # scales and shifts
        return 1.0
    return min(1.0, READ / max(1, parameter[0].numel()))
