"""Planes with square pixels to work on, and the plain steps on them that CT tissues and level sets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import Leg

__all__ = [
    "WorkingPlanes",
    "body_box",
    "disk",
    "inner_distance",
    "numbered_legs",
    "padded",
    "skin_depth",
    "skin_seam",
    "smoothed",
]

Mask = NDArray[np.bool_]
Voxels = NDArray[np.float32]
Spacing = tuple[float, float, float]

#: Planes are worked on at their own resolution within the first two, else at the third.
FINEST_MM, COARSEST_MM, WORKING_MM = 0.5, 1.25, 1.0


@dataclass(frozen=True)
class WorkingPlanes:
    """Planes with square pixels of about a millimetre, and the way to them and back.

    Parameters
    ----------
    native, shape : tuple of int
        (rows, columns) of the planes as they came, and as they are worked on.
    spacing : tuple of float
        Millimetres along (z, y, x) as they are worked on.
    """

    native: tuple[int, int]
    shape: tuple[int, int]
    spacing: Spacing

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: Spacing, finest_mm: float = FINEST_MM) -> WorkingPlanes:
        """Choose the working grid: the native one where it will do.

        Parameters
        ----------
        shape : tuple of int
            (planes, rows, columns).
        spacing : tuple of float
            Millimetres along (z, y, x).
        finest_mm : float
            Smaller pixels are averaged.
        """
        dz, dy, dx = spacing
        rows, columns = shape[1], shape[2]
        if finest_mm <= dy <= COARSEST_MM and abs(dy - dx) < 0.02 * dy:
            return cls((rows, columns), (rows, columns), spacing)
        square = (max(1, round(rows * dy / WORKING_MM)), max(1, round(columns * dx / WORKING_MM)))
        return cls((rows, columns), square, (dz, WORKING_MM, WORKING_MM))

    def resampled(self, planes: Voxels) -> Voxels:
        """Native planes of grey values on the working grid."""
        return _resized(planes, self.shape)

    def resampled_mask(self, planes: Mask) -> Mask:
        """Native masks on the working grid."""
        return planes if self.native == self.shape else _resized(planes.astype(np.float32), self.shape) >= 0.5

    def restored(self, planes: Mask) -> Mask:
        """Masks of the working grid on the native one."""
        return planes if self.native == self.shape else _resized(planes.astype(np.float32), self.native) >= 0.5


def _resized(planes: Voxels, shape: tuple[int, int]) -> Voxels:
    if planes.shape[1:] == shape:
        return planes
    # Averaging where pixels grow, interpolation where they shrink.
    way = cv2.INTER_AREA if shape[0] * shape[1] < planes.shape[1] * planes.shape[2] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(plane, (shape[1], shape[0]), interpolation=way) for plane in planes])


def body_box(body: Mask) -> tuple[slice, slice, slice]:
    """All planes, and the rows and columns that hold some of a body, with a pixel around where there is one."""
    rows, columns = np.flatnonzero(body.any(axis=(0, 2))), np.flatnonzero(body.any(axis=(0, 1)))
    return (
        slice(None),
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )


def numbered_legs(legs: Sequence[Leg], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Legs as one array: 0 outside them, then 1, 2 in their order."""
    numbers: NDArray[np.uint8] = np.zeros(shape, dtype=np.uint8)
    for number, leg in enumerate(legs, start=1):
        numbers[leg.mask] = number
    return numbers


def skin_seam(legs: NDArray[np.integer[Any]]) -> Mask:
    """Pixels of one leg that touch another in their plane: skin against skin."""
    seam: Mask = np.zeros(legs.shape, dtype=bool)
    for axis in (1, 2):
        one = np.moveaxis(legs, axis, 0)
        touch = (one[1:] != one[:-1]) & (one[1:] != 0) & (one[:-1] != 0)
        line = np.moveaxis(seam, axis, 0)
        line[1:] |= touch
        line[:-1] |= touch
    return seam


def smoothed(planes: Voxels, size: int) -> Voxels:
    """Median of each plane over a square of 3 or 5 pixels."""
    return np.stack([cv2.medianBlur(plane, size) for plane in planes])


def padded(mask: Mask, width: int) -> Mask:
    """One plane with what it holds at its edge copied outwards: a leg that the picture cuts goes on."""
    return cv2.copyMakeBorder(mask.view(np.uint8), width, width, width, width, cv2.BORDER_REPLICATE) > 0


def disk(radius: float) -> NDArray[np.uint8]:
    """Pixels whose centre lies within `radius` pixels of the middle one."""
    n = int(radius)
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    pixels: NDArray[np.uint8] = (y * y + x * x <= radius * radius).astype(np.uint8)
    return pixels


def inner_distance(mask: Mask) -> Voxels:
    """Distance in pixels of what is set in one plane from what is not."""
    return cast(Voxels, cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def skin_depth(body: Mask) -> Voxels:
    """Distance in pixels from the skin, in one plane; the edge of the picture is none."""
    if body.all():
        return np.full(body.shape, np.inf, dtype=np.float32)
    return inner_distance(padded(body, 1))[1:-1, 1:-1]
