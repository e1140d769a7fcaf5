"""Where the thigh is in a scan: body, legs, femur, and the invertible frames between them."""

from musclekit.anatomy.body import body_mask
from musclekit.anatomy.femur import FemurAxis, femur_axis, obliquity_cosine
from musclekit.anatomy.legs import Leg, label_sides, split_legs

__all__ = ["FemurAxis", "Leg", "body_mask", "femur_axis", "label_sides", "obliquity_cosine", "split_legs"]
