from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.errors import ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set
from musclekit.refiners import Smooth, smooth

SPACING = (6.0, 1.0, 2.0)


def label_map(ids: NDArray[Any], spacing: tuple[float, float, float] = SPACING) -> LabelMap:
    return LabelMap(ids.astype(np.uint8), Grid.from_spacing(ids.shape, spacing), label_set("thigh-11"))


def discs(seed: int = 0, noise: float = 0.08) -> NDArray[np.uint8]:
    """Two labels side by side in a disc, with a ragged border."""
    y, x = np.mgrid[:60, :30] * np.array([1.0, 2.0])[:, None, None]
    ragged = np.random.default_rng(seed).normal(0, noise * 20, (3, 60, 30))
    inside = np.hypot(y - 30, x - 29) + ragged < 22
    return np.where(inside, np.where(x + ragged[::-1] < 29, 1, 5), 0).astype(np.uint8)


def border(ids: NDArray[Any]) -> int:
    """Number of faces within slices between different labels."""
    return int((np.diff(ids, axis=1) != 0).sum() + (np.diff(ids, axis=2) != 0).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1.0, 4.0))
def test_area_of_each_label_in_each_slice_stays(seed: int, sigma: float) -> None:
    ids = discs(seed)
    result = smooth(label_map(ids), sigma_mm=sigma).voxels
    for before, after in zip(ids, result, strict=True):
        for id_ in (1, 5):
            assert abs(int((before == id_).sum()) - int((after == id_).sum())) <= 0.02 * (before == id_).sum()
    assert border(result) < border(ids)


def test_volume_stays_in_3d_and_slices_may_trade() -> None:
    ids = discs(noise=0.1)
    ids[0] = 0
    flat = smooth(label_map(ids, (1.0, 1.0, 2.0)), sigma_mm=1.5).voxels
    deep = smooth(label_map(ids, (1.0, 1.0, 2.0)), sigma_mm=1.5, planar=False).voxels
    assert not flat[0].any()
    assert abs(int((deep > 0).sum()) - int((ids > 0).sum())) <= 0.01 * (ids > 0).sum()
    assert (deep != flat).any()


def test_one_label_alone_holds_exactly_its_area_where_no_claims_tie() -> None:
    y, x = np.mgrid[:40, :40]
    ids = (np.hypot(y - 18.37, 1.13 * (x - 20.41)) + 2 * np.sin(0.71 * x + 0.3 * y) < 12)[None]
    result = smooth(label_map(ids, (5.0, 1.0, 1.0)), sigma_mm=2.0).voxels
    assert (result == 1).sum() == ids.sum()
    assert border(result) < border(ids.astype(np.uint8))


def test_without_bonus_a_strip_would_vanish_and_here_it_stays() -> None:
    ids = np.zeros((1, 40, 40), np.uint8)
    ids[0, 18:20, 8:32] = 3
    majority = ndimage.gaussian_filter((ids == 3).astype(float), (0, 3, 3)) > 0.5
    assert not majority.any()
    assert (smooth(label_map(ids, (5.0, 1.0, 1.0)), sigma_mm=3.0).voxels == 3).sum() == 48


def test_a_label_never_gains_voxels_out_of_reach() -> None:
    ids = np.zeros((1, 30, 60), np.uint8)
    ids[0, 10:20, 2:12] = 1
    ids[0, 10:20, 48:58] = 2
    result = smooth(label_map(ids, (5.0, 1.0, 1.0)), sigma_mm=1.5).voxels
    assert not (result[..., :30] == 2).any()
    assert not (result[..., 30:] == 1).any()


def test_refining_is_pure_and_zero_changes_nothing() -> None:
    ids = discs()
    labels = label_map(ids)
    image = Image(np.zeros(ids.shape), labels.grid, Contrast.MR)
    refined = Smooth(sigma_mm=2).refine(labels, image)
    np.testing.assert_array_equal(labels.voxels, ids)
    assert refined.voxels.dtype == labels.voxels.dtype
    np.testing.assert_array_equal(Smooth(sigma_mm=0).refine(labels, image).voxels, ids)
    empty = label_map(np.zeros((2, 5, 5)))
    assert not smooth(empty).voxels.any()
    full = label_map(np.ones((2, 5, 5)))
    assert (smooth(full).voxels == 1).all()


def test_sigma_counts_in_millimetres() -> None:
    ids = np.zeros((1, 41, 41), np.uint8)
    ids[0, 12:30, 12:30] = 1
    coarse = smooth(label_map(ids, (5.0, 2.0, 2.0)), sigma_mm=4.0).voxels
    fine = smooth(label_map(ids, (5.0, 1.0, 1.0)), sigma_mm=2.0).voxels
    np.testing.assert_array_equal(coarse, fine)
    assert (coarse != ids).any()


def test_bad_parameters_are_refused() -> None:
    labels = label_map(discs())
    with pytest.raises(ParameterError, match="sigma_mm must be a number of at least 0, not -1"):
        smooth(labels, sigma_mm=-1)
    with pytest.raises(ParameterError, match="planar must be true or false, not 'no'"):
        smooth(labels, planar="no")  # type: ignore[arg-type]
