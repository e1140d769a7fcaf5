"""Where the thigh is in a scan: body, legs, femur, and the invertible frames between them."""

from musclekit.anatomy.body import body_mask
from musclekit.anatomy.legs import Leg, split_legs

__all__ = ["Leg", "body_mask", "split_legs"]
