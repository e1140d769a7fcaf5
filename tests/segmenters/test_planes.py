from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.anatomy import Leg
from musclekit.segmenters.planes import (
    WorkingPlanes,
    body_box,
    disk,
    numbered_legs,
    padded,
    skin_depth,
    skin_seam,
)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0), st.integers(30, 90), st.integers(30, 90))
def test_a_mask_comes_back_from_the_working_grid_as_it_was(dy: float, dx: float, rows: int, columns: int) -> None:
    y, x = np.mgrid[:rows, :columns]
    centre, radius = (rows * dy / 2, columns * dx / 2), 0.35 * min(rows * dy, columns * dx)
    mask = np.hypot((y + 0.5) * dy - centre[0], (x + 0.5) * dx - centre[1])[None] < radius
    working = WorkingPlanes.of(mask.shape, (5.0, dy, dx))
    back = working.restored(working.resampled_mask(mask))
    # Half a working pixel around the outline may go either way.
    allowed = 2 * np.pi * radius * max(dy, dx, 1.0) * 0.5
    assert back.shape == mask.shape
    assert np.count_nonzero(back ^ mask) * dy * dx <= allowed + 2 * dy * dx


def test_planes_of_about_a_millimetre_are_not_resampled() -> None:
    planes = np.random.default_rng(0).normal(size=(2, 20, 30)).astype(np.float32)
    working = WorkingPlanes.of(planes.shape, (5.0, 0.78, 0.78))
    assert working.resampled(planes) is planes
    assert working.spacing == (5.0, 0.78, 0.78)
    assert WorkingPlanes.of(planes.shape, (5.0, 0.78, 0.78), finest_mm=0.9).spacing == (5.0, 1.0, 1.0)
    assert WorkingPlanes.of(planes.shape, (5.0, 1.0, 1.5)).shape == (20, 45)


def test_a_box_holds_the_body_and_a_pixel_around_it() -> None:
    body = np.zeros((2, 20, 30), dtype=bool)
    body[0, 5:8, 0:4] = True
    assert body_box(body) == (slice(None), slice(4, 9), slice(0, 5))


def test_a_disk_counts_pixel_centres() -> None:
    assert disk(0.5).sum() == 1
    assert disk(1).sum() == 5
    assert disk(1.5).sum() == 9
    assert disk(5).sum() == 81


def test_the_edge_of_the_picture_is_no_skin() -> None:
    body = np.ones((20, 20), dtype=bool)
    assert np.isinf(skin_depth(body)).all()
    body[:, :5] = False
    depth = skin_depth(body)
    np.testing.assert_allclose(depth[:, 5:], np.broadcast_to(np.arange(1, 16), (20, 15)), rtol=1e-5)


def test_padding_copies_what_lies_at_the_edge() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 1] = True
    wide = padded(mask, 2)
    assert wide.dtype == bool
    np.testing.assert_array_equal(wide[:3, 3], [True, True, True])
    assert np.count_nonzero(wide) == 3


def test_legs_are_numbered_and_touch_at_their_seam() -> None:
    left = np.zeros((1, 6, 8), dtype=bool)
    right = left.copy()
    left[:, :, :3] = True
    right[:, :2, 3:] = True
    right[:, :, 5:] = True
    legs = numbered_legs((Leg("left", left), Leg("right", right)), left.shape)
    assert set(np.unique(legs)) == {0, 1, 2}
    seam = skin_seam(legs)[0]
    expected = np.zeros((6, 8), dtype=bool)
    expected[:2, 2:4] = True
    np.testing.assert_array_equal(seam, expected)


@pytest.mark.parametrize("axis", [1, 2])
def test_one_leg_has_no_seam(axis: int) -> None:
    legs = np.ones((2, 5, 5), dtype=np.uint8)
    legs[(slice(None),) * axis + (slice(0, 2),)] = 0
    assert not skin_seam(legs).any()
