"""One thigh laid onto another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.anatomy.registration import (
    PIECE,
    plane_axes,
    register_thighs,
    resample_planes,
    thigh_outlines,
)
from musclekit.errors import GeometryError, SegmentationError
from musclekit.image import Grid

WEIGHT, OVERLAP = PIECE.index("weight"), PIECE.index("overlap")


def model(points: np.ndarray, level: float) -> list[np.ndarray]:
    """Leg, compartment and femur of a thigh at a level from knee (0) to hip (1), at places (right, front) in mm."""
    x, y = points[..., 0], points[..., 1]
    wide = 55 + 20 * level
    leg = (x / wide) ** 2 + (y / (wide * 1.08)) ** 2 < 1
    compartment = (x / (0.8 * wide)) ** 2 + ((y - 3) / (0.95 * wide)) ** 2 < 1
    femur = np.hypot(x + 0.12 * wide, y - 0.2 * wide) < 13 + 14 * (1 - level) ** 4
    return [leg, compartment, femur & compartment]


def thigh(
    grid: Grid, levels: np.ndarray, *, matrix: np.ndarray | None = None, shift: np.ndarray | None = None
) -> list[np.ndarray]:
    """The model on a grid; what is seen at a place p is the model at ``matrix @ p + shift``."""
    rows, columns = np.mgrid[: grid.shape[1], : grid.shape[2]]
    places = np.stack([columns, rows], axis=-1) @ plane_axes(grid).T
    moved = places @ (np.eye(2) if matrix is None else matrix).T + (np.zeros(2) if shift is None else shift)
    return [np.stack(part) for part in zip(*(model(moved, level) for level in levels), strict=True)]


GRID = Grid.from_spacing((5, 110, 110), (40, 2, 2))
MIDDLE = plane_axes(GRID) @ (54.5, 54.5)
LEVELS = np.linspace(0.1, 0.9, 5)
ATLAS = thigh(GRID, LEVELS, shift=-MIDDLE)


def places_of(registration: np.ndarray, z: int, points: np.ndarray) -> np.ndarray:
    matrix = registration[z, registration[z, :, WEIGHT].argmax(), 3:].reshape(2, 3)
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_a_thigh_lies_on_itself():
    outlines = thigh_outlines(ATLAS, GRID)
    found = register_thighs(outlines, outlines)
    pieces = found[np.arange(5), found[..., WEIGHT].argmax(axis=1)]
    np.testing.assert_allclose(pieces[:, 0], np.arange(5))
    np.testing.assert_allclose(pieces[:, WEIGHT], 1, atol=1e-9)
    np.testing.assert_allclose(pieces[:, OVERLAP], 1, atol=1e-6)
    np.testing.assert_allclose(pieces[:, 3:], np.tile([1, 0, 0, 0, 1, 0], (5, 1)), atol=1e-4)
    values, covered = resample_planes(ATLAS[1], GRID, found, GRID)
    np.testing.assert_allclose(values, ATLAS[1], atol=1e-3)
    assert covered[:, 1:-1, 1:-1].all()


@settings(max_examples=12, deadline=None)
@given(
    turn=st.floats(-20, 20),
    scale=st.floats(0.85, 1.2),
    right=st.floats(-12, 12),
    front=st.floats(-12, 12),
    spacing=st.sampled_from([(40, 2, 2), (40, 1.5, 1.5), (40, 1.2, 2.4)]),
)
def test_known_similarity_transforms_are_found(
    turn: float, scale: float, right: float, front: float, spacing: tuple[float, float, float]
):
    grid = Grid.from_spacing((5, round(220 / spacing[1]), round(220 / spacing[2])), spacing)
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    matrix = scale * np.array([[c, -s], [s, c]])
    centre = np.array([110.0 + right, 110.0 + front])
    scan = thigh(grid, LEVELS, matrix=matrix, shift=-matrix @ centre)
    found = register_thighs(thigh_outlines(scan, grid), thigh_outlines(ATLAS, GRID))
    points = centre + 30 * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    for z in range(1, 4):
        expected = (points - centre) @ matrix.T + MIDDLE
        error = np.linalg.norm(places_of(found, z, points) - expected, axis=1)
        assert error.max() < 2.5, (z, error)


def test_a_left_thigh_is_mirrored_onto_a_right_one():
    mirror = np.diag([-1.0, 1.0])
    left = thigh(GRID, LEVELS, matrix=mirror, shift=-mirror @ MIDDLE)
    outlines, atlas = thigh_outlines(left, GRID), thigh_outlines(ATLAS, GRID)
    there, as_it_is = (register_thighs(outlines, atlas, mirrored=mirrored) for mirrored in (True, False))
    weights = there[..., WEIGHT]
    assert (there[..., OVERLAP] * weights).sum() > (as_it_is[..., OVERLAP] * as_it_is[..., WEIGHT]).sum() + 0.5
    assert np.linalg.det(there[2, weights[2].argmax(), 3:].reshape(2, 3)[:, :2]) < 0
    values, _ = resample_planes(ATLAS[2], GRID, there, GRID)
    assert np.abs(values - left[2]).mean() < 0.004


@pytest.mark.parametrize("axes", ["flipped", "exchanged"])
def test_the_order_of_the_axes_does_not_matter(axes: str):
    affine = GRID.affine.copy()
    if axes == "flipped":
        affine[:3, 1:3] *= -1
        arrays = [part[:, ::-1, ::-1] for part in ATLAS]
    else:
        affine[:3, [1, 2]] = affine[:3, [2, 1]]
        arrays = [part.swapaxes(1, 2) for part in ATLAS]
    grid = Grid(GRID.shape, affine)
    found = register_thighs(thigh_outlines(arrays, grid), thigh_outlines(ATLAS, GRID))
    values, _ = resample_planes(ATLAS[2], GRID, found, grid)
    assert np.abs(values - arrays[2]).mean() < 0.002


def test_a_scan_that_runs_from_head_to_foot_is_matched_from_foot_to_head():
    affine = GRID.affine.copy()
    affine[:3, 0] *= -1
    grid = Grid(GRID.shape, affine)
    found = register_thighs(thigh_outlines([part[::-1] for part in ATLAS], grid), thigh_outlines(ATLAS, GRID))
    level = (found[..., 0] * found[..., WEIGHT]).sum(axis=1)
    np.testing.assert_allclose(level, np.arange(5)[::-1], atol=0.3)


@pytest.mark.parametrize("first", [0, 2, 5])
def test_a_part_of_the_thigh_is_found_in_the_whole(first: int):
    levels = np.linspace(0.05, 0.95, 10)
    long = Grid.from_spacing((10, 110, 110), (20, 2, 2))
    atlas = thigh_outlines(thigh(long, levels, shift=-MIDDLE), long)
    short = Grid.from_spacing((5, 110, 110), (20, 2, 2))
    scan = thigh_outlines(thigh(short, levels[first : first + 5], shift=-MIDDLE), short)
    found = register_thighs(scan, atlas)
    level = (found[..., 0] * found[..., WEIGHT]).sum(axis=1)
    # The model differs little from slice to slice above the knee, so middle on middle pulls.
    assert np.abs(level - np.arange(first, first + 5)).mean() < 1.6


def test_a_single_slice_goes_where_it_fits():
    one = Grid.from_spacing((1, 110, 110), (40, 2, 2))
    scan = thigh_outlines(thigh(one, LEVELS[:1], shift=-MIDDLE), one)
    found = register_thighs(scan, thigh_outlines(ATLAS, GRID))
    assert (found[0, :, 0] * found[0, :, WEIGHT]).sum() < 0.6


def test_a_scan_far_longer_than_the_atlas_still_lies_on_it():
    thin = Grid.from_spacing((2, 110, 110), (5, 2, 2))
    atlas = thigh_outlines(thigh(thin, np.array([0.5, 0.52]), shift=-MIDDLE), thin)
    found = register_thighs(thigh_outlines(ATLAS, GRID), atlas)
    np.testing.assert_allclose(found[..., WEIGHT].sum(axis=1), 1)
    assert abs(places_of(found, 2, MIDDLE) - MIDDLE).max() < 2


def test_slices_without_leg_stay_empty_and_those_without_muscle_go_by_the_leg():
    scan = [part.copy() for part in ATLAS]
    for part in scan:
        part[0] = False
    scan[1][4] = scan[2][4] = False
    found = register_thighs(thigh_outlines(scan, GRID), thigh_outlines(ATLAS, GRID))
    np.testing.assert_allclose(found[:, :, WEIGHT].sum(axis=1), [0, 1, 1, 1, 1])
    assert np.linalg.norm(places_of(found, 4, MIDDLE) - MIDDLE) < 4
    values, covered = resample_planes(ATLAS[1], GRID, found, GRID)
    assert not covered[0].any()
    assert not values[0].any()
    assert covered[1][scan[0][1]].all()


def test_what_a_tightly_cropped_atlas_does_not_show_is_not_covered():
    window = (slice(None), slice(20, 90), slice(20, 90))
    cropped = GRID.crop((0, 20, 20), (5, 90, 90))
    found = register_thighs(thigh_outlines(ATLAS, GRID), thigh_outlines([part[window] for part in ATLAS], cropped))
    _, covered = resample_planes(ATLAS[1][window], cropped, found, GRID)
    assert covered[2, 50, 50]
    assert not covered[2, :15].any()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(SegmentationError, match="the mask of the leg is empty"):
        thigh_outlines([np.zeros(GRID.shape, bool)], GRID)
    with pytest.raises(GeometryError, match="an outline has shape"):
        thigh_outlines([ATLAS[0][:2]], GRID)
    with pytest.raises(GeometryError, match="one to 3 outlines"):
        thigh_outlines([*ATLAS, ATLAS[0]], GRID)
    with pytest.raises(GeometryError, match="has 1 outlines, the atlas 3"):
        register_thighs(thigh_outlines(ATLAS[:1], GRID), thigh_outlines(ATLAS, GRID))
    found = register_thighs(thigh_outlines(ATLAS, GRID), thigh_outlines(ATLAS, GRID))
    with pytest.raises(GeometryError, match="does not take a mask"):
        resample_planes(ATLAS[1], GRID, found[:3], GRID)
