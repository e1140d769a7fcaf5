"""What everything here asks of probabilities, variances and masks."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from musclekit.errors import GeometryError, ParameterError, VoxelError

__all__ = [
    "ClassReduction",
    "as_mask",
    "as_probabilities",
    "as_variances",
    "check_level",
    "check_reduction",
    "ends_of",
    "mean_of",
    "ratio",
    "with_classes",
]

ClassReduction = Literal["sum", "mean"]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A softmax in float32 may be off by so much; as in `ProbabilityMap`.
_ROUNDING = 1e-5


def ends_of(array: NDArray[Any], what: str) -> tuple[float, float]:
    """Least and greatest value; nan where one is nan."""
    if not array.size:
        raise GeometryError(f"{what} of shape {array.shape}: there is nothing in it")
    return float(array.min()), float(array.max())


def as_probabilities(values: ArrayLike, what: str) -> NDArray[Any]:
    """Return values as an array; VoxelError if one lies outside 0 to 1."""
    array = np.asarray(values)
    low, high = ends_of(array, what)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise VoxelError(f"{what} lie between 0 and 1, found {low:g} to {high:g}")
    return array


def with_classes(values: ArrayLike) -> NDArray[Any]:
    """Return probabilities whose first axis counts the classes; GeometryError if there is no axis."""
    array = as_probabilities(values, "probabilities")
    if not array.ndim:
        raise GeometryError("probabilities have one axis or more, the first of which counts the classes")
    return array


def as_variances(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return variances as an array; refuse another shape, and values that are no variance."""
    array = np.asarray(values)
    if array.shape != shape:
        raise GeometryError(f"the variance has shape {array.shape}, what it is compared with {shape}")
    low, high = ends_of(array, "a variance")
    if not (low >= 0 and high < math.inf):
        raise VoxelError(f"a variance is a finite number and not below 0, found {low:g} to {high:g}")
    return array


def as_mask(values: ArrayLike, shape: tuple[int, ...], what: str) -> Mask:
    """Return a mask as an array; refuse what is not boolean or has another shape."""
    array = np.asarray(values)
    if array.dtype != np.bool_:
        raise ParameterError(f"{what} is boolean, not {array.dtype}")
    if array.shape != shape:
        raise GeometryError(f"{what} has shape {array.shape}, the values {shape}")
    return array


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Part of a whole, element by element; nan where there is nothing to divide by."""
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def mean_of(values: NDArray[Any]) -> float:
    """Mean in double precision; nan of nothing."""
    return float(values.mean(dtype=np.float64)) if values.size else math.nan


def check_level(level: float) -> None:
    """Refuse the level of an interval that is no share."""
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, not at {level:g}")


def check_reduction(name: str) -> None:
    """Refuse a reduction over classes that does not exist."""
    if name not in get_args(ClassReduction):
        raise ParameterError(f"the class reduction is one of {', '.join(get_args(ClassReduction))}, not '{name}'")
