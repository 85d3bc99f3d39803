"""Synthetic parts: seen by a pinhole colour and depth camera, with exact ground truth."""

from edge_ad.data.synthetic.dataset import SIZES, write_dataset
from edge_ad.data.synthetic.defects import DEFECTS
from edge_ad.data.synthetic.parts import CLASSES, DefectInfo, SyntheticPart, kinds_for, synthesize
from edge_ad.data.synthetic.render import INTRINSICS

__all__ = [
    "CLASSES",
    "DEFECTS",
    "INTRINSICS",
    "SIZES",
    "DefectInfo",
    "SyntheticPart",
    "kinds_for",
    "synthesize",
    "write_dataset",
]
