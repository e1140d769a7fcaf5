"""Bone taken out of what is labelled as something else."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask, femur_mask, split_legs
from musclekit.anatomy.femur import BONE_HU
from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Image, LabelMap
from musclekit.labels import Label
from musclekit.protocols import Segmenter

__all__ = ["BoneExclusion", "exclude_bone"]

#: Names under which the label sets hold bone.
BONES = frozenset({"bone", "cortical bone", "marrow", "femur", "pelvis", "sacrum", "ilium"})


def exclude_bone(labels: LabelMap, bone: NDArray[np.bool_]) -> LabelMap:
    """Remove from bone every label that is not itself one of a bone.

    Parameters
    ----------
    labels : LabelMap
        Labels.
    bone : ndarray of bool, shape (Z, Y, X)
        Where bone is.

    Returns
    -------
    LabelMap
        On the same grid; background where another label lay on bone.

    Raises
    ------
    GeometryError
        If the mask has another shape.
    """
    if bone.shape != labels.grid.shape:
        raise GeometryError(f"the bone mask has shape {bone.shape}, the labels {labels.grid.shape} (z, y, x)")
    others = [label.id for label in labels.label_set if label.name not in BONES]
    return labels.with_voxels(np.where(bone & np.isin(labels.voxels, others), 0, labels.voxels))


def _femurs(image: Image) -> NDArray[np.bool_]:
    """Femurs of the legs of a CT; a leg of which no voxel is as dense as bone has none."""
    bone = np.zeros(image.grid.shape, dtype=np.bool_)
    for leg in split_legs(image, body_mask(image)):
        if (image.voxels[leg.mask] > BONE_HU).any():
            bone |= femur_mask(image, leg.mask)
    return bone


def _ids_of_bone(labels: Iterable[Label]) -> list[int]:
    return [label.id for label in labels if label.name in BONES]


class BoneExclusion(BaseEstimator):
    """Remove from bone every label that is not itself one of a bone.

    Parameters
    ----------
    segmenter : Segmenter, optional
        Finds the bone, for instance ``tissue``; fitted beforehand where it learns. Where none is given the femurs are
        found by their Hounsfield units, which only CT has.

    See Also
    --------
    exclude_bone : The plain function.
    musclekit.anatomy.femur_mask : How the femur is found in CT.
    """

    def __init__(self, *, segmenter: Segmenter | None = None) -> None:
        self.segmenter = segmenter

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Those of the segmenter; CT alone where there is none."""
        return frozenset({Contrast.CT}) if self.segmenter is None else self.segmenter.contrasts

    def refine(self, labels: LabelMap, image: Image) -> LabelMap:
        """Return the labels without what lay on bone.

        Raises
        ------
        ModalityError
            If no segmenter is given and the image is no CT.
        ParameterError
            If the segmenter has no label of a bone.
        GeometryError
            If labels and image lie on different grids.
        """
        if not labels.grid.same_as(image.grid):
            raise GeometryError("labels and image lie on different grids: bone can only be sought on the labels' own")
        if self.segmenter is None:
            if image.contrast is not Contrast.CT:
                raise ModalityError(
                    f"bone-exclusion finds bone by Hounsfield units; this image is {image.contrast}: name a segmenter"
                    " that labels bone in it, such as segmenter = {name = 'tissue'}"
                )
            return exclude_bone(labels, _femurs(image))
        ids = _ids_of_bone(self.segmenter.label_set)
        if not ids:
            raise ParameterError(
                f"the segmenter of bone-exclusion labels no bone: its set '{self.segmenter.label_set.name}' holds"
                f" {', '.join(self.segmenter.label_set.names)}; use one that does, such as 'tissue'"
            )
        return exclude_bone(labels, np.isin(self.segmenter.segment(image).voxels, ids))
