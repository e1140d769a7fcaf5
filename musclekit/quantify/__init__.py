"""Measure segmented structures: volume, area, Hounsfield units, fat fraction, asymmetry, and what the scan cut off."""

from __future__ import annotations

from musclekit.quantify.groups import functional_groups, group_volumes
from musclekit.quantify.measures import Measures, measure
from musclekit.quantify.structures import UNIONS
from musclekit.quantify.values import HU_CLASSES

__all__ = ["HU_CLASSES", "UNIONS", "Measures", "functional_groups", "group_volumes", "measure"]
