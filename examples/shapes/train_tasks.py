"""Train the detector `shapes.yqc` on for a further task, some minutes: `shapes-TASK.yqc`.

The backbone and the branches that both have begin as they are there. A training that was stopped
goes on as that of `train.py`; the val split is never read.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from batches import crops, drawn
from loss import Objects
from model import STRIDES
from tasks import NETS, ClassifyNet, TaskNet
from torch import Tensor, nn
from train import Plan, Training, run_plan

from yqc.data.scenes import NAMES, SIZE
from yqc.errors import YqcError
from yqc.graph.serial import save_graph
from yqc.models.source import open_model
from yqc.models.trace import trace
from yqc.progress import Progress
from yqc.report.progress import make_progress

HERE = Path(__file__).parent
EPOCHS = {"segment": 8, "pose": 2, "obb": 6, "classify": 2}
"""Times through the pictures. Masks begin from nothing; keypoints lie at the sides of boxes, which
the detector knows; a crop is easier than a picture."""
CROP = 64
"""Height and width of a classifier's pictures."""


@dataclass(frozen=True)
class TaskPlan(Plan):
    """A shorter training at a lower rate, since it begins with a trained detector."""

    task: str = "segment"
    pictures: int = 2000
    held_out: int = 100
    epochs: int = 8
    rate: float = 2e-3
    warmup: int = 50
    memory: float = 0.99


class TaskTraining(Training):
    """The training of a net of a further task."""

    def make_model(self) -> nn.Module:
        """Return the net with the weights that it shares with the detector."""
        model = NETS[cast(TaskPlan, self.plan).task](len(NAMES))
        learned, own = open_model(HERE / "shapes.yqc").gm.state_dict(), model.state_dict()
        model.load_state_dict({name: learned.get(name, value) for name, value in own.items()})
        return model

    def losses(self, model: nn.Module, images: Tensor, objects: Objects) -> dict[str, Tensor]:
        """Return the losses of the model on a batch."""
        return cast(TaskNet | ClassifyNet, model).losses(images, objects)


def train_task(plan: TaskPlan, folder: Path, progress: Progress) -> nn.Module:
    """Train for the plan's task, or resume it, in `folder`; return the averaged model."""
    count, checkpoint = plan.pictures + plan.held_out, folder / f"{plan.task}.safetensors"
    if plan.task == "classify":
        pictures = crops(count, plan.seed, folder, progress, CROP)
    else:
        pictures = drawn(count, plan.seed, folder, progress, tasks=True)
    return run_plan(TaskTraining(plan), pictures, checkpoint, progress)


def write_task_model(model: nn.Module, path: Path) -> None:
    """Trace the model and write it as a file that `yqc compile` takes."""
    crop = isinstance(model, ClassifyNet)
    side = CROP if crop else SIZE
    graph = trace(model.eval(), torch.zeros(1, 3, side, side))
    net = cast(TaskNet, model)
    info: dict[str, object] = {
        "kind": "model",
        "family": "yqc",
        "name": path.stem,
        "names": list(NAMES),
        "strides": [1] if crop else list(STRIDES),
        "imgsz": [side, side],
        "layout": "classes" if crop else "yolov8",
        "task": net.task,
    }
    if not crop:
        info |= {**net.about, "head": asdict(net.detect.facts())}
    save_graph(graph, path, info)


def main() -> int:
    """Read the command line, train, write the model file; returns the exit status."""
    usual = TaskPlan()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("task", choices=tuple(NETS))
    parser.add_argument("-o", "--output", type=Path, help="the model; default: shapes-TASK.yqc")
    parser.add_argument(
        "--work", type=Path, default=Path("build/shapes"), help="for drawn pictures and checkpoints"
    )
    parser.add_argument("--pictures", type=int, default=usual.pictures, help="to draw and learn")
    parser.add_argument("--epochs", type=int, help="times through them; default: by task")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of data and training")
    parser.add_argument("--threads", type=int, default=1, help="for torch")
    wish = parser.parse_args()
    torch.set_num_threads(wish.threads)
    output = wish.output or HERE / f"shapes-{wish.task}.yqc"
    try:
        epochs = wish.epochs or EPOCHS[wish.task]
        plan = TaskPlan(task=wish.task, pictures=wish.pictures, epochs=epochs, seed=wish.seed)
        write_task_model(train_task(plan, wish.work, make_progress()), output)
    except YqcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
