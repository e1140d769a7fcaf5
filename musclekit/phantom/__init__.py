"""A digital thigh with exact truth: shapes, infiltration, contrasts, cohorts."""

from musclekit.phantom.anatomy import Anatomy, PlacedLeg, Structure, Tissue, cross_sections, rasterise
from musclekit.phantom.cohort import PhantomModality, make_case, make_cohort
from musclekit.phantom.completion import Surroundings, coarsen, complete_labels, draw_surroundings
from musclekit.phantom.contrast import (
    APPEARANCE,
    IDEAL,
    Appearance,
    Scanner,
    acquire,
    default_scanner,
    proton_fat_fraction,
    receive_gain,
    signal,
)
from musclekit.phantom.infiltration import Texture, draw_fat_shares, infiltrate, smooth_noise
from musclekit.phantom.leg_planes import LegPlanes, leg_planes
from musclekit.phantom.random_shape import ShapeRange
from musclekit.phantom.random_slice import RandomSlice, SliceRange, draw_slice
from musclekit.phantom.shape import GRADES, MUSCLES, Grade, LegProfile, LegShape, draw_leg, vary_leg
from musclekit.phantom.thigh import GENERATOR_VERSION, Legs, Phantom, StructureTruth, make_thigh, render

__all__ = [
    "APPEARANCE",
    "GENERATOR_VERSION",
    "GRADES",
    "IDEAL",
    "MUSCLES",
    "Anatomy",
    "Appearance",
    "Grade",
    "LegPlanes",
    "LegProfile",
    "LegShape",
    "Legs",
    "Phantom",
    "PhantomModality",
    "PlacedLeg",
    "RandomSlice",
    "Scanner",
    "ShapeRange",
    "SliceRange",
    "Structure",
    "StructureTruth",
    "Surroundings",
    "Texture",
    "Tissue",
    "acquire",
    "coarsen",
    "complete_labels",
    "cross_sections",
    "default_scanner",
    "draw_fat_shares",
    "draw_leg",
    "draw_slice",
    "draw_surroundings",
    "infiltrate",
    "leg_planes",
    "make_case",
    "make_cohort",
    "make_thigh",
    "proton_fat_fraction",
    "rasterise",
    "receive_gain",
    "render",
    "signal",
    "smooth_noise",
    "vary_leg",
]
