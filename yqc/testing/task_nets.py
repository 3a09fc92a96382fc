"""Small nets of the tasks beyond detection, decoded as YOLO heads of these tasks are."""

from typing import Literal

import torch
from torch import Tensor, nn

from yqc.facts import OutputForm
from yqc.testing.nets import Unit, seeded

CLASSES = 2
COEFFICIENTS = 8
KEYPOINTS = (3, 3)

SEGMENT = OutputForm("yolov8", CLASSES, "segment", coefficients=COEFFICIENTS)
POSE = OutputForm("yolov8", CLASSES, "pose", kpt_shape=KEYPOINTS)
OBB = OutputForm("yolov8", CLASSES, "obb")
CLASSIFY = OutputForm("classes", CLASSES, "classify")
FORMS = {form.task: form for form in (SEGMENT, POSE, OBB, CLASSIFY)}


def task_net(task: Literal["segment", "pose", "obb", "classify"], seed: int = 0) -> nn.Module:
    """Make a net of a task, whose outputs are of the form `FORMS[task]`.

    It takes [N, 3, H, W], H and W multiples of 16.
    """
    return seeded(TaskNet(FORMS[task]) if task != "classify" else Classifier(), seed)


class TaskNet(nn.Module):
    """Two scales, branches for boxes, scores and what the task adds, and prototypes to segment."""

    def __init__(self, form: OutputForm) -> None:
        super().__init__()
        self.form = form
        self.stem, self.p4 = Unit(3, 6, 3, 2), Unit(6, 8, 3, 2)
        self.p8, self.p16 = Unit(8, 8, 3, 2), Unit(8, 12, 3, 2)
        widths = (8, 12)
        self.box = nn.ModuleList(nn.Conv2d(c, 4, 1) for c in widths)
        self.cls = nn.ModuleList(nn.Conv2d(c, CLASSES, 1) for c in widths)
        self.more = nn.ModuleList(
            nn.Sequential(Unit(c, 8, 3), nn.Conv2d(8, form.extra, 1)) for c in widths
        )
        self.proto = Prototypes(8, 8) if form.task == "segment" else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return float32 [N, 4 + classes + extra, anchors], and prototypes [N, 8, H/4, W/4]."""
        fine = self.p8(self.p4(self.stem(images)))
        coarse = self.p16(fine)
        found = [self.level(i, x, 8 * 2**i) for i, x in enumerate((fine, coarse))]
        boxes, scores, more = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        output = torch.cat((boxes, scores.sigmoid(), more), 1)
        return output if self.proto is None else (output, self.proto(fine))

    def level(self, i: int, x: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Decode boxes and what the task adds, in pixels; scores are logits."""
        rows, columns = (torch.arange(size) + 0.5 for size in x.shape[-2:])
        centre = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
        before, after = nn.functional.softplus(self.box[i](x)).chunk(2, 1)
        more = self.more[i](x)
        middle = (after - before) * 0.5
        if self.form.task == "obb":
            more = (more.sigmoid() - 0.25) * torch.pi
            along, across = middle.chunk(2, 1)
            cos, sin = more.cos(), more.sin()
            middle = torch.cat((along * cos - across * sin, along * sin + across * cos), 1)
        elif self.form.task == "pose":
            points = torch.unflatten(more.flatten(2), 1, KEYPOINTS)
            at = (points[:, :, :2] * 2 + (centre - 0.5).flatten(1)) * stride
            more = torch.cat((at, points[:, :, 2:].sigmoid()), 2).flatten(1, 2)
        boxes = torch.cat((middle + centre, before + after), 1) * stride
        return boxes.flatten(2), self.cls[i](x).flatten(2), more.flatten(2)


class Prototypes(nn.Module):
    """Mask prototypes: a map upsampled by a transposed convolution between units."""

    def __init__(self, given: int, hidden: int) -> None:
        super().__init__()
        self.first = Unit(given, hidden, 3)
        self.upsample = nn.ConvTranspose2d(hidden, hidden, 2, 2)
        self.second, self.last = Unit(hidden, hidden, 3), Unit(hidden, COEFFICIENTS)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 [N, 8, 2 h, 2 w]."""
        y: Tensor = self.last(self.second(self.upsample(self.first(x))))
        return y


class Classifier(nn.Module):
    """Units, a pooling of the whole map, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = Unit(3, 8, 3, 2), Unit(8, 16, 3, 2)
        self.pool, self.drop = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.0)
        self.linear = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32 [N, classes]."""
        y = self.pool(self.body(self.stem(images))).flatten(1)
        probabilities: Tensor = self.linear(self.drop(y)).softmax(1)
        return probabilities
