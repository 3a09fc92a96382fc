"""Guard a training of packed weights: the state nearest to the original on held-out images is kept.

Packed weights were rounded so that the outputs change least, and a step moves integers only where
it crosses the middle between two of them. So the rate cannot be found from what one step does, and
a rate that is too high undoes the rounding. Each rate is tried for a few steps. Whenever held-out
images are no nearer than in the best state so far, that state is taken up again at a lower rate;
behind the lowest one the training ends.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from yqc.training.plan import WARMUP, Plan
from yqc.training.session import Session, make_optimizer
from yqc.training.state import Checkpoints

FIRST = 1e-4
"""First rate. Not measured: higher ones moved yolov5n in four bits (640 px) off its course for a
quarter of an hour; a lower one takes more steps to cross from an integer to the next."""
LOWER = 4.0
"""Factor by which a rate is lowered. Not measured: half of it tries more rates in the same range,
each for as long; double may skip the one that helps."""
TRIES = 3
"""Rates that are tried. Each takes `TRIAL` steps, half a minute for yolov5n at 640 px."""
TRIAL = 8
"""Steps between two checks, until one has succeeded. With half of them few integers have moved;
with double it takes twice as long to find out that training does not help."""
CHECKS = 16
"""Checks of a training that helps. Half of them lose more steps to a rate that has become too high,
double takes twice the time, about a tenth of the training's on few steps."""
PACKED = (
    torch.ops.yqc.unpack_uniform,
    torch.ops.yqc.unpack_table,
    torch.ops.yqc.unpack_rice,
)
"""Operators that make weights of packed codes."""


def guard_packed(plan: Plan, gm: fx.GraphModule) -> Plan:
    """Return the plan for a graph with packed weights; other graphs keep theirs."""
    if plan.checked or plan.bn_l1 or not any(node.target in PACKED for node in gm.graph.nodes):
        return plan
    rate = FIRST if plan.lr is None and plan.optimizer == "adamw" else plan.lr
    return replace(plan, lr=rate, guarded=True)


@dataclass
class HeldOutGuard:
    """Keeps the best state of a training, and ends it where no rate improves on that."""

    held: NDArray[np.uint8]
    """Images that are not trained on, [N, C, H, W]."""
    start: dict[str, Tensor]
    first: float
    """The first rate."""
    checkpoints: Checkpoints
    """They hold the best state and its loss, and the loss before the first step."""
    stopped: bool = False
    """Whether the training is to end."""

    @property
    def rates(self) -> list[float]:
        """The rates, falling."""
        return [self.first / LOWER**turn for turn in range(TRIES)]

    def finish(self, session: Session) -> str:
        """Make the best state the running average; return why nothing was gained, or nothing."""
        self.keep_if_better(session)
        if self.checkpoints.best is not None:
            session.average = {k: v.clone() for k, v in self.checkpoints.best.items()}
            return ""
        tried = ", ".join(f"{rate:.2g}" for rate in self.rates)
        return (
            f"held-out images came no nearer to the original at rates of {tried}: training "
            "does not help these packed weights, which stay as they were"
        )

    def check(self, session: Session, planned: int | None) -> str:
        """Check behind a step, if it is time; return a sentence if the rate was lowered.

        Args:
            session: the training.
            planned: its number of steps; None while that is not known.
        """
        helps = self.checkpoints.best is not None and session.step > WARMUP
        every = max(TRIAL, (planned or 0) // CHECKS) if helps else TRIAL
        if session.step % every or self.keep_if_better(session):
            return ""
        rate = session.plan.lr or self.first
        lower = [one for one in self.rates if one < 0.99 * rate]
        if not lower:
            self.stopped = True
            return f"held-out images come no nearer after step {session.step}: it ends here"
        best = self.checkpoints.best or self.start
        session.student.load_state(best)
        session.average = {k: v.clone() for k, v in best.items()}
        session.plan = replace(session.plan, lr=lower[0])
        session.optimizer = make_optimizer(session.parameters, session.plan)
        return (
            f"held-out images come no nearer at step {session.step}: "
            f"back to the best state at a rate of {lower[0]:.2g}"
        )

    def keep_if_better(self, session: Session) -> bool:
        """Keep the running average if held-out images are nearer than ever before."""
        now = {k: v.clone() for k, v in session.student.state.items()}
        session.student.load_state(session.average)
        loss = session.evaluate_loss(self.held)
        session.student.load_state(now)
        best = min(self.checkpoints.before, self.checkpoints.best_loss)
        if not (math.isfinite(loss) and loss < best):
            return False
        self.checkpoints.remember_best(session, loss)
        return True
