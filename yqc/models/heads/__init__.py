"""Detection heads: the last convolutions and the decode, from feature maps to boxes and scores.

Grids and anchors come from the shapes of the feature maps, never from what a checkpoint stores.
Rows and columns are added as vectors, level by level, so no grid is kept in a compiled file.
"""

from yqc.models.heads.anchor import AnchorHead, AuxiliaryHead, ImplicitHead
from yqc.models.heads.base import DetectionHead, HeadBranch
from yqc.models.heads.dfl import DFL, DistanceHead, SplitHead

__all__ = [
    "DFL",
    "AnchorHead",
    "AuxiliaryHead",
    "DetectionHead",
    "DistanceHead",
    "HeadBranch",
    "ImplicitHead",
    "SplitHead",
]
