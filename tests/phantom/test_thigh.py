"""Whole phantoms: truth, determinism, sides, grades."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.errors import LabelError, ParameterError, UnknownNameError
from musclekit.image import Contrast
from musclekit.phantom import GENERATOR_VERSION, GRADES, MUSCLES, Phantom, make_thigh, render

SMALL = (5, 96, 96)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_thigh(1, shape=(8, 160, 160), grade="severe")


def test_the_same_seed_gives_the_same_voxels() -> None:
    one, two = (make_thigh(6, shape=SMALL, grade="moderate") for _ in range(2))
    assert np.array_equal(one.anatomy.structure, two.anatomy.structure)
    assert np.array_equal(one.anatomy.fractions, two.anatomy.fractions)
    assert np.array_equal(one.muscle_fat, two.muscle_fat)
    assert np.array_equal(render(one, Contrast.CT).voxels, render(two, Contrast.CT).voxels)
    other = make_thigh(7, shape=SMALL, grade="moderate")
    assert not np.array_equal(one.anatomy.structure, other.anatomy.structure)
    assert one.version == GENERATOR_VERSION


def test_volumes_of_the_voxels_are_those_of_the_truth(phantom: Phantom) -> None:
    labels = phantom.labels
    for row in phantom.truth():
        if row.name not in labels.label_set.names:
            continue
        (which,) = labels.label_set.ids_of(row.name, row.side)
        counted = np.count_nonzero(labels.voxels == which) * phantom.grid.voxel_volume_mm3 / 1000
        assert counted == pytest.approx(row.volume_ml, rel=0.05, abs=0.8), f"{row.name} {row.side}"
        assert row.volume_ml == pytest.approx(row.area_mm2.sum() * phantom.grid.spacing[0] / 1000)
        assert row.closed_form == (row.name not in MUSCLES)


def test_total_muscle_volume_is_right_to_half_a_per_cent(phantom: Phantom) -> None:
    truth = sum(row.volume_ml for row in phantom.truth() if row.name in MUSCLES)
    counted = np.count_nonzero(phantom.anatomy.is_muscle) * phantom.grid.voxel_volume_mm3 / 1000
    assert counted == pytest.approx(truth, rel=0.005)


def test_fat_shares_are_those_of_the_voxels(phantom: Phantom) -> None:
    labels = phantom.labels
    for row in phantom.truth():
        if row.fat_share is None:
            continue
        (which,) = labels.label_set.ids_of(row.name, row.side)
        assert phantom.muscle_fat[labels.voxels == which].mean() == pytest.approx(row.fat_share, abs=3e-3)


def test_areas_do_not_depend_on_the_voxels() -> None:
    coarse = make_thigh(3, shape=(3, 40, 40), spacing=(20, 10, 10), legs="right").truth()
    fine = make_thigh(3, shape=(3, 90, 90), spacing=(20, 3, 3), legs="right").truth()
    for one, two in zip(coarse, fine, strict=True):
        assert one.area_mm2 == pytest.approx(two.area_mm2), one.name


def test_grades_are_monotone_and_keep_the_person() -> None:
    people = [make_thigh(4, shape=SMALL, grade=grade, fat_mm=10) for grade in GRADES]
    means = [p.muscle_fat[p.anatomy.is_muscle].mean() for p in people]
    assert means == sorted(means)
    outlines = {tuple(np.round(p.legs["right"].shape.outline[:, 0].real, 6)) for p in people}
    assert len(outlines) == 1
    sizes = [np.count_nonzero(p.anatomy.is_muscle) for p in people]
    assert sizes == sorted(sizes, reverse=True), "muscles waste"


def test_left_lies_at_negative_x() -> None:
    phantom = make_thigh(5, shape=SMALL)
    labels = phantom.labels
    for side, sign in (("left", -1), ("right", 1)):
        (which,) = labels.label_set.ids_of("vastus lateralis", side)
        x = phantom.grid.world(np.argwhere(labels.voxels == which))[:, 0]
        assert (x * sign > 0).all()


def test_mirror_images_when_asked_for() -> None:
    phantom = make_thigh(5, shape=SMALL, asymmetry=0)
    assert np.array_equal(phantom.anatomy.structure, phantom.anatomy.structure[:, :, ::-1])
    lopsided = make_thigh(5, shape=SMALL)
    assert not np.array_equal(lopsided.anatomy.structure, lopsided.anatomy.structure[:, :, ::-1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_leg_is_that_of_the_pair(side: str) -> None:
    both = make_thigh(9, shape=SMALL, grade="minor")
    one = make_thigh(9, shape=SMALL, grade="minor", legs=side)
    assert set(one.legs) == {side}
    assert one.fat_shares[side] == both.fat_shares[side]
    names = {label.side for label in one.labels.label_set if (one.labels.voxels == label.id).any()}
    assert names == {side}
    rows = [row for row in both.truth() if row.side == side and row.name in ("femur", "marrow")]
    for row, same in zip(rows, [r for r in one.truth() if r.name in ("femur", "marrow")], strict=True):
        assert row.area_mm2 == pytest.approx(same.area_mm2)


def test_the_gap_between_the_legs() -> None:
    def gap(mm: float) -> float:
        phantom = make_thigh(2, shape=(24, 80, 320), spacing=(8, 4, 1.2), gap_mm=mm, supersampling=(1, 1, 1))
        seen = np.flatnonzero((phantom.anatomy.structure > 0).any(axis=(0, 1)))
        middle = np.diff(seen).max()
        return float((middle - 1) * 1.2)

    assert gap(20) == pytest.approx(20, abs=3)
    assert gap(0) < 3
    pressed = make_thigh(2, shape=(24, 80, 320), spacing=(8, 4, 1.2), gap_mm=-10, supersampling=(1, 1, 1))
    assert (pressed.anatomy.structure[:, :, 159:161] > 0).any()


def test_everybody_fits_the_picture() -> None:
    for seed in range(6):
        for legs in ("both", "left"):
            structure = make_thigh(seed, shape=(3, 48, 48), legs=legs, fat_mm=24).anatomy.structure
            assert not structure[:, [0, -1]].any()
            assert not structure[:, :, [0, -1]].any()


def test_references(phantom: Phantom) -> None:
    muscle = phantom.reference("muscle")
    assert np.array_equal(muscle.voxels > 0, phantom.anatomy.is_muscle)
    compartment = phantom.reference("compartment")
    assert (compartment.voxels[muscle.voxels > 0] == 1).all()
    assert phantom.reference("thigh-4-sided").label_set.is_sided
    assert phantom.reference().label_set.name == "thigh-full-sided"
    assert set(np.unique(phantom.reference("tissue").voxels)) == {0, 1, 2, 3, 4, 5}
    with pytest.raises(LabelError, match="ask for 'tissue'"):
        phantom.reference("tissue-sided")
    with pytest.raises(LabelError, match="no map from"):
        phantom.reference("qmritools")
    with pytest.raises(UnknownNameError, match="unknown label set"):
        phantom.reference("thigh-5")


def test_fat_of_a_given_thickness() -> None:
    thin, thick = (make_thigh(3, shape=(2, 64, 64), fat_mm=mm).truth() for mm in (5, 25))
    area = {row.name: row.area_mm2.mean() for row in thick if row.side == "right"}
    less = {row.name: row.area_mm2.mean() for row in thin if row.side == "right"}
    assert area["subcutaneous fat"] > 3 * less["subcutaneous fat"]
    assert area["inside the fascia"] == pytest.approx(less["inside the fascia"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"legs": "none"}, "legs is one of both, left, right, not 'none'"),
        ({"grade": "fatal"}, "grade is one of healthy, minor, moderate, severe, not 'fatal'"),
        ({"fat_mm": 100}, "subcutaneous fat is 2 to 60 mm thick, not 100"),
        ({"asymmetry": -1}, "asymmetry is not negative"),
        ({"thickness_mm": 0}, "must be positive"),
    ],
)
def test_bad_parameters(wrong: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_thigh(0, shape=(1, 16, 16), **wrong)


def test_a_negative_seed() -> None:
    with pytest.raises(ParameterError, match="a seed is 0 or more, not -1"):
        make_thigh(-1, shape=(1, 16, 16))
