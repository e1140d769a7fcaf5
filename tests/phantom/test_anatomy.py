"""Rasterised legs against their closed forms, and the consistency of labels and tissues."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musclekit.errors import ParameterError
from musclekit.image import Grid
from musclekit.phantom import LegShape, PlacedLeg, Structure, Tissue, cross_sections, draw_leg, rasterise
from musclekit.phantom.anatomy import Anatomy
from musclekit.phantom.shape import LEVELS


def leg_at(x: float = 90.0, seed: int = 4) -> PlacedLeg:
    return PlacedLeg(draw_leg(np.random.default_rng(seed)), "right", x=x)


def grid_of(spacing: tuple[float, float, float], planes: int, side: float = 180.0, x: float = 90.0) -> Grid:
    n = round(side / spacing[1])
    first = -spacing[1] * (n - 1) / 2
    return Grid.from_spacing((planes, n, n), spacing, (x + first, first, -spacing[0] * (planes - 1) / 2))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return rasterise({"right": leg_at()}, grid_of((10, 1.5, 1.5), 5))


def straight(shape: LegShape, level: int = 5) -> LegShape:
    """The same leg with one cross-section from end to end."""

    def same(table: np.ndarray, axis: int = 0) -> np.ndarray:
        return np.repeat(np.take(table, [level], axis=axis), len(LEVELS), axis=axis)

    return replace(
        shape,
        outline=same(shape.outline),
        fat=same(shape.fat),
        femur=same(shape.femur),
        cortex=same(shape.cortex),
        muscles=same(shape.muscles, 1),
        vessels=same(shape.vessels, 1),
    )


def test_fractions_sum_to_one(anatomy: Anatomy) -> None:
    assert anatomy.fractions.min() >= 0
    assert np.allclose(anatomy.fractions.sum(axis=0), 1, atol=1e-5)


def test_fractions_hold_the_closed_form_volumes(anatomy: Anatomy) -> None:
    leg = leg_at()
    heights = np.linspace(-25, 25, 501)
    areas = leg.shape.at(leg.level(heights)).areas()
    volume = anatomy.fractions.sum(axis=(1, 2, 3), dtype=float) * anatomy.grid.voxel_volume_mm3
    bone = volume[Tissue.CORTICAL_BONE] + volume[Tissue.MARROW]
    body = volume[1:].sum()
    for found, name, tolerance in (
        (body, "leg", 0.002),
        (body - volume[Tissue.SKIN] - volume[Tissue.SUBCUTANEOUS_FAT], "inside the fascia", 0.004),
        (bone, "femur", 0.01),
        (volume[Tissue.MARROW], "marrow", 0.02),
        (volume[Tissue.SKIN], "skin", 0.03),
        (volume[Tissue.FASCIA], "fascia lata", 0.06),
    ):
        assert found == pytest.approx(areas[name].mean() * 50, rel=tolerance), name


def test_voxel_counts_approach_the_closed_forms_as_voxels_shrink() -> None:
    leg = replace(leg_at(), shape=straight(leg_at().shape))
    truth = leg.shape.at(np.array([0.5])).areas()
    errors = []
    for step in (4.0, 1.0):
        made = rasterise({"right": leg}, grid_of((10, step, step), 1), supersampling=(1, 1, 1))
        femur = np.isin(made.structure, (Structure.CORTEX, Structure.MARROW)).sum() * step**2
        errors.append(abs(femur / truth["femur"][0] - 1))
    assert errors[1] < 0.01
    assert errors[1] <= errors[0]


def test_structures_of_the_voxels_are_those_of_a_cross_section(anatomy: Anatomy) -> None:
    leg = leg_at()
    grid = anatomy.grid
    centre = grid.world([2, 60, 60])
    x = grid.world(np.stack([np.full(20, 2), np.full(20, 60), np.arange(50, 70)], axis=1))[:, 0]
    section = cross_sections(leg.shape, leg.level(centre[2:]), x - leg.x, np.array([centre[1]]))
    assert np.array_equal(section[0, 0], anatomy.structure[2, 60, 50:70])


def test_muscles_lie_inside_the_fascia_and_nothing_overlaps(anatomy: Anatomy) -> None:
    leg = leg_at()
    z, y, x = np.nonzero(anatomy.is_muscle)
    points = anatomy.grid.world(np.stack([z, y, x], axis=1))
    u, v = points[:, 0] - leg.x, points[:, 1]
    theta, radius = np.arctan2(v, u), np.hypot(u, v)
    outline = leg.shape.at(leg.level(points[:, 2])).outline
    limit = (outline * np.exp(-1j * np.arange(6) * theta[:, None])).real.sum(axis=1)
    assert (radius < limit).all()
    assert np.array_equal(anatomy.tissue.mask("muscle"), anatomy.is_muscle)
    inside = anatomy.tissue.mask("muscle", "intermuscular fat", "cortical bone", "marrow")
    names = anatomy.labels.label_set.names
    assert np.array_equal(inside, anatomy.labels.mask(*(n for n in names if n != "subcutaneous fat")))


def test_every_muscle_is_there(anatomy: Anatomy) -> None:
    assert set(np.unique(anatomy.structure)) == set(range(19))


def test_left_is_the_mirror_image_of_right() -> None:
    shape = draw_leg(np.random.default_rng(8))
    right = PlacedLeg(shape, "right", x=85.0)
    left = PlacedLeg(shape, "left", x=-85.0)
    n = 128
    grid = Grid.from_spacing((3, n, n), (15, 3, 3), (-3 * (n - 1) / 2, -3 * (n - 1) / 2, -15))
    both = rasterise({"left": left, "right": right}, grid)
    assert np.array_equal(both.structure, both.structure[:, :, ::-1])
    assert np.array_equal(both.fractions, both.fractions[:, :, :, ::-1])
    labels = both.labels
    x = grid.world(np.argwhere(labels.mask("sartorius")))[:, 0]
    left_id, right_id = labels.label_set.ids_of("sartorius")
    found = labels.voxels[labels.mask("sartorius")]
    assert (x[found == left_id] < 0).all()
    assert (x[found == right_id] > 0).all()
    assert np.count_nonzero(found == left_id) == np.count_nonzero(found == right_id)


def test_lateral_is_away_from_the_other_leg() -> None:
    labels = rasterise({"right": leg_at()}, grid_of((10, 3, 3), 3)).labels
    right = np.mean(labels.grid.world(np.argwhere(labels.mask("vastus lateralis")))[:, 0])
    gracilis = np.mean(labels.grid.world(np.argwhere(labels.mask("gracilis")))[:, 0])
    assert right > gracilis


def test_thick_slices_blur_what_leans() -> None:
    leg = leg_at()
    shares = []
    for thickness in (1.0, 30.0):
        made = rasterise({"right": leg}, grid_of((30, 1.5, 1.5), 3), thickness_mm=thickness, supersampling=(4, 2, 2))
        muscle = made.fractions[Tissue.MUSCLE]
        shares.append(np.mean((muscle > 0.05) & (muscle < 0.95)))
    assert shares[1] > 1.3 * shares[0]


def test_one_point_a_voxel_gives_pure_voxels() -> None:
    made = rasterise({"right": leg_at()}, grid_of((10, 3, 3), 2), supersampling=(1, 1, 1))
    assert set(np.unique(made.fractions)) == {0.0, 1.0}


def test_a_leg_that_leaves_the_field_of_view_is_cut() -> None:
    whole = rasterise({"right": leg_at()}, grid_of((10, 3, 3), 1))
    cut = rasterise({"right": leg_at()}, whole.grid.crop((0, 20, 25), (1, 50, 60)))
    assert np.array_equal(cut.structure, whole.structure[:, 20:50, 25:60])
    assert np.allclose(cut.fractions, whole.fractions[:, :, 20:50, 25:60])


def test_bad_grids() -> None:
    leg = leg_at()
    tilted = np.eye(4)
    tilted[:3, :3] = [[0, 0, 1], [0.6, 0.8, 0], [0.8, -0.6, 0]]
    with pytest.raises(ParameterError, match="axes point to S, A and R"):
        rasterise({"right": leg}, Grid((2, 4, 4), tilted))
    with pytest.raises(ParameterError, match="must be positive"):
        rasterise({"right": leg}, grid_of((10, 9, 9), 1), thickness_mm=0)
    with pytest.raises(ParameterError, match="must be positive"):
        rasterise({"right": leg}, grid_of((10, 9, 9), 1), supersampling=(0, 1, 1))
