from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from musclekit.errors import ModalityError, ParameterError, SegmentationError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image
from musclekit.phantom import make_thigh, render
from musclekit.segmenters.levelset import LevelSetSegmenter, bone_contour, fascia_contour, geodesic_contour

Mask = NDArray[np.bool_]

COMPARTMENT, BONE = 1, 2


def ring(shape: tuple[int, int] = (200, 200), pixel: tuple[float, float] = (1.0, 1.0), fat_mm: float = 25.0):
    """HU of skin, fat, muscle with a seam of fat, and femur; compartment; bone."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y * pixel[0] - 100, x * pixel[1] - 100
    r = np.hypot(y, x)
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[r < 60 + fat_mm] = 10
    hu[r < 58 + fat_mm] = -100
    hu[r < 60] = 50
    hu[(r < 60) & (np.abs(y - 30) < 2)] = -100
    hu[r < 14] = 1200
    hu[r < 7] = -60
    return hu, (r < 60) & (r >= 14), r < 14


def ct(hu: NDArray[np.float32], spacing: tuple[float, float, float] = (5, 1, 1), noise: float = 0.0, planes: int = 1):
    stack = np.repeat(hu[None], planes, axis=0)
    stack = stack + np.random.default_rng(0).normal(0, noise, stack.shape)
    return Image(stack, Grid.from_spacing(stack.shape, spacing), Contrast.CT)


def dice(a: Mask, b: Mask) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("noise", [0, 20, 40])
def test_the_compartment_of_a_ring_is_found_and_bone_excluded(noise: float) -> None:
    hu, compartment, bone = ring()
    found = LevelSetSegmenter().segment(ct(hu, noise=noise)).voxels[0]
    assert dice(found == COMPARTMENT, compartment) > 0.98
    assert dice(found == BONE, bone) > 0.97
    assert not (found == COMPARTMENT)[bone].any()


@pytest.mark.parametrize("fat_mm", [4.0, 10.0, 35.0])
def test_thin_and_thick_fat_are_run_through(fat_mm: float) -> None:
    hu, compartment, _ = ring(fat_mm=fat_mm)
    found = LevelSetSegmenter().segment(ct(hu, noise=10)).voxels[0]
    assert dice(found == COMPARTMENT, compartment) > 0.97


@pytest.mark.parametrize("pixel", [(0.5, 0.5), (1.0, 1.6), (2.5, 2.5)])
def test_any_pixel_size_gives_the_same_leg(pixel: tuple[float, float]) -> None:
    hu, compartment, bone = ring((int(200 / pixel[0]), int(200 / pixel[1])), pixel)
    found = LevelSetSegmenter().segment(ct(hu, (8.0, *pixel), noise=10, planes=2))
    assert found.voxels.shape == (2, *hu.shape)
    assert dice(found.voxels[1] == COMPARTMENT, compartment) > 0.94
    assert dice(found.voxels[1] == BONE, bone) > 0.8


@pytest.mark.parametrize("cut", [np.s_[:, 90:], np.s_[95:, :], np.s_[50:150, 50:150]])
def test_a_leg_cut_by_the_field_of_view_keeps_its_contour_to_the_edge(cut: tuple[slice, slice]) -> None:
    hu, compartment, bone = (array[cut] for array in ring())
    found = LevelSetSegmenter().segment(ct(hu, noise=10)).voxels[0]
    assert dice(found == COMPARTMENT, compartment) > 0.96
    assert dice(found == BONE, bone) > 0.95


def test_muscle_without_fat_around_it_is_not_run_through() -> None:
    hu, compartment, _ = ring()
    hu[hu == -100] = 50
    found = LevelSetSegmenter().segment(ct(np.where(compartment | (hu > 300), hu, -1000))).voxels[0]
    assert (found == COMPARTMENT)[compartment].mean() > 0.9


def test_fat_alone_leaves_next_to_nothing() -> None:
    hu, compartment, _ = ring()
    hu[hu > -500] = -100
    found = LevelSetSegmenter(max_iterations=600).segment(ct(hu)).voxels[0]
    assert (found == COMPARTMENT).sum() < 0.02 * compartment.sum()
    assert not (found == BONE).any()


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W])
def test_a_phantom_of_either_modality_is_found(contrast: Contrast) -> None:
    phantom = make_thigh(3, shape=(2, 256, 400), spacing=(10, 1, 1))
    found = LevelSetSegmenter().segment(render(phantom, contrast)).voxels
    truth = phantom.reference("compartment").voxels
    assert dice(found == COMPARTMENT, truth == COMPARTMENT) > 0.97
    assert dice(found == BONE, truth == BONE) > 0.85


def test_the_image_is_left_alone_and_the_answer_is_the_same_again() -> None:
    image = ct(ring()[0], noise=15)
    before = image.voxels.copy()
    method = LevelSetSegmenter()
    first, again = method.segment(image), method.segment(image)
    np.testing.assert_array_equal(first.voxels, again.voxels)
    np.testing.assert_array_equal(image.voxels, before)
    assert first.grid.same_as(image.grid)
    assert first.label_set.name == "compartment"


def test_a_contour_stops_at_a_wall_and_moves_the_way_it_is_driven() -> None:
    y, x = np.mgrid[:80, :80]
    r = np.hypot(y - 40, x - 40)
    speed = np.where(np.abs(r - 20) < 2, 0, 1).astype(np.float32)
    weights = {"curvature": 0.1, "advection": 0.0, "max_iterations": 300, "max_rms": 1e-4}
    shrunk = geodesic_contour(r < 35, speed, propagation=-1.0, **weights)
    grown = geodesic_contour(r < 5, speed, propagation=1.0, **weights)
    assert dice(shrunk, r < 22) > 0.97
    assert dice(grown, r < 18) > 0.97


def test_an_empty_or_a_full_contour_stays_so() -> None:
    speed = np.ones((20, 20), dtype=np.float32)
    weights = {"curvature": 0.1, "advection": 0.0, "max_iterations": 10, "max_rms": 1e-4}
    assert not geodesic_contour(np.zeros((20, 20), dtype=bool), speed, propagation=1.0, **weights).any()
    assert geodesic_contour(np.ones((20, 20), dtype=bool), speed, propagation=-1.0, **weights).all()


def test_the_fascia_lies_half_way_between_fat_and_muscle() -> None:
    hu, compartment, bone = ring()
    y, x = np.mgrid[:200, :200]
    found = fascia_contour(hu, np.hypot(y - 100, x - 100) < 82, bone, 1.0)
    area = np.count_nonzero(found)
    assert area == pytest.approx(np.count_nonzero(compartment | bone), rel=0.02)


def test_bone_grows_to_its_edge_and_no_further() -> None:
    y, x = np.mgrid[:80, :80]
    r = np.hypot(y - 40, x - 40)
    hu = np.where(r < 14, 500, 50).astype(np.float32)
    assert dice(bone_contour(hu, r < 13, 1.0, gradient=120.0), r < 14) > 0.97
    assert dice(bone_contour(hu, r < 14, 1.0, gradient=120.0), r < 14) > 0.97


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"propagation": -1.0}, "propagation must be a number of at least 0"),
        ({"curvature": float("nan")}, "curvature must be a number of at least 0"),
        ({"max_iterations": 0}, "max_iterations must be a whole number of at least 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, float], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        LevelSetSegmenter(**parameters).fit([])


def test_what_is_no_scan_is_refused() -> None:
    grid = Grid.from_spacing((1, 32, 32), (1, 1, 1))
    method = LevelSetSegmenter()
    with pytest.raises(VoxelError, match="constant"):
        method.segment(Image(np.zeros((1, 32, 32)), grid, Contrast.CT))
    with pytest.raises(ModalityError, match="is it MR"):
        method.segment(Image(np.arange(1024).reshape(1, 32, 32), grid, Contrast.CT))
    small = np.full((1, 32, 32), -1000.0)
    small[0, 4:8, 4:8] = 0
    with pytest.raises(SegmentationError, match="no body"):
        method.segment(Image(small, grid, Contrast.CT))


def test_fitting_checks_the_cases_and_learns_nothing() -> None:
    method = LevelSetSegmenter()
    assert method.fit([Case(id="a", subject="a", images={Contrast.CT: ct(ring()[0])})]) is method
    assert not [name for name in vars(method) if name.endswith("_")]
