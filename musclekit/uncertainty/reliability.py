"""Whether probabilities mean what they say, and whether the variance lies where the errors are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from musclekit.checks import check_number
from musclekit.errors import GeometryError, LabelError
from musclekit.image import LabelMap
from musclekit.uncertainty.values import as_mask, as_probabilities, as_variances, mean_of, ratio

__all__ = [
    "ErrorAgreement",
    "InsideOutside",
    "calibration_curve",
    "error_agreement",
    "expected_calibration_error",
    "uncertainty_inside_outside",
]


def calibration_curve(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, region: ArrayLike | None = None
) -> pd.DataFrame:
    """How often a network is right that says it is so sure.

    Parameters
    ----------
    confidence : array_like of float
        Probability of the most probable class at each voxel, background included: ``mean.voxels.max(axis=0)`` of a
        `Prediction`.
    correct : array_like of bool, of the same shape
        Whether that class is the right one.
    bins : int
        Bins of equal width over 0 to 1.
    region : array_like of bool, of the same shape, optional
        Voxels that count; all where not given. Give the body: a network is sure and right in air, and enough of it
        makes any network look calibrated.

    Returns
    -------
    DataFrame
        One row a bin: ``low``, ``high`` ([low, high), the last one closed), ``n``, and the means ``confidence`` and
        ``accuracy``, NaN in an empty bin. Accuracy below confidence: the network is too sure of itself.

    Raises
    ------
    GeometryError
        If the shapes differ or there is no voxel at all.
    VoxelError
        If a confidence is not a probability.
    ParameterError
        If ``correct`` or the region is not boolean, or the number of bins is below 1.
    """
    check_number("bins", bins, least=1, whole=True)
    sure = as_probabilities(confidence, "confidences")
    right = as_mask(correct, sure.shape, "what is correct")
    if region is None:
        sure, right = sure.reshape(-1), right.reshape(-1)
    else:
        inside = as_mask(region, sure.shape, "the region")
        sure, right = sure[inside], right[inside]
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": counts,
            "confidence": ratio(np.bincount(index, sure, minlength=bins), counts),
            "accuracy": ratio(np.bincount(index, right, minlength=bins), counts),
        }
    )


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 10, region: ArrayLike | None = None
) -> float:
    """Sum up a calibration curve in one number, the expected calibration error (ECE).

    Parameters
    ----------
    confidence, correct, bins, region
        As in `calibration_curve`, whose errors it shares.

    Returns
    -------
    float
        Mean of |accuracy - confidence| over bins, weighted by their voxels; 0 to 1, nan where the region is empty.

    Notes
    -----
    Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017. It depends on the bins, and says nothing of the
    classes that are not the most probable.
    """
    curve = calibration_curve(confidence, correct, bins=bins, region=region)
    filled = curve[curve["n"] > 0]
    if filled.empty:
        return math.nan
    return float(np.average((filled["accuracy"] - filled["confidence"]).abs(), weights=filled["n"]))


@dataclass(frozen=True)
class ErrorAgreement:
    """How well U finds the voxels that are wrong.

    Parameters
    ----------
    auc : float
        Area under the ROC curve: how often a wrong voxel has the larger U of a wrong and a right one drawn at random,
        a tie counting half. 0.5 is chance; nan where no voxel is wrong, or none is right.
    mean_wrong, mean_right : float
        Mean of U over either; nan where there is none.
    n_wrong, n_right : int
        Voxels.
    """

    auc: float
    mean_wrong: float
    mean_right: float
    n_wrong: int
    n_right: int


def error_agreement(
    variance: ArrayLike, prediction: LabelMap, reference: LabelMap, region: ArrayLike
) -> ErrorAgreement:
    """Compare U with the errors of a segmentation.

    Parameters
    ----------
    variance : array_like of shape (Z, Y, X)
        U of each voxel; any other measure of doubt that is not negative (as `entropy`) does too.
    prediction, reference : LabelMap
        Of one label set, on one grid. A voxel is wrong where they differ.
    region : array_like of bool, shape (Z, Y, X)
        Voxels that count: the body. The more air there is in it, the better the area under the curve.

    Returns
    -------
    ErrorAgreement
        Ranks are taken over all voxels of the region.

    Raises
    ------
    GeometryError
        If the grids or the shapes differ.
    LabelError
        If the label sets differ.
    VoxelError
        If a variance is not finite or is below 0.
    ParameterError
        If the region is not boolean.
    """
    if not prediction.grid.same_as(reference.grid):
        difference = prediction.grid.difference(reference.grid)
        raise GeometryError(f"prediction and reference lie on two grids: {difference}")
    if prediction.label_set != reference.label_set:
        raise LabelError(f"the prediction is '{prediction.label_set.name}', the reference '{reference.label_set.name}'")
    inside = as_mask(region, prediction.grid.shape, "the region")
    values = as_variances(variance, prediction.grid.shape)[inside]
    wrong = (prediction.voxels != reference.voxels)[inside]
    n_wrong = int(np.count_nonzero(wrong))
    n_right = wrong.size - n_wrong
    auc = math.nan
    if n_wrong and n_right:
        # Mann and Whitney's U of the wrong ones, of all pairs.
        above = float(stats.rankdata(values)[wrong].sum()) - n_wrong * (n_wrong + 1) / 2
        auc = above / (n_wrong * n_right)
    return ErrorAgreement(auc, mean_of(values[wrong]), mean_of(values[~wrong]), n_wrong, n_right)


@dataclass(frozen=True)
class InsideOutside:
    """Mean of U inside and outside a mask, within a region.

    Parameters
    ----------
    inside, outside : float
        Mean of U; nan where there is no voxel.
    n_inside, n_outside : int
        Voxels.
    """

    inside: float
    outside: float
    n_inside: int
    n_outside: int


def uncertainty_inside_outside(variance: ArrayLike, inside: ArrayLike, region: ArrayLike) -> InsideOutside:
    """Compare U inside a mask, as a tumour, with U outside it.

    Parameters
    ----------
    variance : array_like of float
        U of each voxel.
    inside : array_like of bool, of the same shape
        The mask.
    region : array_like of bool, of the same shape
        Voxels that count: the body, or what is predicted to be muscle. Voxels of the mask outside it do not.

    Returns
    -------
    InsideOutside
        Means and voxels of either part.

    Raises
    ------
    GeometryError
        If the shapes differ.
    VoxelError
        If a variance is not finite or is below 0.
    ParameterError
        If a mask is not boolean.
    """
    values = as_variances(variance, np.shape(variance))
    considered, within = as_mask(region, values.shape, "the region"), as_mask(inside, values.shape, "the mask")
    first, second = values[considered & within], values[considered & ~within]
    return InsideOutside(mean_of(first), mean_of(second), first.size, second.size)
