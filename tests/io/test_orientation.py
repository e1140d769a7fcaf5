from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musclekit.errors import GeometryError
from musclekit.image import Grid
from musclekit.io.orientation import Orientation, geometry_warnings
from tests.io.conftest import AXIS_ORDERS, ordered_affine, small_rotation


@pytest.mark.parametrize(("order", "signs"), AXIS_ORDERS)
def test_every_axis_order_becomes_s_a_r(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = ordered_affine(order, signs)
    shape = (4, 5, 6)
    grid = Orientation.of(affine).grid(shape, affine)
    np.testing.assert_allclose(grid.direction, [[0, 0, 1], [0, 1, 0], [1, 0, 0]], atol=1e-12)
    assert grid.shape == tuple(shape[order.index(world)] for world in (2, 1, 0))


@given(st.sampled_from(AXIS_ORDERS), st.integers(0, 10**6))
def test_voxels_stay_where_they_are_in_the_world(axis_order: tuple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.3, 30, size=3))
    affine = ordered_affine(*axis_order, spacing, tuple(rng.normal(0, 300, 3)), small_rotation(rng))
    shape = tuple(int(n) for n in rng.integers(1, 6, size=3))
    voxels = np.arange(np.prod(shape)).reshape(shape)
    orientation = Orientation.of(affine)
    turned, grid = orientation.apply(voxels), orientation.grid(shape, affine)
    for index in np.ndindex(*shape):
        found = grid.index(affine[:3, :3] @ index + affine[:3, 3])
        np.testing.assert_allclose(found, np.rint(found), atol=1e-6)
        assert turned[tuple(np.rint(found).astype(int))] == voxels[index]
    np.testing.assert_array_equal(orientation.undo(turned), voxels)
    assert (np.diagonal(grid.direction[::-1]) > 0.5).all()


def test_a_column_is_not_taken_twice() -> None:
    # Both in-plane axes lie closest to A: the better one gets it, the other must be R.
    affine = np.eye(4)
    affine[:3, 0] = np.array([0.6, 0.8, 0])
    affine[:3, 1] = np.array([-0.8, 0.6, 0])
    assert sorted(Orientation.of(affine).axes) == [0, 1, 2]


def test_singular_affine() -> None:
    affine = np.eye(4)
    affine[:3, 1] = affine[:3, 0]
    with pytest.raises(GeometryError, match="singular"):
        Orientation.of(affine).grid((2, 2, 2), affine)


def test_an_axial_scan_warns_of_nothing() -> None:
    assert geometry_warnings(Grid.from_spacing((20, 64, 64), (3, 0.9, 0.9))) == ()
    assert geometry_warnings(Grid.from_spacing((200, 64, 64), (0.5, 0.9, 0.9))) == ()
    assert geometry_warnings(Grid.from_spacing((1, 64, 64), (1, 0.9, 0.9))) == ()


@pytest.mark.parametrize(
    ("shape", "spacing", "plane"),
    [
        ((64, 20, 64), (1, 5, 1), "coronal"),
        ((64, 64, 20), (1, 1, 5), "sagittal"),
        ((64, 1, 64), (1, 1, 1), "coronal"),
        ((64, 64, 1), (1, 1, 1), "sagittal"),
    ],
)
def test_other_planes_are_flagged(shape: tuple[int, ...], spacing: tuple[float, ...], plane: str) -> None:
    (warning,) = geometry_warnings(Grid.from_spacing(shape, spacing))
    assert warning.startswith(f"the slices are {plane}, not axial")


def test_steep_tilt_and_shear_are_flagged() -> None:
    turn = np.radians(50)
    tilted = np.array([[0, 0, 1, 0], [np.sin(turn), np.cos(turn), 0, 0], [np.cos(turn), -np.sin(turn), 0, 0], [0] * 4])
    tilted[3, 3] = 1
    assert "50 degrees off head-foot" in geometry_warnings(Grid((5, 5, 5), tilted))[0]
    sheared = Grid.from_spacing((5, 5, 5), (3, 1, 1)).affine.copy()
    sheared[1, 2] = 0.1
    assert "not at right angles (off by 5.7 degrees)" in geometry_warnings(Grid((5, 5, 5), sheared))[0]
