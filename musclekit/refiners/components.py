"""Largest connected component of each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.base import BaseEstimator

from musclekit.errors import ParameterError
from musclekit.image import Contrast, Image, LabelMap

__all__ = ["LargestComponent", "largest_component"]

#: Voxels that touch at a face (6), an edge (18) or a corner (26).
_NEIGHBOURHOODS = {6: 1, 18: 2, 26: 3}


def largest_component(labels: LabelMap, *, connectivity: int = 26) -> LabelMap:
    """Keep the largest connected component of each label; the rest becomes background.

    Parameters
    ----------
    labels : LabelMap
        Labels; each is taken alone, so that what one loses no other gains.
    connectivity : {6, 18, 26}
        Whether voxels of a component touch at faces, at edges too, or at corners too.

    Returns
    -------
    LabelMap
        On the same grid. Of components of one size, the first in the order of the array is kept.

    Raises
    ------
    ParameterError
        If the connectivity is another number.

    Notes
    -----
    The clean-up of Hiasa et al. and of Ghosh et al., who do not state the connectivity. Labels without sides lose the
    smaller leg: give a sided map, or each leg alone. Each label is searched in its own bounding box.
    """
    if connectivity not in _NEIGHBOURHOODS:
        raise ParameterError(f"connectivity must be 6, 18 or 26, not {connectivity}")
    structure = ndimage.generate_binary_structure(3, _NEIGHBOURHOODS[connectivity])
    voxels: NDArray[Any] = labels.voxels.copy()
    for id_, box in enumerate(ndimage.find_objects(labels.voxels), start=1):
        if not box:  # no voxel has this id
            continue
        mask = labels.voxels[box] == id_
        components, n_components = ndimage.label(mask, structure)
        if n_components > 1:
            sizes = np.bincount(components.reshape(-1))
            sizes[0] = 0
            voxels[box][mask & (components != sizes.argmax())] = 0
    return labels.with_voxels(voxels)


class LargestComponent(BaseEstimator):
    """Keep the largest connected component of each label.

    Parameters
    ----------
    connectivity : {6, 18, 26}
        Whether voxels of a component touch at faces, at edges too, or at corners too.

    See Also
    --------
    largest_component : The plain function, with its notes.
    """

    contrasts: frozenset[Contrast] = frozenset(Contrast)

    def __init__(self, *, connectivity: int = 26) -> None:
        self.connectivity = connectivity

    def refine(self, labels: LabelMap, image: Image) -> LabelMap:
        """Return the labels without their smaller components; the image is not looked at."""
        return largest_component(labels, connectivity=self.connectivity)
