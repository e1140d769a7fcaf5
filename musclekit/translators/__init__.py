"""Translators: methods that turn an image into another on the same grid."""

from musclekit.translators.bias import N4, bias_field
from musclekit.translators.histogram import HistogramMatch, body_quantiles
from musclekit.translators.identity import Identity

__all__ = ["N4", "HistogramMatch", "Identity", "bias_field", "body_quantiles"]
