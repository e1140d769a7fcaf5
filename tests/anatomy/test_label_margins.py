"""Labels that are grown out to the border of their muscle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from musclekit.anatomy import grown_labels
from musclekit.errors import GeometryError, ParameterError

PLANES = arrays(np.uint8, (1, 12, 14), elements=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 3]))
ROOMS = arrays(np.bool_, (1, 12, 14))
SQUARE = np.ones((3, 3), dtype=bool)


@pytest.mark.parametrize(("steps", "pixels"), [(0, 1), (1, 9), (2, 25), (6, 169)])
def test_each_step_is_a_full_square(steps: int, pixels: int) -> None:
    # The figures of the method sheet: a cross would give 85 after six steps.
    voxels = np.zeros((1, 31, 31), dtype=np.uint8)
    voxels[0, 15, 15] = 4
    found = grown_labels(voxels, {4: steps}, np.ones(voxels.shape, dtype=bool))
    assert np.count_nonzero(found) == pixels
    assert voxels.sum() == 4


@given(voxels=PLANES, room=ROOMS, first=st.integers(0, 4), second=st.integers(0, 4))
@settings(deadline=None)
def test_labels_grow_into_the_room_and_nowhere_else(
    voxels: np.ndarray, room: np.ndarray, first: int, second: int
) -> None:
    steps = {1: first, 2: second}
    found = grown_labels(voxels, steps, room)
    assert np.array_equal(found[voxels > 0], voxels[voxels > 0])
    new = (found > 0) & (voxels == 0)
    assert not (new & ~room).any()
    # By brute force: a voxel is labelled if a label reaches it, and by the nearest that does.
    reach = {
        label: ndimage.binary_dilation(voxels[0] == label, SQUARE, iterations=n) if n else voxels[0] == label
        for label, n in steps.items()
    }
    apart = {
        label: ndimage.distance_transform_edt(voxels[0] != label) if (voxels == label).any() else np.full((12, 14), 99)
        for label in steps
    }
    for y, x in np.argwhere(room[0] & (voxels[0] == 0)):
        reaching = [label for label in steps if steps[label] and reach[label][y, x]]
        wanted = min(reaching, key=lambda label: (apart[label][y, x], label), default=0)
        assert found[0, y, x] == wanted


def test_planes_are_grown_alone() -> None:
    voxels = np.zeros((3, 9, 9), dtype=np.uint16)
    voxels[1, 4, 4] = 300
    found = grown_labels(voxels, {300: 2}, np.ones(voxels.shape, dtype=bool))
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [1]
    assert found.dtype == np.uint16


def test_what_cannot_be_grown_is_refused() -> None:
    voxels = np.zeros((1, 4, 4), dtype=np.uint8)
    with pytest.raises(GeometryError, match=r"the labels have shape \(1, 4, 4\), the room to grow in \(1, 4, 5\)"):
        grown_labels(voxels, {}, np.ones((1, 4, 5), dtype=bool))
    with pytest.raises(ParameterError, match="steps of label 1"):
        grown_labels(voxels, {1: -1}, np.ones((1, 4, 4), dtype=bool))
