"""Where the thigh is in a scan: body, legs, femur, and the invertible frames between them."""

from musclekit.anatomy.body import body_mask
from musclekit.anatomy.legs import Leg, label_sides, split_legs

__all__ = ["Leg", "body_mask", "label_sides", "split_legs"]
