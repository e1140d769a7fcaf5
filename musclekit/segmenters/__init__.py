"""Segmenters: methods that turn an image into labels."""

from musclekit.segmenters.appearance import AppearanceSegmenter
from musclekit.segmenters.atlas import atlas_case
from musclekit.segmenters.graphcut import GraphCutSegmenter
from musclekit.segmenters.levelset import LevelSetSegmenter, geodesic_contour
from musclekit.segmenters.mincut import BinaryProblem, Neighbourhood, cut_energy, min_cut, neighbourhood
from musclekit.segmenters.mixture import Mixture, MixtureSegmenter, fit_mixture, posteriors
from musclekit.segmenters.multiatlas import MultiAtlasSegmenter
from musclekit.segmenters.shapeprior import ShapePrior, ShapePriorSegmenter, prior_costs, prior_map
from musclekit.segmenters.threshold import ThresholdSegmenter, otsu_threshold
from musclekit.segmenters.tissue import TissueSegmenter

__all__ = [
    "AppearanceSegmenter",
    "BinaryProblem",
    "GraphCutSegmenter",
    "LevelSetSegmenter",
    "Mixture",
    "MixtureSegmenter",
    "MultiAtlasSegmenter",
    "Neighbourhood",
    "ShapePrior",
    "ShapePriorSegmenter",
    "ThresholdSegmenter",
    "TissueSegmenter",
    "atlas_case",
    "cut_energy",
    "fit_mixture",
    "geodesic_contour",
    "min_cut",
    "neighbourhood",
    "otsu_threshold",
    "posteriors",
    "prior_costs",
    "prior_map",
]
