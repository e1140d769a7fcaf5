from __future__ import annotations

import re
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
from musclekit.refiners import LargestComponent, largest_component


def label_map(ids: NDArray[np.uint8]) -> LabelMap:
    return LabelMap(ids, Grid.from_spacing(ids.shape, (3, 1, 1)), label_set("thigh-11"))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 18, 26]), st.booleans())
def test_the_largest_component_is_that_of_the_whole_grid(seed: int, connectivity: int, compact: bool) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(5, (3, 8, 9), p=[0.4, 0.2, 0.2, 0.1, 0.1]).astype(np.uint8)
    if compact:  # each label in its own quarter, where it is searched alone
        rows, columns = np.ogrid[:8, :9]
        ids = np.where(ids > 0, 1 + 2 * (rows > 3) + (columns > 4), 0).astype(np.uint8)
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    expected = np.zeros_like(ids)
    for id_ in range(1, 5):
        components, n = ndimage.label(ids == id_, structure)
        if n:
            sizes = ndimage.sum_labels(ids == id_, components, range(1, n + 1))
            expected[components == 1 + np.argmax(sizes)] = id_
    np.testing.assert_array_equal(largest_component(label_map(ids), connectivity=connectivity).voxels, expected)


def test_corners_join_or_not() -> None:
    ids = np.zeros((2, 3, 3), np.uint8)
    ids[0, 0, 0] = ids[0, 0, 1] = ids[1, 1, 2] = 3
    assert (largest_component(label_map(ids)).voxels > 0).sum() == 3
    assert (largest_component(label_map(ids), connectivity=18).voxels > 0).sum() == 2


def test_refining_is_pure_and_settles() -> None:
    ids = np.random.default_rng(0).integers(0, 4, (3, 6, 7)).astype(np.uint8)
    labels = label_map(ids)
    image = Image(np.zeros(ids.shape), labels.grid, Contrast.CT)
    once = LargestComponent().refine(labels, image)
    np.testing.assert_array_equal(labels.voxels, ids)
    np.testing.assert_array_equal(LargestComponent().refine(once, image).voxels, once.voxels)
    assert once.grid is labels.grid
    assert once.label_set == labels.label_set


def test_an_empty_label_map_stays_empty() -> None:
    assert not largest_component(label_map(np.zeros((2, 3, 4), np.uint8))).voxels.any()


@pytest.mark.parametrize("connectivity", [8, "6", [6]])
def test_an_unknown_connectivity_is_refused(connectivity: Any) -> None:
    with pytest.raises(ParameterError, match=f"connectivity must be 6, 18 or 26, not {re.escape(repr(connectivity))}"):
        largest_component(label_map(np.zeros((2, 3, 4), np.uint8)), connectivity=connectivity)
