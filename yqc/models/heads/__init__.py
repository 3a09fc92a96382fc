"""Detection heads: the last convolutions and the decode, from feature maps to boxes and scores.

Grids and anchors come from the shapes of the feature maps, never from what a checkpoint stores.
Rows and columns are added as vectors, level by level, so no grid is kept in a compiled file.

Files in reading order:

    base     the base class of all heads
    anchor   heads with anchor boxes (YOLOv5, YOLOv7)
    dfl      anchor-free heads (Ultralytics)
    branched    anchor-free heads of YOLOv9's authors, with auxiliary branches
    registered  any module that a user registered as a head
    segment  masks: coefficients and prototypes
    pose     keypoints
    oriented    oriented boxes
    classify    classes of whole images
    picking  the best detections inside the graph, for end-to-end heads
"""

from yqc.models.heads.anchor import AnchorHead, AuxiliaryHead, ImplicitHead
from yqc.models.heads.base import DetectionHead, HeadBranch
from yqc.models.heads.branched import BranchedHead
from yqc.models.heads.classify import ClassifyHead
from yqc.models.heads.dfl import DFL, DistanceHead, SplitHead
from yqc.models.heads.oriented import Oriented26Head, OrientedHead
from yqc.models.heads.pose import Pose26Head, PoseHead
from yqc.models.heads.registered import RegisteredHead
from yqc.models.heads.segment import AnchorSegmentHead, Segment26Head, SegmentHead

__all__ = [
    "DFL",
    "AnchorHead",
    "AnchorSegmentHead",
    "AuxiliaryHead",
    "BranchedHead",
    "ClassifyHead",
    "DetectionHead",
    "DistanceHead",
    "HeadBranch",
    "ImplicitHead",
    "Oriented26Head",
    "OrientedHead",
    "Pose26Head",
    "PoseHead",
    "RegisteredHead",
    "Segment26Head",
    "SegmentHead",
    "SplitHead",
]
