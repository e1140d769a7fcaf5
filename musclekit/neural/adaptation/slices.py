"""Images to adapt with: labelled ones of the source, unlabelled ones of the target, and batches of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.errors import GeometryError, InputError
from musclekit.neural.slices import AIR, SHIFT_PX, unpaired

__all__ = ["SourceSlices", "TargetSlices", "UnpairedDraw", "moved"]


@dataclass(frozen=True, eq=False)
class SourceSlices:
    """Labelled images.

    Parameters
    ----------
    images : ndarray of float16, shape (n, rows, columns)
        -1 to 1, single legs made to look like right ones.
    classes : ndarray of uint8, shape (n, rows, columns)
        0 for background, n for the n-th label, 255 where nothing is known.
    subjects : tuple of str
        The person in each.
    """

    images: NDArray[np.float16]
    classes: NDArray[np.uint8]
    subjects: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TargetSlices:
    """Images without labels.

    Parameters
    ----------
    images : ndarray of float16, shape (n, rows, columns)
        -1 to 1, single legs made to look like right ones.
    ids, subjects : tuple of str
        What each is called, and the person in it.
    """

    images: NDArray[np.float16]
    ids: tuple[str, ...]
    subjects: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class UnpairedDraw:
    """Batches of source images, their classes, and target images that have nothing to do with them.

    Parameters
    ----------
    source : SourceSlices
        Labelled.
    target : TargetSlices
        Not.
    batch : int
        Of each in a step.

    Raises
    ------
    InputError
        If there is no image of either.
    GeometryError
        If they differ in size.
    """

    source: SourceSlices
    target: TargetSlices
    batch: int

    def __post_init__(self) -> None:
        check_number("batch", self.batch, least=1, whole=True)
        for name, images in (("source", self.source.images), ("target", self.target.images)):
            if not len(images):
                raise InputError(f"there is no image of the {name}")
        if self.source.images.shape[1:] != self.target.images.shape[1:]:
            raise GeometryError(
                f"images of the source are {self.source.images.shape[1:]} in size, those of the target "
                f"{self.target.images.shape[1:]}"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch: one pass over the larger set."""
        return -(-max(len(self.source.images), len(self.target.images)) // self.batch)

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
        """Draw an epoch; images and their classes are moved alike."""
        here_all, there_all = (np.arange(len(part.images)) for part in (self.source, self.target))
        for here, there in unpaired(here_all, there_all, self.batch, rng):
            images, classes = moved(self.source.images[here], self.source.classes[here], rng)
            others, _ = moved(self.target.images[there], None, rng)
            yield images, classes, others


def moved(
    images: NDArray[np.float16], classes: NDArray[np.uint8] | None, rng: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Shift images by up to 8 pixels, and their classes with them.

    Parameters
    ----------
    images : ndarray, shape (n, rows, columns)
        Single legs. They are not mirrored: all have been made to look like right ones.
    classes : ndarray of uint8, shape (n, rows, columns), optional
        Of the images.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    (ndarray, ndarray)
        Images, where what comes into view is air; classes, where it is background (none were given: all background).
    """
    rows, columns = images.shape[1:]
    known = np.zeros(images.shape, dtype=np.uint8) if classes is None else classes
    shifts = rng.integers(0, 2 * SHIFT_PX + 1, size=(len(images), 2)).tolist()
    seen, meant = np.empty_like(images), np.empty_like(known)
    for n, (y, x) in enumerate(shifts):
        part = (slice(y, y + rows), slice(x, x + columns))
        seen[n] = np.pad(images[n], SHIFT_PX, constant_values=AIR)[part]
        meant[n] = np.pad(known[n], SHIFT_PX)[part]
    return seen, meant
