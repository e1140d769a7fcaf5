"""Largest connected component of each label of an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.errors import ParameterError

__all__ = ["keep_largest"]

#: Voxels that touch at a face (6), an edge (18) or a corner (26).
_NEIGHBOURHOODS = {6: 1, 18: 2, 26: 3}


def keep_largest(voxels: NDArray[Any], *, connectivity: int = 26) -> NDArray[Any]:
    """Keep the largest connected component of each label; the rest becomes 0.

    Parameters
    ----------
    voxels : ndarray of int, shape (Z, Y, X)
        Labels, 0 for none; each is taken alone, so that what one loses no other gains.
    connectivity : {6, 18, 26}
        Whether voxels of a component touch at faces, at edges too, or at corners too.

    Returns
    -------
    ndarray
        A copy. Of components of one size, the first in the order of the array is kept.

    Raises
    ------
    ParameterError
        If the connectivity is another number.
    """
    if connectivity not in tuple(_NEIGHBOURHOODS):
        raise ParameterError(f"connectivity must be 6, 18 or 26, not {connectivity!r}")
    rank = _NEIGHBOURHOODS[connectivity]
    kept = voxels.copy()
    if not kept.any():
        return kept
    inside = kept[_box(kept)]
    boxes = ndimage.find_objects(inside)
    # Compact labels are fastest each in its own box, labels strewn all over the image at once; the answer is the same.
    if sum(math.prod(edge.stop - edge.start for edge in box) for box in boxes if box) < 2 * inside.size:
        _keep_largest_each(inside, boxes, rank)
    else:
        _keep_largest_at_once(inside, rank)
    return kept


def _keep_largest_each(inside: NDArray[Any], boxes: Sequence[tuple[slice, ...] | None], rank: int) -> None:
    """Remove, in place, all but the largest component of each label, label by label in its box."""
    structure = ndimage.generate_binary_structure(3, rank)
    for id_, box in enumerate(boxes, start=1):
        if box is None:  # no voxel has this id
            continue
        mask = inside[box] == id_
        components, n_components = ndimage.label(mask, structure)
        if n_components > 1:
            sizes = np.bincount(components.reshape(-1))
            sizes[0] = 0
            inside[box][mask & (components != sizes.argmax())] = 0


def _keep_largest_at_once(inside: NDArray[Any], rank: int) -> None:
    """Remove, in place, all but the largest component of each label, in one pass over all labels."""
    from skimage.measure import label as label_components

    components: NDArray[np.intp] = label_components(  # type: ignore[no-untyped-call]
        inside, background=0, connectivity=rank
    )
    sizes = np.bincount(components.reshape(-1))
    owners = np.zeros(sizes.size, dtype=np.intp)
    owners[components.reshape(-1)] = inside.reshape(-1)
    # By owner, then size, then last come first: the last of each owner is the first among its largest.
    order = np.lexsort((-np.arange(sizes.size), sizes, owners))
    kept = np.zeros(sizes.size, dtype=np.bool_)
    kept[order[np.flatnonzero(np.diff(owners[order], append=-1))]] = True
    inside[~kept[components]] = 0


def _box(voxels: NDArray[Any]) -> tuple[slice, ...]:
    """Smallest box around what is not 0, of which there is some."""
    occupied = [np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in occupied)
