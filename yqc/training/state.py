"""Checkpoints of a training in the cache: plain tensors and numbers."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from yqc.graph.compare import fingerprint
from yqc.pipeline.base import Cache, Pause
from yqc.training.plan import Plan
from yqc.training.session import Session


@dataclass
class Checkpoints:
    """Keeps checkpoints of a training, and the best state on the way.

    Without a cache nothing is written, and only the best state is kept, in memory.
    """

    cache: Cache | None
    name: str
    best: dict[str, Tensor] | None = None
    best_loss: float = math.inf
    planned: int | None = None
    losses: list[float] = field(default_factory=list)
    """Of the steps of this epoch."""
    before: float = math.nan
    """The loss before the first step."""
    pause: Pause = field(default_factory=Pause)

    @classmethod
    def of(
        cls, cache: Cache | None, gm: fx.GraphModule, plan: Plan, images: Sequence[Path]
    ) -> "Checkpoints":
        """Open the checkpoints of one training; their name depends on graph, plan and images."""
        digest = hashlib.blake2b(fingerprint(gm).encode() if cache else b"", digest_size=12)
        digest.update(json.dumps(asdict(plan)).encode())
        digest.update("\n".join(map(str, images)).encode(errors="surrogateescape"))
        return cls(cache, f"recover-{digest.hexdigest()}")

    def remember_best(self, session: Session, loss: float) -> None:
        """Keep the running average if the mean loss of the epoch is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss = loss
            self.best = {k: v.clone() for k, v in session.average.items()}

    def save(self, session: Session, planned: int | None, *, spent: float) -> None:
        """Write a checkpoint, unless one was written just now."""
        if self.cache is None or not self.pause.is_over():
            return
        tensors = {f"student.{k}": v for k, v in session.student.state.items()}
        tensors |= {f"average.{k}": v for k, v in session.average.items()}
        tensors |= {f"best.{k}": v for k, v in (self.best or {}).items()}
        for number, values in session.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{number}.{k}": v for k, v in values.items() if isinstance(v, Tensor)
            }
        about: dict[str, Any] = {
            "step": session.step,
            "planned": planned,
            "loss": self.best_loss,
            "spent": spent,
        }
        about |= {"losses": self.losses, "before": self.before, "lr": session.plan.lr}
        about |= {"freeze_bn": session.plan.freeze_bn, "bfloat16": session.arithmetic.bfloat16}
        with self.pause.measured():
            self.cache.save(self.name, tensors, about)

    def restore(self, session: Session) -> dict[str, Any] | None:
        """Restore the last checkpoint; return the numbers in it, or None if there is none."""
        found = self.cache.load(self.name) if self.cache else None
        if found is None:
            return None
        tensors, about = found
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "optimizer":
                number, _, key = rest.partition(".")
                moments.setdefault(int(number), {})[key] = value
        session.student.load_state(below_prefix(tensors, "student."))
        for name, value in below_prefix(tensors, "average.").items():
            session.average[name].copy_(value)
        groups = session.optimizer.state_dict()["param_groups"]
        session.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        session.step, planned = int(about["step"]), about["planned"]
        self.planned = None if planned is None else int(planned)
        self.best_loss, self.before = float(about["loss"]), float(about["before"])
        self.losses = [float(loss) for loss in about["losses"]]
        session.plan = replace(session.plan, lr=about["lr"], freeze_bn=about["freeze_bn"])
        session.arithmetic = replace(session.arithmetic, bfloat16=bool(about["bfloat16"]))
        self.best = below_prefix(tensors, "best.") or None
        return about


def below_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
