"""Check a training on held-out images on its way, and lower a rate that takes it off course."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from yqc.training.plan import RATE, WARMUP
from yqc.training.session import Session, make_optimizer

CHECKS = 8
"""Checks of a training. Half of them lose more steps to a wrong rate; double takes time, and finds
graphs too high that are on their way."""
LOWER = 3.0
"""Factor by which a rate is lowered."""
RISE = 1.1
"""A loss that rises by less than this factor may fall again as the rate does. Met were 1.05 on
yolov8n at 320 px at a rate that ended well, and 1.17 on yolov5n at 640 px at three times the right
one: half of the rise restarts the first, double lets the second pass."""


@dataclass
class RateCheck:
    """Goes back to the start with a lower rate whenever held-out images are too far off.

    Of a training's last two checks nothing is made: what is left could not get anywhere.
    """

    held: NDArray[np.uint8]
    """Images that are not trained on, [N, C, H, W]."""
    start: dict[str, Tensor]
    before: float
    """The loss on them before the first step."""
    stopped: ClassVar[bool] = False
    """It never ends a training."""

    def check(self, session: Session, planned: int | None) -> str:
        """Check behind a step, if it is time; return a sentence if the rate was lowered."""
        if planned is None:
            return ""
        every = max(2 * WARMUP, planned // CHECKS)
        if session.step % every or session.step > planned - 2 * every:
            return ""
        now = {k: v.clone() for k, v in session.student.state.items()}
        session.student.load_state(session.average)
        loss = session.evaluate_loss(self.held)
        if loss < RISE * self.before:
            session.student.load_state(now)
            return ""
        session.student.load_state(self.start)
        session.average = {k: v.clone() for k, v in self.start.items()}
        rate = (session.plan.lr or RATE) / LOWER
        session.plan = replace(session.plan, lr=rate)
        session.optimizer = make_optimizer(session.parameters, session.plan)
        return (
            f"held-out loss {loss:.4g} after step {session.step}: back to the start at {rate:.2g}"
        )
