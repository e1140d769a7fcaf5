"""A whole thigh round a given label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musclekit.errors import GeometryError, LabelError, ParameterError
from musclekit.image import Contrast, Grid, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.phantom import (
    MUSCLES,
    Anatomy,
    Structure,
    Surroundings,
    Tissue,
    acquire,
    coarsen,
    complete_labels,
    draw_surroundings,
    infiltrate,
    make_thigh,
)


@pytest.fixture(scope="module")
def given() -> LabelMap:
    """Muscles alone of both legs, sides not encoded, as label maps of real people come."""
    phantom = make_thigh(2, shape=(4, 144, 144))
    huashan = label_set("huashan-11")
    return phantom.labels.mapped(label_mapping(phantom.labels.label_set, huashan))


@pytest.fixture(scope="module")
def whole(given: LabelMap) -> Anatomy:
    return complete_labels(given)


def test_the_muscles_stay_as_they_are(given: LabelMap, whole: Anatomy) -> None:
    assert np.array_equal(whole.structure * whole.is_muscle, given.voxels)
    assert np.array_equal(whole.labels.mask(*MUSCLES), given.mask())


def test_sides_are_found_in_the_world(given: LabelMap, whole: Anatomy) -> None:
    x = given.grid.world(np.argwhere(given.mask()))[:, 0]
    assert np.array_equal(whole.sides[given.mask()], np.where(x < 0, 1, 2))


def test_a_sided_map_gives_the_same(whole: Anatomy) -> None:
    labels = make_thigh(2, shape=(4, 144, 144)).labels
    assert labels.label_set.is_sided
    again = complete_labels(labels)
    assert np.array_equal(again.structure, whole.structure)
    assert np.array_equal(again.sides[again.structure > 0], whole.sides[again.structure > 0])


def test_the_rest_stands_where_it_belongs(given: LabelMap, whole: Anatomy) -> None:
    truth = make_thigh(2, shape=(4, 144, 144)).anatomy
    bone = np.isin(whole.structure, (Structure.CORTEX, Structure.MARROW))
    true_bone = np.isin(truth.structure, (Structure.CORTEX, Structure.MARROW))
    assert 2 * (bone & true_bone).sum() / (bone.sum() + true_bone.sum()) > 0.6
    assert set(np.unique(whole.structure)) >= set(range(1, 12)) | {
        Structure.CORTEX,
        Structure.MARROW,
        Structure.CLEFT,
        Structure.SUBCUTANEOUS,
        Structure.SKIN,
    }
    air = whole.structure == Structure.AIR
    beside = np.zeros_like(air)
    beside[:, 1:] |= air[:, :-1]
    beside[:, :, 1:] |= air[:, :, :-1]
    assert set(np.unique(whole.structure[beside & ~air])) <= {Structure.SKIN}, "skin is outermost"


def test_fat_of_the_thickness_asked_for(given: LabelMap) -> None:
    thin, thick = (
        np.count_nonzero(complete_labels(given, Surroundings(fat_mm=mm)).structure == Structure.SUBCUTANEOUS)
        for mm in (5, 20)
    )
    assert thick > 2.5 * thin


def test_it_can_be_infiltrated_and_scanned(whole: Anatomy) -> None:
    rng = np.random.default_rng(0)
    shares = {side: dict.fromkeys(MUSCLES, 0.3) for side in ("left", "right")}
    fat = infiltrate(whole, shares, rng)
    assert fat[whole.is_muscle].mean() == pytest.approx(0.3, abs=3e-3)
    ct = acquire(whole, fat, Contrast.CT, rng)
    assert np.median(ct.voxels[whole.structure == Structure.CORTEX]) > 600
    assert np.allclose(whole.fractions.sum(axis=0), 1, atol=1e-5)


def test_one_leg(given: LabelMap) -> None:
    grid = given.grid.crop((0, 0, 0), (4, 144, 70))
    alone = LabelMap(given.voxels[:, :, :70], grid, given.label_set)
    made = complete_labels(alone, side="left")
    assert (made.sides == 1).all()
    with_sides = {label.side for label in made.labels.label_set if (made.labels.voxels == label.id).any()}
    assert with_sides == {"left"}


def test_planes_without_muscle_are_air(given: LabelMap) -> None:
    voxels = given.voxels.copy()
    voxels[1] = 0
    voxels[1, 70, 40] = 3
    made = complete_labels(given.with_voxels(voxels))
    assert not made.structure[1].any()
    assert made.structure[2].any()


@pytest.mark.parametrize("seed", range(4))
def test_any_surroundings_fit(given: LabelMap, seed: int) -> None:
    around = draw_surroundings(np.random.default_rng(seed))
    assert 2 <= around.fat_mm <= 35
    made = complete_labels(given, around)
    assert np.array_equal(made.structure * made.is_muscle, given.voxels)


def test_averaging_over_blocks() -> None:
    fine = make_thigh(1, shape=(4, 60, 64), spacing=(5, 6, 6.3)).anatomy
    coarse = coarsen(fine, (2, 3, 4))
    assert coarse.grid.shape == (2, 20, 16)
    assert coarse.grid.spacing == pytest.approx((10, 18, 25.2))
    block = fine.fractions[:, 2:4, 30:33, 20:24].mean(axis=(1, 2, 3))
    assert coarse.fractions[:, 1, 10, 5] == pytest.approx(block, abs=1e-6)
    assert coarse.fractions.sum(axis=0) == pytest.approx(1, abs=1e-5)
    volume, before = (a.fractions[Tissue.MUSCLE].sum(dtype=float) * a.grid.voxel_volume_mm3 for a in (coarse, fine))
    assert volume == pytest.approx(before, rel=1e-5)
    corners = (fine.grid.world([0, 0, 0]) + fine.grid.world([1, 2, 3])) / 2
    assert coarse.grid.world([0, 0, 0]) == pytest.approx(corners)
    with pytest.raises(ParameterError, match="cannot be averaged"):
        coarsen(fine, (5, 1, 1))
    with pytest.raises(ParameterError, match="cannot be averaged"):
        coarsen(fine, (0, 1, 1))


def test_what_cannot_be_completed(given: LabelMap) -> None:
    with pytest.raises(LabelError, match="there is no muscle"):
        complete_labels(given.with_voxels(np.zeros(given.grid.shape, dtype=np.uint8)))
    with pytest.raises(LabelError, match="no map from 'tissue'"):
        complete_labels(make_thigh(2, shape=(1, 32, 32)).tissue)
    upside_down = given.grid.affine.copy()
    upside_down[:, 1] *= -1
    with pytest.raises(GeometryError, match="must grow to the front"):
        complete_labels(LabelMap(given.voxels, Grid(given.grid.shape, upside_down), given.label_set))
    with pytest.raises(ParameterError, match="lopsided lies below 1"):
        complete_labels(given, Surroundings(lopsided=1.0))


@pytest.mark.slow
def test_label_maps_of_real_people(shared_data: Path) -> None:
    from musclekit.io import read_labels

    files = sorted((shared_data / "huashan_labels").glob("*.nii.gz"))
    for path in (files[5], files[13], files[26]):
        labels = read_labels(path, label_set("huashan-11"))
        middle = int(np.argmax([np.count_nonzero(plane) for plane in labels.voxels]))
        grid = labels.grid.crop((middle, 0, 0), (middle + 1, *labels.grid.shape[1:]))
        plane = LabelMap(labels.voxels[middle : middle + 1], grid, labels.label_set)
        made = complete_labels(plane)
        pixel = grid.spacing[1] * grid.spacing[2]
        for side in (1, 2):
            leg = made.sides == side
            bone = np.count_nonzero(leg & np.isin(made.structure, (Structure.CORTEX, Structure.MARROW))) * pixel
            assert 250 < bone < 1200, f"{path.name}: femur of {bone:.0f} mm2"
        assert np.array_equal(made.structure * made.is_muscle, plane.voxels)
