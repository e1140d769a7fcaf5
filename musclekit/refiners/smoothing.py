"""Smooth borders of labels that keep their volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.base import BaseEstimator

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.image import Contrast, Image, LabelMap

__all__ = ["Smooth", "smooth"]

#: Rounds in which every label chooses its voxels anew; after four or five hardly one changes hands.
ROUNDS = 6

#: Where a Gaussian ends, in standard deviations; a label never gains a voxel further from it than this.
REACH = 4.0


def smooth(labels: LabelMap, *, sigma_mm: float = 2.0, planar: bool = True) -> LabelMap:
    r"""Smooth the borders of labels, and keep the size of each.

    A Gaussian turns each label, and the background, into a share between 0 and 1; each voxel goes to the one with the
    highest :math:`g_l(x) + b_l`. The bonus :math:`b_l` of a label is set so that it holds as many voxels as before:
    without it a muscle shrinks where it is convex, and a thin one is gone.

    Parameters
    ----------
    labels : LabelMap
        Labels. All are smoothed at once: what one loses goes to its neighbour or to the background, and a voxel has
        one label at any time.
    sigma_mm : float
        Standard deviation of the Gaussian; 0 changes nothing.
    planar : bool
        Slice by slice, so that each label keeps its area in every slice; else in 3-D, and each keeps its volume.

    Returns
    -------
    LabelMap
        On the same grid. No label appears in a slice (planar), or in a volume, that did not hold it.

    Raises
    ------
    ParameterError
        If sigma is negative or no number, or ``planar`` is neither True nor False.

    Notes
    -----
    One step of the scheme of Merriman, Bence and Osher (motion by mean curvature) with the volumes held as in the
    auction dynamics of Jacobs, Merkurjev and Esedoglu; in place of an auction each label in turn takes the voxels that
    it has most claim to, a few times over. Sizes are kept exactly for one label, and to a few voxels where several
    meet.
    """
    check_number("sigma_mm", sigma_mm, least=0)
    if not isinstance(planar, bool):
        raise ParameterError(f"planar must be true or false, not {planar!r}")
    voxels: NDArray[Any] = labels.voxels.copy()
    sigma = np.divide(sigma_mm, labels.grid.spacing)
    if sigma_mm == 0 or not voxels.any():
        return labels
    if planar:
        for z in range(len(voxels)):
            _smooth_block(voxels[z : z + 1], np.array([0.0, sigma[1], sigma[2]]))
    else:
        _smooth_block(voxels, sigma)
    return labels.with_voxels(voxels)


def _smooth_block(voxels: NDArray[Any], sigma: NDArray[np.float64]) -> None:
    """Smooth a slice or a volume in place."""
    if not voxels.any():
        return
    margin = np.ceil(REACH * sigma).astype(int) + 1
    box = tuple(
        slice(max(0, int(where[0]) - edge), int(where[-1]) + 1 + edge)
        for where, edge in zip(
            (np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))), margin, strict=True
        )
    )
    inside = voxels[box]
    ids = np.unique(inside)
    masks = [inside == id_ for id_ in ids]
    shares = np.stack(
        [ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=REACH) for mask in masks]
    )
    # Only where more than one has a share can anything change.
    doubtful = (shares > 0).sum(axis=0) > 1
    before = np.stack([mask[doubtful] for mask in masks])
    inside[doubtful] = ids[_claimed(shares[:, doubtful], before)]


def _claimed(shares: NDArray[np.float32], before: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Deal out voxels to rows of shares, each as many as it had before; the number of the row for each voxel."""
    # A place without any share of a label is out of its reach, whatever the bonus.
    claims = np.where(shares > 0, shares.astype(np.float64), -np.inf)
    wanted = before.sum(axis=1)
    bonus = np.zeros(len(claims))
    for _ in range(ROUNDS):
        for row in range(len(claims)):
            if not 0 < wanted[row] < claims.shape[1]:
                continue
            rivals = claims + bonus[:, None]
            rivals[row] = -np.inf
            # By how much each place must be outbid; between the last one wanted and the next lies the bonus.
            short = np.sort(rivals.max(axis=0) - claims[row])
            bonus[row] = (short[wanted[row] - 1] + short[min(wanted[row], len(short) - 1)]) / 2
    winners: NDArray[np.intp] = np.argmax(claims + bonus[:, None], axis=0)
    return winners


class Smooth(BaseEstimator):
    """Smooth the borders of labels, and keep the size of each.

    Parameters
    ----------
    sigma_mm : float
        Standard deviation of the Gaussian; 0 changes nothing.
    planar : bool
        Slice by slice, so that each label keeps its area in every slice; else in 3-D, and each keeps its volume.

    See Also
    --------
    smooth : The plain function, with its notes.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast)

    def __init__(self, *, sigma_mm: float = 2.0, planar: bool = True) -> None:
        self.sigma_mm = sigma_mm
        self.planar = planar

    def refine(self, labels: LabelMap, image: Image) -> LabelMap:
        """Return the smoothed labels; the image is not looked at."""
        return smooth(labels, sigma_mm=self.sigma_mm, planar=self.planar)
