"""Agreement of two masks: overlap, volume, and the distance between their surfaces.

Masks are boolean arrays of shape (Z, Y, X), or (Y, X). P is the prediction, R the reference, |.| a number of voxels.
The conventions for empty masks, the same everywhere:

=============================  ==================================  ==========  =======  =======  =========
measure                        definition                          both empty  P empty  R empty  identical
=============================  ==================================  ==========  =======  =======  =========
Dice                           2 |P and R| / (|P| + |R|)           nan         0        0        1
Jaccard                        |P and R| / |P or R|                nan         0        0        1
sensitivity                    |P and R| / |R|                     nan         0        nan      1
positive predictive value      |P and R| / |P|                     nan         nan      0        1
specificity                    |neither| / |not R|, in a region    1           1        < 1      1 (a)
accuracy                       (|both| + |neither|) / |region|     1           < 1      < 1      1 (b)
volume error in ml             |P| - |R|                           0           < 0      > 0      0
volume error in per cent       of |R|                              nan         -100     inf      0
surface distances (ASD, HD     Euclidean, between the centres      nan         inf      inf      0
95 pooled, HD95 max, HD)       of surface voxels
surface Dice                   by surface voxels                   nan         0        0        1
PPV-erosion curve              a point each erosion                no points   none     x inf    y = 1
=============================  ==================================  ==========  =======  =======  =========

(a) nan where the reference fills the region: there is no voxel to leave alone.

(b) nan where the region is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from musclekit.errors import GeometryError, ParameterError

__all__ = [
    "ErosionCurve",
    "ReferenceSurface",
    "SurfaceDistances",
    "VolumeError",
    "accuracy",
    "accuracy_of_counts",
    "average_surface_distance",
    "dice",
    "dice_of_counts",
    "hausdorff",
    "hausdorff95",
    "hausdorff95_max",
    "jaccard",
    "jaccard_of_counts",
    "positive_predictive_value",
    "positive_predictive_value_of_counts",
    "ppv_erosion_curve",
    "sensitivity",
    "sensitivity_of_counts",
    "specificity",
    "specificity_of_counts",
    "surface",
    "surface_dice",
    "surface_distances",
    "volume_error",
    "volume_error_of_counts",
]

Mask = NDArray[np.bool_]


def _check_mask(mask: NDArray[Any]) -> None:
    # The nonzero voxels of a label map are every label at once: never what is meant.
    if mask.dtype != np.bool_:
        raise ParameterError(f"a mask is boolean, not {mask.dtype}; compare first, as in `labels.voxels == 3`")


def _masks(a: ArrayLike, b: ArrayLike) -> tuple[Mask, Mask]:
    first, second = np.asarray(a), np.asarray(b)
    for mask in (first, second):
        _check_mask(mask)
    if first.shape != second.shape:
        raise GeometryError(f"masks of shape {first.shape} and {second.shape} cannot be compared")
    return first, second


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Part of a whole, element by element; nan where there is nothing to divide by."""
    above, below = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    out = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def dice_of_counts(common: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Dice coefficient from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    first, second : array_like of int
        Voxels in each.

    Returns
    -------
    ndarray of float64
        2 common / (first + second); nan where both are empty.
    """
    return _ratio(2 * np.asarray(common, dtype=np.float64), np.add(first, second, dtype=np.float64))


def jaccard_of_counts(common: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Jaccard index from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    first, second : array_like of int
        Voxels in each.

    Returns
    -------
    ndarray of float64
        common / (first + second - common); nan where both are empty.
    """
    return _ratio(common, np.add(first, second, dtype=np.float64) - np.asarray(common, dtype=np.float64))


def sensitivity_of_counts(common: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Sensitivity from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    reference : array_like of int
        Voxels in the reference.

    Returns
    -------
    ndarray of float64
        common / reference; nan where the reference is empty.
    """
    return _ratio(common, reference)


def positive_predictive_value_of_counts(common: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Positive predictive value from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    prediction : array_like of int
        Voxels in the prediction.

    Returns
    -------
    ndarray of float64
        common / prediction; nan where the prediction is empty.
    """
    return _ratio(common, prediction)


def specificity_of_counts(
    common: ArrayLike, prediction: ArrayLike, reference: ArrayLike, considered: ArrayLike
) -> NDArray[np.float64]:
    """Specificity from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    prediction, reference : array_like of int
        Voxels in each.
    considered : array_like of int
        Voxels looked at, muscle or not: those of the slice, of the volume, of the body. The larger the region, the
        nearer specificity comes to 1: say which one it was.

    Returns
    -------
    ndarray of float64
        Voxels in neither mask / voxels outside the reference; nan where the reference fills the region.
    """
    outside = np.subtract(considered, reference, dtype=np.float64)
    wrong = np.subtract(prediction, common, dtype=np.float64)
    return _ratio(outside - wrong, outside)


def accuracy_of_counts(
    common: ArrayLike, prediction: ArrayLike, reference: ArrayLike, considered: ArrayLike
) -> NDArray[np.float64]:
    """Accuracy from numbers of voxels, element by element.

    Parameters
    ----------
    common : array_like of int
        Voxels in both masks.
    prediction, reference : array_like of int
        Voxels in each.
    considered : array_like of int
        Voxels looked at, as of `specificity_of_counts`: the larger the region, the nearer accuracy comes to 1.

    Returns
    -------
    ndarray of float64
        Voxels in both masks or in neither / voxels looked at; nan where there are none.
    """
    wrong = np.add(prediction, reference, dtype=np.float64) - 2 * np.asarray(common, dtype=np.float64)
    return _ratio(np.subtract(considered, wrong, dtype=np.float64), considered)


def dice(a: ArrayLike, b: ArrayLike) -> float:
    """Dice similarity coefficient, 2 |A and B| / (|A| + |B|).

    Parameters
    ----------
    a, b : array_like of bool
        Masks of one shape; their order does not matter.

    Returns
    -------
    float
        0 to 1; nan when both are empty, 0 when one is.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    return float(dice_of_counts(*_counts(a, b)))


def _counts(a: ArrayLike, b: ArrayLike) -> tuple[int, int, int]:
    """Voxels in both masks and in each."""
    first, second = _masks(a, b)
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """Jaccard index (intersection over union), |A and B| / |A or B|.

    Parameters
    ----------
    a, b : array_like of bool
        Masks of one shape; their order does not matter.

    Returns
    -------
    float
        0 to 1, D / (2 - D) of the Dice coefficient D; nan when both are empty, 0 when one is.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    return float(jaccard_of_counts(*_counts(a, b)))


def sensitivity(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Sensitivity (recall): the part of the reference that the prediction found.

    Parameters
    ----------
    prediction, reference : array_like of bool
        Masks of one shape.

    Returns
    -------
    float
        0 to 1; nan when the reference is empty.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    common, _, wanted = _counts(prediction, reference)
    return float(sensitivity_of_counts(common, wanted))


def positive_predictive_value(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Positive predictive value (precision): the part of the prediction that lies in the reference.

    Parameters
    ----------
    prediction, reference : array_like of bool
        Masks of one shape.

    Returns
    -------
    float
        0 to 1; nan when the prediction is empty.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    common, found, _ = _counts(prediction, reference)
    return float(positive_predictive_value_of_counts(common, found))


def specificity(prediction: ArrayLike, reference: ArrayLike, region: ArrayLike) -> float:
    """Specificity: the part of what is not in the reference that the prediction left alone, within a region.

    Parameters
    ----------
    prediction, reference, region : array_like of bool
        Masks of one shape. Voxels outside the region do not count, whatever they hold: the body is the region that
        can be compared between scans; in a whole array, air makes any specificity good.

    Returns
    -------
    float
        0 to 1; nan when the reference fills the region.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    return float(specificity_of_counts(*_counts_within(prediction, reference, region)))


def _counts_within(prediction: ArrayLike, reference: ArrayLike, region: ArrayLike) -> tuple[int, int, int, int]:
    """Voxels of a region in both masks, in each, and in all."""
    considered, found = _masks(region, prediction)
    _, wanted = _masks(region, reference)
    return *_counts(found & considered, wanted & considered), int(np.count_nonzero(considered))


def accuracy(prediction: ArrayLike, reference: ArrayLike, region: ArrayLike) -> float:
    """Accuracy: the part of a region that both masks hold, or both leave alone.

    Parameters
    ----------
    prediction, reference, region : array_like of bool
        Masks of one shape. Voxels outside the region do not count, whatever they hold: take the body, as for
        `specificity`. A small structure is nearly all background even there: accuracy is high whatever is found of it.

    Returns
    -------
    float
        0 to 1; nan when the region is empty.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    return float(accuracy_of_counts(*_counts_within(prediction, reference, region)))


@dataclass(frozen=True)
class VolumeError:
    """Volume of a prediction minus that of its reference.

    Parameters
    ----------
    ml : float
        In millilitres; positive when the prediction is too large.
    percent : float
        In per cent of the reference; nan when both are empty, inf when the reference alone is.
    """

    ml: float
    percent: float


def volume_error(prediction: ArrayLike, reference: ArrayLike, voxel_volume_mm3: float) -> VolumeError:
    """Volume of the prediction minus that of the reference.

    Parameters
    ----------
    prediction, reference : array_like of bool
        Masks of one shape.
    voxel_volume_mm3 : float
        Volume of one voxel (`Grid.voxel_volume_mm3`).

    Returns
    -------
    VolumeError
        In ml and in per cent of the reference, with its sign.

    Raises
    ------
    GeometryError
        If the shapes differ.
    ParameterError
        If a mask is not boolean.
    """
    found, wanted = (int(np.count_nonzero(mask)) for mask in _masks(prediction, reference))
    return volume_error_of_counts(found, wanted, voxel_volume_mm3)


def volume_error_of_counts(prediction: int, reference: int, voxel_volume_mm3: float) -> VolumeError:
    """Volume error from the numbers of voxels of prediction and reference; see `volume_error`."""
    beyond = np.inf if prediction else np.nan
    percent = 100.0 * (prediction - reference) / reference if reference else beyond
    return VolumeError((prediction - reference) * voxel_volume_mm3 / 1000.0, percent)


def surface(mask: Mask) -> Mask:
    """Voxels of a mask that have a neighbour outside it: the mask without its erosion.

    Neighbours share a face: 6 in a volume, 4 in a single plane (an axis of one voxel has no neighbours). Beyond the
    border of the array there is background, so that voxels at the border belong to the surface.
    """
    return _surface(mask, [axis for axis, length in enumerate(mask.shape) if length > 1])


def _surface(mask: Mask, axes: Sequence[int]) -> Mask:
    if not axes:
        return mask.copy()
    inside = mask.copy()
    for axis in axes:
        # The views run along the axis: each voxel asks the one before it and the one behind it.
        target, source = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        target[1:] &= source[:-1]
        target[:-1] &= source[1:]
        target[:1] = target[-1:] = False
    found: Mask = mask & ~inside
    return found


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance of each surface voxel of one mask to the nearest surface voxel of the other.

    Parameters
    ----------
    a_to_b, b_to_a : ndarray of float64, one dimension
        In the unit of the spacing, millimetres; inf where the other mask is empty. Both have no element when both
        masks are empty.
    """

    a_to_b: NDArray[np.float64]
    b_to_a: NDArray[np.float64]

    @property
    def pooled(self) -> NDArray[np.float64]:
        """The distances of both directions, one after the other."""
        return np.concatenate([self.a_to_b, self.b_to_a])


class ReferenceSurface:
    """Surface of a reference, made ready once to be measured against many predictions.

    Parameters
    ----------
    mask : array_like of bool, shape (Z, Y, X) or (Y, X)
        The reference; may be empty.
    spacing : sequence of float
        Millimetres between voxels along each axis (`Grid.spacing`); the axes are taken to be at right angles.

    Raises
    ------
    GeometryError
        If the spacing does not have one positive number an axis.
    ParameterError
        If the mask is not boolean.

    Notes
    -----
    What is kept are the surface voxels in their bounding box and a tree of their positions, never an array of the
    size of the scan. In the search of a grid the same reference is met by hundreds of predictions.
    """

    def __init__(self, mask: ArrayLike, spacing: Sequence[float]) -> None:
        reference = np.asarray(mask)
        _check_mask(reference)
        if len(spacing) != reference.ndim or not all(s > 0 for s in spacing):
            raise GeometryError(
                f"spacing needs {reference.ndim} positive numbers, one an axis, not {tuple(float(s) for s in spacing)}"
            )
        self._shape = reference.shape
        self._edge = _Edge.of(reference, spacing)

    def distances(self, prediction: ArrayLike) -> SurfaceDistances:
        """Measure a prediction, exactly as `surface_distances` does.

        Parameters
        ----------
        prediction : array_like of bool
            Mask of the shape of the reference.

        Returns
        -------
        SurfaceDistances
            ``a_to_b`` leads from the prediction to the reference, ``b_to_a`` back.

        Raises
        ------
        GeometryError
            If the shapes differ.
        ParameterError
            If the mask is not boolean.
        """
        found = np.asarray(prediction)
        _check_mask(found)
        if found.shape != self._shape:
            raise GeometryError(f"masks of shape {found.shape} and {self._shape} cannot be compared")
        edge = _Edge.of(found, self._edge.spacing)
        return SurfaceDistances(edge.distances_to(self._edge), self._edge.distances_to(edge))


@dataclass(frozen=True, eq=False)
class _Edge:
    """Surface voxels of a mask, in the box around it."""

    voxels: Mask
    box: tuple[slice, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, mask: Mask, spacing: Sequence[float]) -> _Edge:
        box = _bounding_box(mask)
        # Which axes have neighbours is a matter of the volume, not of the box.
        axes = [axis for axis, length in enumerate(mask.shape) if length > 1]
        return cls(_surface(mask[box], axes), box, tuple(float(s) for s in spacing))

    @cached_property
    def tree(self) -> KDTree:
        # Points on a grid are spread evenly: a tree that is not balanced is built faster and searched as fast.
        return KDTree(self._positions(self.voxels), balanced_tree=False, compact_nodes=False)

    def _positions(self, voxels: Mask) -> NDArray[np.float64]:
        """Places of voxels of the box, in mm."""
        start = [part.start for part in self.box]
        found: NDArray[np.float64] = (np.argwhere(voxels) + start) * np.asarray(self.spacing)
        return found

    def distances_to(self, other: _Edge) -> NDArray[np.float64]:
        """Distance of each of these voxels to the nearest of the others."""
        apart = self.voxels.copy()
        both = [
            slice(max(a.start, b.start), max(a.start, b.start, min(a.stop, b.stop)))
            for a, b in zip(self.box, other.box, strict=True)
        ]
        mine, theirs = (
            tuple(slice(part.start - axis.start, part.stop - axis.start) for part, axis in zip(both, box, strict=True))
            for box in (self.box, other.box)
        )
        if all(part.stop > part.start for part in both):
            apart[mine] &= ~other.voxels[theirs]
        of_edge = apart[self.voxels]
        distances = np.zeros(of_edge.size)
        if not other.voxels.size:
            distances[:] = np.inf
        elif of_edge.any():
            distances[of_edge] = other.tree.query(self._positions(apart))[0]
        return distances


def surface_distances(a: ArrayLike, b: ArrayLike, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks, measured once for every measure made of them.

    Parameters
    ----------
    a, b : array_like of bool, shape (Z, Y, X) or (Y, X)
        Masks of one shape.
    spacing : sequence of float
        Millimetres between voxels along each axis (`Grid.spacing`); the axes are taken to be at right angles.

    Returns
    -------
    SurfaceDistances
        What `average_surface_distance`, `hausdorff95`, `hausdorff95_max`, `hausdorff` and `surface_dice` are made of.

    Raises
    ------
    GeometryError
        If the shapes differ, or the spacing does not have one positive number an axis.
    ParameterError
        If a mask is not boolean.

    See Also
    --------
    ReferenceSurface : the same for many predictions of one reference.

    Notes
    -----
    Exact Euclidean distances between voxel centres. Voxels of both surfaces have distance 0; for the others the
    nearest point is looked up in a tree of the other surface, which for two similar masks takes a fifth of the time
    of a distance transform of the box around them.
    """
    first, second = _masks(a, b)
    return ReferenceSurface(second, spacing).distances(first)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box around a mask; an empty one around none."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        # What the axes before have ruled out is not looked through again.
        part = mask[tuple(box)]
        occupied = np.flatnonzero(part.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not occupied.size:
            return (slice(0, 0),) * mask.ndim
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def average_surface_distance(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance (ASD): the mean over the surface voxels of both masks.

    Parameters
    ----------
    distances : SurfaceDistances
        From `surface_distances`.

    Returns
    -------
    float
        In millimetres; nan when both masks are empty, inf when one is.

    Notes
    -----
    Every surface voxel counts alike, as in Hiasa et al. and in MONAI (``symmetric=True``); DeepMind's
    surface-distance weights by area, which gives smaller values.
    """
    pooled = distances.pooled
    return float(pooled.mean()) if pooled.size else float("nan")


def hausdorff95(distances: SurfaceDistances) -> float:
    """95th percentile of the distances of both directions pooled.

    Parameters
    ----------
    distances : SurfaceDistances
        From `surface_distances`.

    Returns
    -------
    float
        In millimetres; nan when both masks are empty, inf when one is.

    Notes
    -----
    As in MedPy. `hausdorff95_max` is MONAI's, the larger of the two directed percentiles.
    """
    return _percentile95(distances.pooled)


def _percentile95(distances: NDArray[np.float64]) -> float:
    if not distances.size:
        return float("nan")
    # Interpolating between infinities would make nan of what is infinitely far.
    return float(np.percentile(distances, 95)) if np.isfinite(distances[0]) else float("inf")


def hausdorff95_max(distances: SurfaceDistances) -> float:
    """Larger of the 95th percentiles of the distances of the two directions.

    Parameters
    ----------
    distances : SurfaceDistances
        From `surface_distances`.

    Returns
    -------
    float
        In millimetres; nan when both masks are empty, inf when one is.

    Notes
    -----
    As in MONAI. `hausdorff95` pools the directions.
    """
    if not distances.a_to_b.size or not distances.b_to_a.size:
        return hausdorff(distances)
    return max(_percentile95(distances.a_to_b), _percentile95(distances.b_to_a))


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Surface Dice: the part of both surfaces that lies within a tolerance of the other (normalised surface distance).

    Parameters
    ----------
    distances : SurfaceDistances
        From `surface_distances`.
    tolerance_mm : float
        How far apart still counts as agreement; 0 asks for the same voxels.

    Returns
    -------
    float
        0 to 1; nan when both masks are empty, 0 when one is.

    Raises
    ------
    ParameterError
        If the tolerance is negative or not finite.

    Notes
    -----
    Nikolov et al. (2021) weight each part of the surface by its area. Here every surface voxel counts alike, as in
    MONAI's ``compute_surface_dice`` without subvoxels. A distance equal to the tolerance is within it, to a relative
    1e-9: 3 spacings of 0.1 are 0.3.
    """
    if not 0 <= tolerance_mm < np.inf:
        raise ParameterError(f"tolerance_mm must be a finite number, 0 or more, not {tolerance_mm}")
    pooled = distances.pooled
    return float(np.mean(pooled <= tolerance_mm * (1 + 1e-9))) if pooled.size else float("nan")


def hausdorff(distances: SurfaceDistances) -> float:
    """Largest of the distances (Hausdorff distance).

    Parameters
    ----------
    distances : SurfaceDistances
        From `surface_distances`.

    Returns
    -------
    float
        In millimetres; nan when both masks are empty, inf when one is.
    """
    pooled = distances.pooled
    return float(pooled.max()) if pooled.size else float("nan")


@dataclass(frozen=True, eq=False)
class ErosionCurve:
    """Positive predictive value of a prediction that is eroded step by step.

    Parameters
    ----------
    area_ratio : ndarray of float64, shape (n,)
        Voxels left of the prediction / voxels of the reference, falling; inf where the reference is empty.
    positive_predictive_value : ndarray of float64, shape (n,)
        The part of what is left that lies in the reference. The first element of both is before any erosion.
    """

    area_ratio: NDArray[np.float64]
    positive_predictive_value: NDArray[np.float64]


def ppv_erosion_curve(prediction: ArrayLike, reference: ArrayLike) -> ErosionCurve:
    """Erode a prediction until nothing is left of it, and see at each step how much of it is right.

    Where errors lie at the outline, the value rises quickly to 1; where whole regions are wrong, it stays low.

    Parameters
    ----------
    prediction, reference : array_like of bool, shape (Z, Y, X) or (Y, X)
        Masks of one shape.

    Returns
    -------
    ErosionCurve
        A point before erosion and one after each step that leaves something; no point when the prediction is empty.

    Raises
    ------
    GeometryError
        If the shapes differ, or are not of 2 or 3 dimensions.
    ParameterError
        If a mask is not boolean.

    Notes
    -----
    Yang et al., section IV-D: a full 3 x 3 element, in each slice by itself. Beyond the border of the array there is
    background, so that a prediction at the border is eroded from there too.
    """
    left, wanted = _masks(prediction, reference)
    if left.ndim not in (2, 3):
        raise GeometryError(f"a curve is taken of masks of 2 or 3 dimensions, not of shape {left.shape}")
    # Erosion only shrinks: nothing happens outside the box.
    box = _bounding_box(left)
    n_wanted = np.count_nonzero(wanted)
    left, wanted = left[box], wanted[box]
    counts = []
    while left.any():
        counts.append((np.count_nonzero(left), np.count_nonzero(left & wanted)))
        left = _eroded(left)
    sizes, common = np.array(counts, dtype=np.float64).reshape(-1, 2).T
    ratio = sizes / n_wanted if n_wanted else np.full(sizes.shape, np.inf)
    return ErosionCurve(ratio, common / sizes)


def _eroded(mask: Mask) -> Mask:
    """Erode by the full 3 x 3 element in the last two axes: a row of three, then a column of three."""
    for axis in (-1, -2):
        inside = np.zeros_like(mask)
        given, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:-1] = given[:-2] & given[1:-1] & given[2:]
        mask = inside
    return mask
