"""Where the thigh is in a scan: body, legs, femur, and the invertible frames between them."""

from musclekit.anatomy.body import body_mask, mr_thresholds
from musclekit.anatomy.components import keep_largest
from musclekit.anatomy.femur import BONE_HU, FemurAxis, femur_axis, femur_mask, obliquity_cosine
from musclekit.anatomy.frames import AIR_FILL_HU, Frame, crop_frame, femur_frame, mirror_frame, resample_frame
from musclekit.anatomy.label_margins import grown_labels
from musclekit.anatomy.legs import Leg, infer_side, side_by_position, split_legs
from musclekit.anatomy.per_leg import label_sides, leg_frame, leg_image, per_leg
from musclekit.anatomy.registration import ThighOutlines, register_thighs, resample_planes, thigh_outlines

__all__ = [
    "AIR_FILL_HU",
    "BONE_HU",
    "FemurAxis",
    "Frame",
    "Leg",
    "ThighOutlines",
    "body_mask",
    "crop_frame",
    "femur_axis",
    "femur_frame",
    "femur_mask",
    "grown_labels",
    "infer_side",
    "keep_largest",
    "label_sides",
    "leg_frame",
    "leg_image",
    "mirror_frame",
    "mr_thresholds",
    "obliquity_cosine",
    "per_leg",
    "register_thighs",
    "resample_frame",
    "resample_planes",
    "side_by_position",
    "split_legs",
    "thigh_outlines",
]
