"""What a file says of its own grid, kept so that labels can go back onto exactly that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import InputError
from musclekit.image import Contrast, Grid
from musclekit.io.orientation import Orientation

__all__ = ["Source", "Stored", "naming"]


@dataclass(frozen=True, eq=False)
class Source:
    """The grid of a file, in the file's own terms.

    Parameters
    ----------
    shape : tuple of int
        As the file declares it, two dimensions or more; those past the third are one.
    affine : ndarray of shape (4, 4)
        File index (i, j, k) to RAS+ world mm.
    nifti_header : bytes, optional
        The header, where the file is NIfTI: its geometry is given back byte for byte.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    nifti_header: bytes | None = None

    @classmethod
    def of(cls, grid: Grid) -> Source:
        """Source of a file that holds a grid as it is, x fastest."""
        affine = grid.affine[:, [2, 1, 0, 3]]
        return cls((grid.shape[2], grid.shape[1], grid.shape[0]), affine)

    @property
    def shape3(self) -> tuple[int, int, int]:
        """The shape as three dimensions."""
        i, j, k = (*self.shape, 1)[:3]
        return i, j, k

    @cached_property
    def orientation(self) -> Orientation:
        """How the file's axes become (z, y, x)."""
        return Orientation.of(self.affine)

    @cached_property
    def grid(self) -> Grid:
        """Grid of the array (z, y, x)."""
        return self.orientation.grid(self.shape3, self.affine)

    def to_array(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Bring what the file stores into (z, y, x)."""
        return self.orientation.apply(stored.reshape(self.shape3, order="F"))

    def to_stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring an array (z, y, x) into the file's own order and shape: the inverse of `to_array`."""
        return self.orientation.undo(array).reshape(self.shape, order="F")


@dataclass(frozen=True, eq=False)
class Stored:
    """What a reader of one format hands over.

    Parameters
    ----------
    voxels : ndarray
        In the file's own order and shape, rescaled as the file says.
    source : Source
        Where they lie.
    warnings : tuple of str
        What the reader noticed.
    contrast : Contrast, optional
        What the file says of it (DICOM does).
    """

    voxels: NDArray[Any]
    source: Source
    warnings: tuple[str, ...] = ()
    contrast: Contrast | None = None


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Put the name of a file in front of the message of an `InputError`."""
    try:
        yield
    except InputError as problem:
        raise type(problem)(f"{what}: {problem}") from None
