from __future__ import annotations

import math
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
from musclekit.refiners import FillHoles, fill_holes


def label_map(ids: NDArray[np.uint8]) -> LabelMap:
    return LabelMap(ids, Grid.from_spacing(ids.shape, (3, 2, 2)), label_set("thigh-11"))


def picture(*rows: str) -> NDArray[np.uint8]:
    return np.array([[[int(c) if c != "." else 0 for c in row] for row in rows]], np.uint8)


def filled(*rows: str, max_area_mm2: float | None = None) -> list[str]:
    ids = fill_holes(label_map(picture(*rows)), max_area_mm2=max_area_mm2).voxels[0]
    return ["".join(str(i) if i else "." for i in row) for row in ids]


def test_a_hole_is_filled_by_the_label_around_it() -> None:
    assert filled("11111", "1...1", "11111") == ["11111"] * 3


def test_a_bay_of_the_border_is_no_hole() -> None:
    assert filled("11111", "1...1", "1...1") == ["11111", "1...1", "1...1"]
    assert filled(".....", ".111.", ".1.1.", ".1.1.") == [".....", ".111.", ".1.1.", ".1.1."]


def test_what_two_labels_enclose_belongs_to_neither() -> None:
    assert filled("11222", "1...2", "11222") == ["11222", "1...2", "11222"]


def test_a_label_inside_a_ring_is_left_alone() -> None:
    # The gap around label 2 touches two labels; the hole of label 2 itself only one.
    rows = ("1111111", "1.....1", "1.222.1", "1.2.2.1", "1.222.1", "1.....1", "1111111")
    assert filled(*rows) == ["1111111", "1.....1", "1.222.1", "1.222.1", "1.222.1", "1.....1", "1111111"]
    assert filled("1111", "1121", "1111") == ["1111", "1121", "1111"]


def test_large_holes_stay_when_asked() -> None:
    rows = ("111111", "1..1.1", "111111")
    assert filled(*rows, max_area_mm2=4.0) == ["111111", "1..111", "111111"]
    assert filled(*rows, max_area_mm2=8.0) == ["111111"] * 3


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))
def test_holes_are_those_of_scipy_without_other_labels(seed: int, background: float) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(4, (2, 9, 8), p=[background, 0.9 - background, 0.05, 0.05]).astype(np.uint8)
    expected = ids.copy()
    for plane, out in zip(ids, expected, strict=True):
        for id_ in (1, 2, 3):
            mask = plane == id_
            holes, n = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
            for hole in range(1, n + 1):
                if not plane[holes == hole].any():
                    out[holes == hole] = id_
    np.testing.assert_array_equal(fill_holes(label_map(ids)).voxels, expected)


def test_refining_is_pure_and_settles() -> None:
    ids = (np.random.default_rng(1).random((3, 12, 12)) > 0.2).astype(np.uint8)
    labels = label_map(ids)
    image = Image(np.zeros(ids.shape), labels.grid, Contrast.MR)
    once = FillHoles().refine(labels, image)
    assert (once.voxels != ids).any()
    np.testing.assert_array_equal(labels.voxels, ids)
    np.testing.assert_array_equal(FillHoles().refine(once, image).voxels, once.voxels)


@pytest.mark.parametrize("area", [-1, math.nan, "large"])
def test_an_area_that_is_none_is_refused(area: Any) -> None:
    with pytest.raises(ParameterError, match=f"max_area_mm2 must be a number of at least 0, not {area!r}"):
        fill_holes(label_map(picture("1")), max_area_mm2=area)
