"""What a segmenter makes of unlabelled images: how sure it is, which are easy, and labels without what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.errors import GeometryError, InputError
from musclekit.neural.labelled import UNLABELLED
from musclekit.uncertainty import entropy

__all__ = ["EASY_SHARE", "MOST_REMOVED", "Cleaned", "Ranking", "cleaned_labels", "mean_entropy", "ranked"]

#: Share of images that are easy (Yang et al.), and the share of a label map that cleaning may take (ours).
EASY_SHARE, MOST_REMOVED = 2 / 3, 0.3


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images from the surest to the least sure.

    Parameters
    ----------
    ids : tuple of str
        In the order in which they were given.
    scores : ndarray of float64, shape (n,)
        Mean entropy of each, in bits.
    ranks : ndarray of int, shape (n,)
        1 for the least entropy; of two that are alike the first by its id.
    easy : ndarray of bool, shape (n,)
        The first so many of them.
    """

    ids: tuple[str, ...]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    easy: NDArray[np.bool_]


def mean_entropy(probabilities: NDArray[np.floating], region: NDArray[np.bool_] | None = None) -> float:
    """Mean entropy of an image, in bits (Yang et al., equation 8).

    Parameters
    ----------
    probabilities : ndarray, shape (classes, rows, columns)
        Of each pixel.
    region : ndarray of bool, shape (rows, columns), optional
        Where; the paper takes the whole image, in which a thin thigh, with more background, looks surer.

    Raises
    ------
    InputError
        If the region is empty.
    """
    bits = entropy(probabilities)
    if region is None:
        return float(bits.mean())
    if not region.any():
        raise InputError("there is nothing to take the mean entropy of: the region is empty")
    return float(bits[region].mean())


def ranked(ids: Sequence[str], scores: Sequence[float], *, easy_share: float = EASY_SHARE) -> Ranking:
    """Rank images by entropy and part them into easy and hard ones.

    Parameters
    ----------
    ids : sequence of str
        What they are called.
    scores : sequence of float
        Their mean entropies.
    easy_share : float
        Share of them that is easy, rounded down to whole images: 1362 of the paper's 2044.

    Raises
    ------
    InputError
        If an id stands there twice.
    ParameterError
        If the share does not lie between 0 and 1.
    """
    check_number("easy_share", easy_share, above=0, most=1)
    if len(set(ids)) < len(ids):
        twice = next(name for n, name in enumerate(ids) if name in ids[:n])
        raise InputError(f"image '{twice}' stands twice among those to rank")
    values = np.asarray(scores, dtype=np.float64)
    order = sorted(range(len(ids)), key=lambda n: (values[n], ids[n]))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    # A share such as two thirds is no number of the machine: 2/3 of 3 is 2.
    n_easy = int(np.floor(easy_share * len(order) + 1e-9))
    return Ranking(tuple(ids), values, ranks, ranks <= n_easy)


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A label map without what lies where no muscle can be.

    Parameters
    ----------
    classes : ndarray of uint8, shape (rows, columns)
        What is left.
    removed : ndarray of float64, shape (labels,)
        Share of each label that was taken; NaN of one that is not there, or is no muscle.
    share : float
        Of all muscle; NaN where there is none.
    """

    classes: NDArray[np.uint8]
    removed: NDArray[np.float64]
    share: float

    def is_doubtful(self, most: float = MOST_REMOVED) -> bool:
        """Whether so much was taken, or there was so little, that the image had better count as hard."""
        return not self.share <= most


def cleaned_labels(
    classes: NDArray[np.uint8], room: NDArray[np.bool_], labels: int, muscles: Sequence[int] | None = None
) -> Cleaned:
    """Take from a label map what lies outside the muscle compartment or in bone (Yang et al., section III.C).

    Parameters
    ----------
    classes : ndarray of uint8, shape (rows, columns)
        0 for background.
    room : ndarray of bool, shape (rows, columns)
        The compartment without bone; where nothing was found of it, nothing can be left.
    labels : int
        How many there are, background left out.
    muscles : sequence of int, optional
        Classes that are muscle, where others are labelled too: these stay wherever they are, and of a pixel whose
        muscle is taken nothing is known (255). Without it all labels are muscle, and what is taken becomes background.

    Raises
    ------
    GeometryError
        If the two differ in shape.
    """
    if classes.shape != room.shape:
        raise GeometryError(f"the labels have shape {classes.shape}, the room for muscle {room.shape}")
    muscle = classes > 0 if muscles is None else np.isin(classes, muscles)
    wrong = muscle & ~room
    kept = np.where(wrong, np.uint8(0 if muscles is None else UNLABELLED), classes)
    before, taken = (np.bincount(classes[part], minlength=labels + 1)[1 : labels + 1] for part in (muscle, wrong))
    removed = np.full(labels, np.nan)
    np.divide(taken, before, out=removed, where=before > 0)
    share = float(taken.sum() / before.sum()) if before.any() else float("nan")
    return Cleaned(kept.astype(np.uint8), removed, share)
