from __future__ import annotations

import numpy as np
import pytest

from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, LabelMap
from musclekit.labels import label_set
from musclekit.phantom import make_case
from musclekit.refiners import BoneExclusion, exclude_bone
from musclekit.registry import build
from musclekit.testing import example_image

CT = make_case(3, contrasts=(Contrast.CT,), shape=(4, 128, 128), reference="thigh-full-sided")
MR = make_case(3, shape=(4, 160, 160), legs="right", reference="thigh-full")


def everywhere(image_shape: tuple[int, int, int], grid: Grid) -> LabelMap:
    return LabelMap(np.ones(image_shape, np.uint8), grid, label_set("muscle"))


def test_labels_leave_bone_and_bones_stay() -> None:
    labels = LabelMap(
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3), Grid.from_spacing((1, 2, 3), (1, 1, 1)), label_set("tissue")
    )
    refined = exclude_bone(labels, np.ones((1, 2, 3), np.bool_))
    # 2 and 3 are cortical bone and marrow.
    np.testing.assert_array_equal(refined.voxels.reshape(-1), [0, 0, 2, 3, 0, 0])
    np.testing.assert_array_equal(exclude_bone(labels, np.zeros((1, 2, 3), np.bool_)).voxels, labels.voxels)


def test_femurs_of_both_legs_are_taken_out_of_ct() -> None:
    image = CT.images[Contrast.CT]
    assert CT.reference is not None
    refined = BoneExclusion().refine(everywhere(image.grid.shape, image.grid), image)
    femur = CT.reference.mask("femur")
    removed = refined.voxels == 0
    assert removed[femur].mean() > 0.95
    assert (removed & ~femur).sum() < 0.15 * femur.sum()


def test_a_nested_segmenter_finds_bone_in_mr() -> None:
    image = MR.image
    assert MR.reference is not None
    refiner = build("bone-exclusion", segmenter={"name": "tissue"})
    refined = refiner.refine(everywhere(image.grid.shape, image.grid), image)
    femur = MR.reference.mask("femur")
    assert (refined.voxels == 0)[femur].mean() > 0.8
    assert (refined.voxels > 0)[~femur].mean() > 0.99


def test_a_leg_without_bone_keeps_its_labels() -> None:
    image = example_image(Contrast.CT)
    soft = image.with_voxels(np.minimum(image.voxels, 200))
    labels = everywhere(image.grid.shape, image.grid)
    np.testing.assert_array_equal(BoneExclusion().refine(labels, soft).voxels, labels.voxels)


def test_what_cannot_be_is_refused() -> None:
    image = example_image(Contrast.T1W)
    labels = everywhere(image.grid.shape, image.grid)
    with pytest.raises(ModalityError, match=r"this image is t1w: name a segmenter that labels bone"):
        BoneExclusion().refine(labels, image)
    with pytest.raises(ParameterError, match="labels no bone: its set 'muscle' holds muscle"):
        BoneExclusion(segmenter=build("gmm")).refine(labels, image)
    with pytest.raises(GeometryError, match="different grids"):
        BoneExclusion().refine(labels, example_image(Contrast.CT, shape=(2, 96, 96)))
    with pytest.raises(GeometryError, match=r"the bone mask has shape \(1, 2, 3\)"):
        exclude_bone(labels, np.ones((1, 2, 3), np.bool_))
