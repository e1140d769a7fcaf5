"""From a file's own axis order to (z, y, x), and back: transposing and flipping, never resampling."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from musclekit.image import Grid

__all__ = ["Orientation", "geometry_warnings"]

#: Row of a RAS+ affine that the array axes (z, y, x) lie along: z for S, y for A, x for R.
_WORLD_ROWS = (2, 1, 0)

#: A slice axis is told from the others when it is this many times coarser than the next.
_THICK = 1.5


@dataclass(frozen=True)
class Orientation:
    """How the axes of a file become the axes (z, y, x) of an array.

    Parameters
    ----------
    axes : tuple of int
        File axis that becomes array axis 0, 1 and 2.
    flips : tuple of bool
        Whether array axis 0, 1 and 2 runs against its file axis.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: NDArray[np.float64]) -> Orientation:
        """Orientation that brings axes 0, 1 and 2 closest to S, A and R.

        Parameters
        ----------
        affine : ndarray of shape (4, 4)
            File index (i, j, k) to RAS+ world mm.

        Returns
        -------
        Orientation
            Of the six ways to give the axes to S, A and R, the one with the largest sum of absolute cosines; the
            first of them, in the order of `itertools.permutations` counted from the last axis, where two are equal.
        """
        length = np.linalg.norm(affine[:3, :3], axis=0)
        # A column of zeros has no direction; `Grid` refuses it.
        cosines = affine[:3, :3] / np.where(length > 0, length, 1)

        def closeness(axes: tuple[int, ...]) -> float:
            # Rounded, so that the choice between equals does not hang on the last bit.
            return round(float(sum(abs(cosines[row, axis]) for row, axis in zip(_WORLD_ROWS, axes, strict=True))), 9)

        axes = max(permutations((2, 1, 0)), key=closeness)
        flips = tuple(bool(cosines[row, axis] < 0) for row, axis in zip(_WORLD_ROWS, axes, strict=True))
        return cls(cast(tuple[int, int, int], axes), cast(tuple[bool, bool, bool], flips))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of an array with file axes (i, j, k) as (z, y, x)."""
        return self._flip(array.transpose(self.axes))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of an array with axes (z, y, x) as the file has it: the inverse of `apply`."""
        return self._flip(array).transpose(tuple(self.axes.index(axis) for axis in range(3)))

    def grid(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
        """Grid of ``apply(array)``.

        Parameters
        ----------
        shape : tuple of int
            Of the array as the file has it, three dimensions.
        affine : ndarray of shape (4, 4)
            File index to RAS+ world mm.

        Raises
        ------
        GeometryError
            If the affine is singular.
        """
        turned = np.eye(4)
        for axis, (source, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            turned[:3, axis] = -affine[:3, source] if flip else affine[:3, source]
        corner = [shape[axis] - 1 if self.flips[self.axes.index(axis)] else 0 for axis in range(3)]
        turned[:3, 3] = affine[:3, :3] @ corner + affine[:3, 3]
        return Grid(cast(tuple[int, int, int], tuple(shape[axis] for axis in self.axes)), turned)

    def _flip(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[tuple(slice(None, None, -1 if flip else None) for flip in self.flips)]


def geometry_warnings(grid: Grid) -> tuple[str, ...]:
    """Say what is unusual about a grid: slices that are not axial, a steep tilt, axes not at right angles.

    Parameters
    ----------
    grid : Grid
        With axes 0, 1 and 2 closest to S, A and R.

    Returns
    -------
    tuple of str
        One line each; empty for an ordinary axial scan.
    """
    found = []
    plane = _slice_plane(grid)
    if plane is not None:
        found.append(f"the slices are {plane}, not axial: areas are measured across the leg all the same")
    tilt = float(np.degrees(np.arccos(np.clip(grid.direction[2, 0], -1, 1))))
    if tilt > 45:
        found.append(f"the slice axis lies {tilt:.0f} degrees off head-foot: no axis runs along the body")
    cosines = np.abs(grid.direction.T @ grid.direction - np.eye(3)).max()
    if cosines > np.sin(np.radians(0.1)):
        skew = float(np.degrees(np.arcsin(min(float(cosines), 1.0))))
        found.append(f"the axes are not at right angles (off by {skew:.1f} degrees): the grid is sheared")
    return tuple(found)


def _slice_plane(grid: Grid) -> str | None:
    """Name the plane of slices that are not axial: by the one coarse axis, else by the one axis of a single voxel."""
    names = (None, "coronal", "sagittal")
    _, middle, thick = np.argsort(grid.spacing, kind="stable")
    if grid.spacing[thick] > _THICK * grid.spacing[middle]:
        return names[thick]
    single = [axis for axis in range(3) if grid.shape[axis] == 1]
    return names[single[0]] if len(single) == 1 else None
