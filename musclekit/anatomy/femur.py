"""The femur and its long axis, from which obliquity and the femur frame follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy.planes import components
from musclekit.errors import SegmentationError
from musclekit.image import Grid

__all__ = ["FemurAxis", "femur_axis", "obliquity_cosine"]

#: The middle share of the bone's slices: the heads at both ends do not lie on the axis of the shaft.
MIDDLE_SHARE = 0.6

#: A shorter piece of shaft does not tell its direction (Haque et al.: 30 slices of 2 mm).
LEAST_LENGTH_MM = 60.0
LEAST_SLICES = 3

#: A thigh lies no more oblique than this in a scanner; a larger angle is a mistake.
LARGEST_ANGLE_DEG = 35.0


@dataclass(frozen=True, eq=False)
class FemurAxis:
    """Long axis of a femur.

    Parameters
    ----------
    point_mm : ndarray of shape (3,)
        World (x, y, z) of a point on it: the mean of the shaft's centres.
    direction : ndarray of shape (3,)
        Unit vector in world coordinates, towards the head.
    n_slices : int
        Slices it was found from.
    length_mm : float
        Length of shaft it was found from.
    angle_deg : float
        Angle to the world's foot-to-head axis.
    """

    point_mm: NDArray[np.float64]
    direction: NDArray[np.float64]
    n_slices: int
    length_mm: float
    angle_deg: float

    @property
    def reliable(self) -> bool:
        """Whether enough shaft was seen, and the angle is one that a thigh can have."""
        enough = self.n_slices >= LEAST_SLICES and self.length_mm >= LEAST_LENGTH_MM
        return enough and self.angle_deg <= LARGEST_ANGLE_DEG


def femur_axis(bone: NDArray[np.bool_], grid: Grid) -> FemurAxis:
    """Return the axis of the femur: the principal direction of the centres of its cross-sections.

    Parameters
    ----------
    bone : ndarray of bool, shape (Z, Y, X)
        Bone of one leg, marrow included.
    grid : Grid
        Where it lies.

    Returns
    -------
    FemurAxis
        Ask `FemurAxis.reliable` before using it.

    Raises
    ------
    SegmentationError
        If there is no bone.

    Notes
    -----
    Haque et al., section 2: the volume is aligned with the long axis of the femur; how the axis is found is ours. In
    each slice of the middle 60 % of the bone the centre of the largest piece counts. The paper's least 30 slices of
    2 mm are read as a length, so that thick slices can tell too.
    """
    slices = np.flatnonzero(bone.any(axis=(1, 2)))
    if slices.size == 0:
        raise SegmentationError("there is no bone to find an axis in")
    margin = round(slices.size * (1 - MIDDLE_SHARE) / 2)
    middle = slices[margin : slices.size - margin]
    centres = grid.world([_largest_centre(bone[z], int(z)) for z in middle])
    mean = centres.mean(axis=0)
    # A singular value decomposition of one point has no direction: the slice normal stands in, and is not reliable.
    direction = np.linalg.svd(centres - mean)[2][0] if len(centres) > 1 else grid.direction[:, 0]
    direction = direction * (np.sign(direction[2]) or 1.0)
    along = (centres - mean) @ direction
    return FemurAxis(
        mean,
        direction,
        int(middle.size),
        float(np.ptp(along)),
        float(np.degrees(np.arccos(np.clip(direction[2], -1, 1)))),
    )


def _largest_centre(plane: NDArray[np.bool_], z: int) -> tuple[float, float, float]:
    _, stats, centroids = components(plane)
    x, y = centroids[1 + int(np.argmax(stats[1:, -1]))]
    return float(z), float(y), float(x)


def obliquity_cosine(axis: FemurAxis, grid: Grid) -> float:
    """Return the cosine between the femur axis and the normal of the slices: plain area times it is area across it."""
    columns = grid.affine[:3, :3]
    normal = np.cross(columns[:, 1], columns[:, 2])
    return float(abs(axis.direction @ normal) / np.linalg.norm(normal))
