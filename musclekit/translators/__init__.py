"""Translators: methods that turn an image into another on the same grid."""

from musclekit.translators.bias import N4, bias_field
from musclekit.translators.domains import Difference, DomainDifference, compare_domains
from musclekit.translators.histogram import HistogramMatch, body_quantiles
from musclekit.translators.identity import Identity
from musclekit.translators.safety import Check, Safety, safety

__all__ = [
    "N4",
    "Check",
    "Difference",
    "DomainDifference",
    "HistogramMatch",
    "Identity",
    "Safety",
    "bias_field",
    "body_quantiles",
    "compare_domains",
    "safety",
]
