from __future__ import annotations

import numpy as np

from musclekit.image import Contrast
from musclekit.phantom import make_case
from musclekit.registry import build
from musclekit.testing import example_image
from musclekit.workflows.numbers import sided_measures


def test_both_legs_are_measured_apart_and_a_side_given_for_them_is_said_to_be_unused() -> None:
    case = make_case(3, contrasts=(Contrast.CT,), shape=(8, 128, 128), reference="tissue")
    assert case.reference is not None
    measures = sided_measures(case.reference, case.image, side="left")
    assert set(measures.structures["side"]) == {"left", "right"}
    assert any("the side given (left) was not used: the scan shows two legs" in text for text in measures.warnings)


def test_a_ct_without_dense_bone_is_measured_and_not_corrected() -> None:
    image = example_image(Contrast.CT)
    clipped = image.with_voxels(np.minimum(image.voxels, 250))
    measures = sided_measures(build("threshold").segment(clipped), clipped, side="right")
    assert measures.structures["volume_ml"].iloc[0] > 0
    assert any("not corrected for obliquity" in text for text in measures.warnings)


def test_a_single_leg_of_unknown_side_says_how_to_name_it() -> None:
    image = example_image(Contrast.CT)
    measures = sided_measures(build("threshold").segment(image), image)
    assert any("give it with --side" in text for text in measures.warnings)
