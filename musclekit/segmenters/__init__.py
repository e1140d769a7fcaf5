"""Segmenters: methods that turn an image into labels."""

from musclekit.segmenters.levelset import LevelSetSegmenter, geodesic_contour
from musclekit.segmenters.mixture import Mixture, MixtureSegmenter, fit_mixture, posteriors
from musclekit.segmenters.threshold import ThresholdSegmenter, otsu_threshold
from musclekit.segmenters.tissue import TissueSegmenter

__all__ = [
    "LevelSetSegmenter",
    "Mixture",
    "MixtureSegmenter",
    "ThresholdSegmenter",
    "TissueSegmenter",
    "fit_mixture",
    "geodesic_contour",
    "otsu_threshold",
    "posteriors",
]
