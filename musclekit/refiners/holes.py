"""Holes in labels, filled slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.base import BaseEstimator

from musclekit.checks import check_number
from musclekit.image import Contrast, Image, LabelMap

__all__ = ["FillHoles", "fill_holes"]


def fill_holes(labels: LabelMap, *, max_area_mm2: float | None = None) -> LabelMap:
    """Fill the holes of each label, slice by slice, never across other labels.

    A hole is background that one label encloses in its slice: from it no way leads to the border of the slice or to
    another label except through that label. Background that several labels enclose between them stays, and so does
    what lies inside a ring of one label beside another label.

    Parameters
    ----------
    labels : LabelMap
        Labels.
    max_area_mm2 : float, optional
        Larger holes stay; all are filled if left out.

    Returns
    -------
    LabelMap
        On the same grid; only background has changed.

    Raises
    ------
    ParameterError
        If the largest area is negative or no number.
    """
    if max_area_mm2 is not None:
        check_number("max_area_mm2", max_area_mm2, least=0)
    pixel = float(np.linalg.norm(np.cross(labels.grid.affine[:3, 1], labels.grid.affine[:3, 2])))
    voxels: NDArray[Any] = labels.voxels.copy()
    for plane in voxels:
        for box in ndimage.find_objects((plane > 0).astype(np.uint8)):
            _fill_plane(plane[box], np.inf if max_area_mm2 is None else max_area_mm2 / pixel)
    return labels.with_voxels(voxels)


def _fill_plane(plane: NDArray[Any], max_pixels: float) -> None:
    """Fill the holes of one slice, cropped to its labels, in place."""
    regions, n_regions = ndimage.label(plane == 0)
    if n_regions == 0:
        return
    # Beyond the labels all is open; a value that no label has says so.
    opening = int(plane.max()) + 1
    values, around = np.pad(plane.astype(np.int64), 1, constant_values=opening), np.pad(regions, 1)
    pairs = np.concatenate(
        [
            (here * (opening + 1) + there)[(here > 0) & (there > 0)]
            for ours, theirs in ((around, values), (around.T, values.T))
            for here, there in ((ours[1:], theirs[:-1]), (ours[:-1], theirs[1:]))
        ]
    )
    region, value = np.divmod(np.unique(pairs), opening + 1)
    alone = (np.bincount(region, minlength=n_regions + 1) == 1) & (np.bincount(regions.reshape(-1)) <= max_pixels)
    # Where there are labels every region touches one: what touches one value only is not open.
    fill = alone[region]
    filling = np.zeros(n_regions + 1, dtype=plane.dtype)
    filling[region[fill]] = value[fill]
    plane += filling[regions]


class FillHoles(BaseEstimator):
    """Fill the holes of each label, slice by slice, never across other labels.

    Parameters
    ----------
    max_area_mm2 : float, optional
        Larger holes stay; all are filled if left out.

    See Also
    --------
    fill_holes : The plain function, and what counts as a hole.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast)

    def __init__(self, *, max_area_mm2: float | None = None) -> None:
        self.max_area_mm2 = max_area_mm2

    def refine(self, labels: LabelMap, image: Image) -> LabelMap:
        """Return the labels with their holes filled; the image is not looked at."""
        return fill_holes(labels, max_area_mm2=self.max_area_mm2)
