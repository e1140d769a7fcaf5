"""Variance of a structure, and the interval of its volume or area."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from musclekit.errors import InputError
from musclekit.image import LabelMap
from musclekit.statistics import Interval
from musclekit.uncertainty.values import as_variances, check_level, ratio

__all__ = ["interval_text", "sample_interval", "structure_variance", "structure_variance_by_slice"]


def _sums_of_labels(labels: LabelMap, variance: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Voxels of each label in each slice and the sum of their variance, both of shape (labels, Z)."""
    values = as_variances(variance, labels.grid.shape).reshape(-1)
    planes, rows, columns = labels.grid.shape
    flat = labels.voxels.reshape(-1)
    index = np.flatnonzero(flat != 0)
    length = max(labels.label_set.ids) + 1
    cell = index // (rows * columns) * length + flat[index]
    counts = np.bincount(cell, minlength=planes * length).reshape(planes, length)
    sums = np.bincount(cell, values[index], minlength=planes * length).reshape(planes, length)
    ids = [label.id for label in labels.label_set]
    return counts[:, ids].T, sums[:, ids].T


def _keys(labels: LabelMap) -> dict[str, list[Any]]:
    return {
        "id": [label.id for label in labels.label_set],
        "structure": [label.name for label in labels.label_set],
        "abbreviation": [label.abbreviation for label in labels.label_set],
        "side": [label.side or "" for label in labels.label_set],
    }


def structure_variance(labels: LabelMap, variance: ArrayLike) -> pd.DataFrame:
    """Predictive structure-wise variance (PSV): the mean of U over the voxels of each label.

    Parameters
    ----------
    labels : LabelMap
        The most probable label of each voxel: those that the network predicts, not a reference.
    variance : array_like of shape (Z, Y, X)
        U, as `RunningSums.variance` makes it.

    Returns
    -------
    DataFrame
        One row a label of the set, in its order: ``id``, ``structure``, ``abbreviation``, ``side`` (empty where sides
        are not told apart), ``voxels``, ``psv``. A label without a voxel has a row too; its PSV is NaN.

    Raises
    ------
    GeometryError
        If the variance does not have the shape of the labels.
    VoxelError
        If a variance is not finite or is below 0.

    Notes
    -----
    Hiasa et al., equation (5), over all voxels of the structure in the volume.
    """
    counts, sums = (table.sum(axis=1) for table in _sums_of_labels(labels, variance))
    return pd.DataFrame(_keys(labels) | {"voxels": counts, "psv": ratio(sums, counts)})


def structure_variance_by_slice(labels: LabelMap, variance: ArrayLike) -> pd.DataFrame:
    """Mean of U over the voxels of each label in each slice; which slices to look at first.

    Parameters
    ----------
    labels, variance
        As in `structure_variance`, whose errors it shares.

    Returns
    -------
    DataFrame
        One row a label and slice: the columns of `structure_variance`, with ``slice`` (index along axis 0) after
        ``side``. A slice without the label has a row too; its PSV is NaN.
    """
    counts, sums = _sums_of_labels(labels, variance)
    n_labels, planes = counts.shape
    table = {name: np.repeat(np.array(key, dtype=object), planes) for name, key in _keys(labels).items()}
    table["id"] = table["id"].astype(np.int64)
    table["slice"] = np.tile(np.arange(planes), n_labels)
    return pd.DataFrame(table | {"voxels": counts.reshape(-1), "psv": ratio(sums, counts).reshape(-1)})


def sample_interval(samples: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval that holds the middle part of what the network says of one volume or area.

    It is the spread of the network's own samples and no confidence interval of the truth: it knows nothing of what the
    network always gets wrong, of an unlike scanner, or of how the structure would be drawn by another hand.

    Parameters
    ----------
    samples : array_like of float, shape (samples,)
        The volume, or the area in one slice, in each sample.
    level : float
        The part that it holds.

    Returns
    -------
    Interval
        Percentiles, by linear interpolation: of fewer than 40 samples, those of 0.95 lie between the outermost two.

    Raises
    ------
    InputError
        If there are fewer than two samples, or one is not a finite number.
    ParameterError
        If the level is not between 0 and 1.
    """
    check_level(level)
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise InputError(f"an interval takes a list of two samples or more, not an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {len(values)} samples are no finite number")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "percentiles of the network's samples")


def interval_text(value: float, interval: Interval, unit: str, *, decimals: int = 0) -> str:
    """Return a value with its interval in words.

    Examples
    --------
    >>> interval_text(812.3, sample_interval([790, 836]), "ml")
    '812 ml, 791 to 835'
    """
    amount = f"{value:.{decimals}f} {unit}".rstrip()
    return f"{amount}, {interval.low:.{decimals}f} to {interval.high:.{decimals}f}"
