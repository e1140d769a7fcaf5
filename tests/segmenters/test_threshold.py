from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from sklearn.base import clone

from musclekit.errors import ParameterError, SegmentationError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.protocols import Segmenter
from musclekit.segmenters.threshold import ThresholdSegmenter, otsu_threshold


def disks(air: float, fat: float, muscle: float, bone: float, contrast: Contrast) -> Image:
    y, x = np.mgrid[-50:50, -50:50]
    r = np.hypot(y, x)
    plane = np.select([r < 8, r < 33, r < 45], [bone, muscle, fat], air)
    return Image(np.stack([plane, plane]), Grid.from_spacing((2, 100, 100), (5, 1, 1)), contrast)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), apart=st.floats(2, 20))
def test_otsu_agrees_with_scikit_image(seed: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 900), rng.normal(apart, 1, 400)]).astype(np.float32)
    theirs = float(threshold_otsu(values, nbins=1024))  # type: ignore[no-untyped-call]

    def parted(cut: float) -> float:
        high = values > cut
        return float(high.mean() * (1 - high.mean()) * (values[high].mean() - values[~high].mean()) ** 2)

    # Where the curve is flat, other bins give another cut that is as good.
    assert parted(otsu_threshold(values)) >= 0.999 * parted(theirs)


def test_otsu_cuts_an_empty_gap_in_the_middle_and_keeps_to_the_mask() -> None:
    values = np.array([0, 0, 1, 10, 11, 11, 500], dtype=np.float32)
    assert otsu_threshold(values, values < 400) == pytest.approx(5.5, abs=0.05)


def test_otsu_of_nothing_or_of_one_value() -> None:
    with pytest.raises(VoxelError, match=r"one grey value \(3\)"):
        otsu_threshold(np.full(5, 3, dtype=np.float32))
    with pytest.raises(VoxelError, match="no voxels"):
        otsu_threshold(np.arange(5, dtype=np.float32), np.zeros(5, dtype=np.bool_))


def test_ct_is_the_window_with_its_ends_inside_the_body() -> None:
    image = disks(-1000, -100, 50, 900, Contrast.CT)
    voxels = image.voxels.copy()
    voxels[0, 40:44, 25] = [-29, 150, -30, 151]
    found = ThresholdSegmenter().segment(image.with_voxels(voxels)).mask("muscle")
    assert np.array_equal(found[1], image.voxels[1] == 50)
    assert found[0, 40:44, 25].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("contrast", "fat", "muscle", "bone"),
    [(Contrast.T1W, 900, 250, 300), (Contrast.MR, 900, 250, 300), (Contrast.WATER, 100, 600, 80)],
)
def test_mr_is_the_side_of_otsu_that_muscle_lies_on(contrast: Contrast, fat: float, muscle: float, bone: float) -> None:
    image = disks(0, fat, muscle, bone, contrast)
    found = ThresholdSegmenter().segment(image).mask("muscle")
    is_muscle = image.voxels == muscle
    assert found[is_muscle].all()
    assert not found[image.voxels == fat].any()
    assert not found[image.voxels == 0].any()


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ParameterError, match="hu_low must lie below hu_high, not 150 and -29 HU"):
        ThresholdSegmenter(hu_low=150, hu_high=-29).fit([])
    with pytest.raises(VoxelError, match="constant"):
        ThresholdSegmenter().segment(disks(5, 5, 5, 5, Contrast.T1W))


def test_an_image_without_a_body_is_refused() -> None:
    voxels = np.zeros((2, 40, 40), np.float32)
    voxels[:, 10:13, 10:13] = 500.0
    speck = Image(voxels, Grid.from_spacing(voxels.shape, (5, 1, 1)), Contrast.T1W)
    with pytest.raises(SegmentationError, match="no body found"):
        ThresholdSegmenter().segment(speck)


def test_it_is_a_segmenter_that_can_be_cloned() -> None:
    method = ThresholdSegmenter(hu_low=0.0)
    assert isinstance(method, Segmenter)
    assert clone(method).get_params() == {"hu_low": 0.0, "hu_high": 150.0}
    assert method.fit([]) is method
