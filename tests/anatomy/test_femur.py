from __future__ import annotations

import numpy as np
import pytest

from musclekit.anatomy import femur_axis, femur_mask, obliquity_cosine
from musclekit.errors import GeometryError, ModalityError, SegmentationError
from musclekit.image import Contrast, Grid, Image

AIR, FLESH, CORTEX, MARROW = -1000.0, 50.0, 900.0, -50.0


def leg_on(direction: np.ndarray, grid: Grid) -> Image:
    """Tube of flesh with a hollow bone along a direction through the middle of the grid."""
    centre = grid.world((np.asarray(grid.shape) - 1) / 2)
    points = grid.world(np.stack(np.indices(grid.shape), axis=-1)) - centre
    along = points @ direction
    radius = np.linalg.norm(points - along[..., None] * direction, axis=-1)
    voxels = np.select([radius < 6, radius < 14, radius < 60], [MARROW, CORTEX, FLESH], AIR)
    return Image(voxels, grid, Contrast.CT)


def tilted(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([np.sin(angle) * 0.8, np.sin(angle) * 0.6, np.cos(angle)])


GRID = Grid.from_spacing((60, 100, 100), (3, 2, 2))


@pytest.mark.parametrize("degrees", [0, 5, 15, 30])
def test_axis_of_a_tilted_bone_is_found_to_half_a_degree(degrees: float) -> None:
    direction = tilted(degrees)
    image = leg_on(direction, GRID)
    axis = femur_axis(femur_mask(image, image.voxels > -200), GRID)
    assert axis.reliable
    assert np.degrees(np.arccos(min(1.0, axis.direction @ direction))) < 0.5
    assert axis.angle_deg == pytest.approx(degrees, abs=0.5)
    assert axis.residual_mm < 1
    assert obliquity_cosine(axis, GRID) == pytest.approx(np.cos(np.radians(degrees)), abs=0.005)


def test_axis_points_to_the_head_whichever_way_the_slices_run() -> None:
    affine = GRID.affine.copy()
    affine[:3, 0] *= -1
    grid = Grid(GRID.shape, affine)
    image = leg_on(tilted(10), grid)
    axis = femur_axis(femur_mask(image, image.voxels > -200), grid)
    assert axis.direction[2] > 0.9


def test_area_is_corrected_by_the_cosine() -> None:
    direction = tilted(25)
    image = leg_on(direction, Grid.from_spacing((40, 100, 100), (3, 1.5, 1.5)))
    flesh = image.voxels > -200
    axis = femur_axis(femur_mask(image, flesh), image.grid)
    area = flesh[20].sum() * 1.5**2 * obliquity_cosine(axis, image.grid)
    assert area == pytest.approx(np.pi * 60**2, rel=0.01)


def test_marrow_belongs_to_the_femur_and_other_bone_does_not() -> None:
    image = leg_on(tilted(0), GRID)
    voxels = image.voxels.copy()
    # A pelvis larger than the femur, but with no shaft in any slice.
    voxels[35:, 10:24, 5:95] = 700
    mask = femur_mask(image.with_voxels(voxels), image.voxels > -2000)
    assert not mask[:, 10:24].any()
    assert mask[30, 50, 50]
    assert mask[30].sum() * 4 == pytest.approx(np.pi * 14**2, rel=0.1)


def test_thick_slices_count_for_what_they_span() -> None:
    thick = Grid.from_spacing((16, 100, 100), (24, 2, 2))
    image = leg_on(tilted(8), thick)
    axis = femur_axis(femur_mask(image, image.voxels > -200), thick)
    assert axis.reliable
    assert axis.angle_deg == pytest.approx(8, abs=1)


def test_doubt_says_why() -> None:
    thin = Grid.from_spacing((30, 100, 100), (1, 2, 2))
    short = femur_axis(leg_on(tilted(0), thin).voxels > 300, thin)
    assert not short.reliable
    assert "29 mm in 30 slices" in short.doubt
    steep_grid = Grid.from_spacing((30, 160, 160), (4, 2, 2))
    steep = femur_axis(leg_on(tilted(50), steep_grid).voxels > 300, steep_grid)
    assert "50 degrees off" in steep.doubt
    single = np.zeros((1, 20, 20), dtype=bool)
    single[0, 5:9, 5:9] = True
    one = femur_axis(single, Grid.from_spacing((1, 20, 20), (5, 1, 1)))
    assert not one.reliable
    assert one.angle_deg == 0


def test_errors_say_what_is_wrong() -> None:
    image = leg_on(tilted(0), GRID)
    leg = image.voxels > -200
    with pytest.raises(ModalityError, match="this image is t1w, not ct"):
        femur_mask(image.with_voxels(image.voxels, Contrast.T1W), leg)
    with pytest.raises(GeometryError, match="the leg mask has shape"):
        femur_mask(image, leg[1:])
    with pytest.raises(SegmentationError, match="no voxel of the leg lies above 300 HU"):
        femur_mask(image.with_voxels(np.minimum(image.voxels, 100)), leg)
    with pytest.raises(SegmentationError, match="the bone mask is empty"):
        femur_axis(np.zeros(GRID.shape, dtype=bool), GRID)
    with pytest.raises(GeometryError, match="the bone mask has shape"):
        femur_axis(np.zeros((2, 2, 2), dtype=bool), GRID)
