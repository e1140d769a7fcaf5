"""Largest connected component of each label."""

from __future__ import annotations

from sklearn.base import BaseEstimator

from musclekit.anatomy import keep_largest
from musclekit.image import Contrast, Image, LabelMap

__all__ = ["LargestComponent", "largest_component"]


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
    The clean-up of Hiasa et al. and of Haque et al., who do not state the connectivity. Labels without sides lose the
    smaller leg: give a sided map, or each leg alone.
    """
    return labels.with_voxels(keep_largest(labels.voxels, connectivity=connectivity))


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
