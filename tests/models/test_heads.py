"""What heads compute: decoding cell by cell in plain Python beside the twins'."""

import pytest
import torch
from torch import Tensor

from yqc.errors import CheckpointError
from yqc.models.heads import DFL, AnchorHead, AuxiliaryHead, DistanceHead, ImplicitHead
from yqc.models.heads.picking import pick_best

ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]]
STRIDES = (8.0, 16.0)


def maps(batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(3)
    return [torch.randn(batch, c, h, w, generator=g) for c, h, w in ((4, 3, 5), (6, 2, 4))]


def anchor_head(cls: type[AnchorHead], ch: tuple[int, ...] = (4, 6)) -> AnchorHead:
    torch.manual_seed(1)
    head = cls(2, ANCHORS, ch)
    head.stride = STRIDES
    head.scale_anchors()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, 0.2, 0.5)
    return head.eval()


def distance_head(reg_max: int, *, end2end: bool = False) -> DistanceHead:
    torch.manual_seed(2)
    head = DistanceHead(3, (4, 6), reg_max, end2end)
    head.stride = STRIDES
    for name, parameter in head.named_parameters():
        if not name.startswith("dfl"):
            torch.nn.init.normal_(parameter, 0.1, 0.5)
    head.finish()
    return head.eval()


@pytest.mark.parametrize(("value", "why"), [(1.5, "was edited"), (float("nan"), "not finite")])
def test_an_expectation_that_was_edited_is_refused(value: float, why: str) -> None:
    head = DistanceHead(3, (4, 6), 8)
    assert isinstance(head.dfl, DFL)
    head.dfl.conv.weight.data[0, 1] = value
    with pytest.raises(ValueError, match=rf"^dfl\.conv\.weight .*{why}"):
        head.finish()


def test_anchor_head_decodes_every_anchor_of_every_cell() -> None:
    head, xs = anchor_head(AnchorHead), maps()
    got = head(xs)
    want = []
    for i, (raw,) in enumerate(head.raw(xs)):
        s, t = raw.sigmoid(), STRIDES[i]
        for a in range(3):
            for row in range(raw.shape[3]):
                for col in range(raw.shape[4]):
                    v = s[:, a, :, row, col]
                    w, h = ANCHORS[i][2 * a : 2 * a + 2]
                    x, y = (2 * v[:, 0] - 0.5 + col) * t, (2 * v[:, 1] - 0.5 + row) * t
                    size = [(2 * v[:, 2]) ** 2 * w, (2 * v[:, 3]) ** 2 * h]
                    want.append(torch.stack([x, y, *size, *v[:, 4:].T], 1))
    torch.testing.assert_close(got, torch.stack(want, 1), rtol=1e-5, atol=1e-4)
    assert head.layout == "yolov5"


@pytest.mark.parametrize("reg_max", [1, 8])
def test_distance_head_decodes_every_cell(reg_max: int) -> None:
    head, xs = distance_head(reg_max), maps()
    got = head(xs)
    want = []
    for (box, score), t in zip(head.raw(xs), STRIDES, strict=True):
        for row in range(box.shape[2]):
            for col in range(box.shape[3]):
                sides = box[:, :, row, col].view(-1, 4, reg_max)
                p = sides.softmax(2) if reg_max > 1 else sides
                weights = torch.arange(reg_max).float() if reg_max > 1 else torch.ones(1)
                left, top, right, bottom = ((p * weights).sum(2) * t).T
                x, y = (col + 0.5) * t, (row + 0.5) * t
                centre = [x + (right - left) / 2, y + (bottom - top) / 2]
                want.append(
                    torch.stack(
                        [*centre, left + right, top + bottom, *score[:, :, row, col].sigmoid().T],
                        1,
                    )
                )
    torch.testing.assert_close(got, torch.stack(want, 2), rtol=1e-5, atol=1e-4)
    assert head.layout == "yolov8"


def test_corners_and_centres_are_the_same_boxes() -> None:
    head = distance_head(8)
    raw = maps()[0].repeat(1, 8, 1, 1)
    x, y, w, h = head.boxes(raw, 8.0, corners=False).unbind(1)
    x1, y1, x2, y2 = head.boxes(raw, 8.0, corners=True).unbind(1)
    torch.testing.assert_close(torch.stack([x - w / 2, x + w / 2]), torch.stack([x1, x2]))
    torch.testing.assert_close(torch.stack([y - h / 2, y + h / 2]), torch.stack([y1, y2]))


def test_stored_expectation_is_the_one_that_is_computed() -> None:
    head = distance_head(8)
    raw = maps()[0].repeat(1, 8, 1, 1)
    stored = DFL(8)(raw.flatten(2))
    ours = head.distances(raw, 1.0).flatten(2)
    torch.testing.assert_close(stored, ours)


def test_implicit_knowledge_folds_exactly() -> None:
    head, xs = anchor_head(ImplicitHead), maps()
    want = head(xs)
    head.finish()
    assert {name for name, _ in head.named_children()} == {"m"}
    torch.testing.assert_close(head(xs), want, rtol=1e-5, atol=1e-4)


def test_auxiliary_maps_do_not_matter() -> None:
    head = anchor_head(AuxiliaryHead, (4, 6, 5, 7))
    xs = maps()
    want = head([*xs, *xs])
    head.finish()
    torch.testing.assert_close(head(xs), want, rtol=1e-5, atol=1e-4)
    assert head.child("m2") is None


def test_best_takes_cells_first_then_classes() -> None:
    boxes = torch.arange(4 * 6.0).view(1, 4, 6)
    scores = torch.tensor([[[0.9, 0.1, 0.3, 0.2, 0.0, 0.05], [0.8, 0.2, 0.4, 0.1, 0.0, 0.7]]])
    # Of the cells 0, 5 and 2, which have the highest best scores, the three best pairs.
    rows = pick_best(boxes, scores, limit=3)[0]
    assert rows[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert rows[:, 5].tolist() == [0, 1, 1]
    assert rows[:, 0].tolist() == [0, 0, 5]
    assert rows[:, 3].tolist() == [18, 18, 23]


def test_best_gives_as_many_rows_as_cells_where_they_are_few() -> None:
    rows = pick_best(torch.rand(2, 4, 7), torch.rand(2, 3, 7))
    assert rows.shape == (2, 7, 6)
    assert torch.equal(rows[..., 4], rows[..., 4].sort(1, descending=True)[0])


def test_choosing_a_head_that_is_not_there_is_refused() -> None:
    for head in (anchor_head(AnchorHead), distance_head(8)):
        head.choose_branch("one2many")
        with pytest.raises(CheckpointError, match="no one-to-one head; leave --head out"):
            head.choose_branch("one2one")
    dual = distance_head(8, end2end=True)
    dual.choose_branch("one2many")
    assert dual.layout == "yolov8"


def test_heads_that_do_not_fit_together_are_refused() -> None:
    head = distance_head(8)
    head.nc = 4
    with pytest.raises(CheckpointError, match=r"cv3 give \[3, 3\] channels, not 4"):
        head.check()
    other = anchor_head(AnchorHead)
    other.nl = 3
    with pytest.raises(CheckpointError, match="anchors of shape"):
        other.check()


def test_implicit_knowledge_around_another_convolution_is_refused() -> None:
    head = anchor_head(ImplicitHead)
    head.m[0] = torch.nn.Conv2d(4, 21, 3, padding=1)
    with pytest.raises(CheckpointError, match="not pointwise"):
        head.finish()
