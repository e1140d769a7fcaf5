"""Refiners: methods that improve labels."""

from __future__ import annotations

from musclekit.refiners.components import LargestComponent, largest_component
from musclekit.refiners.holes import FillHoles, fill_holes

__all__ = ["FillHoles", "LargestComponent", "fill_holes", "largest_component"]
