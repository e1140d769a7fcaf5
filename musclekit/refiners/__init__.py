"""Refiners: methods that improve labels."""

from __future__ import annotations

from musclekit.refiners.bone import BoneExclusion, exclude_bone
from musclekit.refiners.components import LargestComponent, largest_component
from musclekit.refiners.holes import FillHoles, fill_holes
from musclekit.refiners.smoothing import Smooth, smooth

__all__ = [
    "BoneExclusion",
    "FillHoles",
    "LargestComponent",
    "Smooth",
    "exclude_bone",
    "fill_holes",
    "largest_component",
    "smooth",
]
