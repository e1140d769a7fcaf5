"""Label maps taken apart into planes of single legs."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.errors import GeometryError, LabelError, ParameterError
from musclekit.image import Grid, LabelMap
from musclekit.labels import label_set
from musclekit.phantom import MUSCLES, leg_planes, make_thigh


@pytest.fixture(scope="module")
def labels() -> LabelMap:
    return make_thigh(2, shape=(6, 160, 160)).labels


def test_both_legs_look_like_right_ones(labels: LabelMap) -> None:
    left, right = leg_planes(labels, "p1")
    assert left.subject == right.subject == "p1"
    for leg in (left, right):
        # Vastus lateralis lies on the outer side, gracilis on the inner one.
        outer = np.argwhere(leg.planes == MUSCLES.index("vastus lateralis") + 1)[:, 2].mean()
        inner = np.argwhere(leg.planes == MUSCLES.index("gracilis") + 1)[:, 2].mean()
        assert inner < outer


def test_areas_stay(labels: LabelMap) -> None:
    pixel = labels.grid.spacing[1] * labels.grid.spacing[2]
    for leg, side in zip(leg_planes(labels, "p", spacing_mm=1.0), ("left", "right"), strict=True):
        for name in ("vastus lateralis", "adductor magnus", "sartorius"):
            ids = labels.label_set.ids_of(name, side)
            given = np.isin(labels.voxels, ids).sum() * pixel
            found = np.sum(leg.planes == MUSCLES.index(name) + 1) * leg.spacing_mm**2
            # Of a thin muscle pixels of 2.5 mm leave that much open.
            assert found == pytest.approx(given, rel=0.08)


def test_heights_rise_and_fullness_is_a_share(labels: LabelMap) -> None:
    for leg in leg_planes(labels, "p"):
        assert leg.heights[0] == 0
        assert leg.heights[-1] == 1
        assert np.all(np.diff(leg.heights) > 0)
        assert np.median(leg.fullness) == pytest.approx(1, abs=0.3)
        assert len(leg.planes) == len(leg.heights) == len(leg.fullness)


def test_planes_without_muscle_are_left_out(labels: LabelMap) -> None:
    voxels = labels.voxels.copy()
    voxels[:2] = 0
    full = leg_planes(labels, "p")[0]
    assert len(leg_planes(labels.with_voxels(voxels), "p")[0].planes) == len(full.planes) - 2


def test_what_cannot_be_taken_apart_is_refused(labels: LabelMap) -> None:
    grid = Grid.from_spacing((1, 9, 9), (5, 1, 1))
    with pytest.raises(ParameterError, match="spacing_mm"):
        leg_planes(labels, "p", spacing_mm=0)
    with pytest.raises(LabelError, match="there is no muscle in the label map"):
        leg_planes(labels.with_voxels(np.zeros_like(labels.voxels)), "p")
    with pytest.raises(LabelError, match="no map from 'tissue' to 'thigh-11'"):
        leg_planes(
            LabelMap(np.ones((1, 4, 4), dtype=np.uint8), Grid.from_spacing((1, 4, 4), (5, 1, 1)), label_set("tissue")),
            "p",
        )
    speck = np.zeros((1, 9, 9), dtype=np.uint8)
    speck[0, 4, 4] = 1
    with pytest.raises(LabelError, match="no plane of the label map shows 150 mm2 of muscle"):
        leg_planes(LabelMap(speck, grid, label_set("thigh-11")), "p", side="right")
    turned = Grid((1, 9, 9), grid.affine @ np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(GeometryError, match="planes of the label map must grow upwards, its rows to the front"):
        leg_planes(LabelMap(speck, turned, label_set("thigh-11")), "p")


def test_one_leg_has_to_have_its_side(labels: LabelMap) -> None:
    full = label_set("thigh-full")
    right = np.zeros(labels.grid.shape, dtype=np.uint8)
    for label in full:
        right[np.isin(labels.voxels, labels.label_set.ids_of(label.name, "right"))] = label.id
    alone = LabelMap(right, labels.grid, full)
    with pytest.raises(LabelError, match=r"shows one leg, or two that overlap, .* state the side"):
        leg_planes(alone, "p")
    (leg,) = leg_planes(alone, "p", side="right")
    assert np.array_equal(leg.planes, leg_planes(labels, "p")[1].planes)


def test_legs_that_overlap_keep_their_muscles_where_sides_are_known(labels: LabelMap) -> None:
    left, right = leg_planes(labels, "p")
    sides = labels.label_set
    is_left = np.isin(labels.voxels, [label.id for label in sides if label.side == "left"])
    shifted = np.where(is_left, 0, labels.voxels)
    moved = np.zeros_like(shifted)
    moved[:, :, 20:] = np.where(is_left, labels.voxels, 0)[:, :, :-20]
    both = labels.with_voxels(np.where(shifted > 0, shifted, moved))
    again = leg_planes(both, "p")
    assert np.array_equal(again[1].planes, right.planes)
    assert np.sum(again[0].planes > 0) > 0.7 * np.sum(left.planes > 0)


def test_planes_that_smoothing_empties_are_left_out() -> None:
    speckled = np.zeros((2, 60, 60), dtype=np.uint8)
    speckled[0, ::3, ::3] = 1
    speckled[1, 20:40, 20:40] = 1
    labels = LabelMap(speckled, Grid.from_spacing((2, 60, 60), (5, 1, 1)), label_set("thigh-11"))
    (leg,) = leg_planes(labels, "p", side="right")
    assert len(leg.planes) == 1
