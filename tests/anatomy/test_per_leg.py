from __future__ import annotations

import numpy as np
import pytest

from musclekit.anatomy import Leg, body_mask, crop_frame, label_sides, leg_frame, leg_image, per_leg, split_legs
from musclekit.errors import GeometryError, InputError, LabelError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set

MUSCLES = label_set("thigh-4")
SHAPE = (120, 240)


def disk(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def two_legs(gap: float = 20, value: float = 50) -> Image:
    """Left leg at small columns; in each a bright spot on the outer side."""
    plane = np.where(disk(60, 110 - gap / 2 - 40, 45) | disk(60, 130 + gap / 2 + 40, 45), value, -1000.0)
    plane[disk(60, 40, 6) | disk(60, 200, 6)] = 250
    voxels = np.repeat(plane[None], 3, axis=0)
    return Image(voxels, Grid.from_spacing(voxels.shape, (3, 1, 1)), Contrast.CT)


def spots(image: Image) -> LabelMap:
    return LabelMap((image.voxels > 200).astype(int), image.grid, MUSCLES)


def test_labels_come_back_to_where_they_were() -> None:
    image = two_legs()
    labels = per_leg(image, spots)
    assert labels.grid.same_as(image.grid)
    np.testing.assert_array_equal(labels.voxels > 0, image.voxels > 200)
    windowed = per_leg(image, spots, size=(112, 112), mirror_to="right")
    np.testing.assert_array_equal(windowed.voxels, labels.voxels)


def test_each_leg_is_seen_alone_and_looks_like_a_right_one() -> None:
    seen: list[Image] = []

    def look(leg: Image) -> LabelMap:
        seen.append(leg)
        return spots(leg)

    image = two_legs(gap=-2)
    per_leg(image, look, size=(112, 112), mirror_to="right")
    assert [leg.grid.shape for leg in seen] == [(3, 112, 112)] * 2
    for leg in seen:
        # Outside there is nothing but -1000, in the padding too; the outer spot lies where x is large.
        assert (leg.voxels[:, 0] == -1000).all()
        assert leg.grid.direction[0, 2] > 0
        assert (np.argwhere(leg.voxels > 200)[:, 2] > 56).all()


def test_only_the_slices_of_the_leg_are_shown() -> None:
    image = two_legs()
    voxels = image.voxels.copy()
    voxels[0] = -1000
    seen: list[tuple[int, int, int]] = []

    def look(leg: Image) -> LabelMap:
        seen.append(leg.grid.shape)
        return spots(leg)

    labels = per_leg(image.with_voxels(voxels), look)
    assert {shape[0] for shape in seen} == {2}
    assert not labels.voxels[0].any()


def test_mr_is_blanked_with_zero() -> None:
    image = two_legs()
    mr = image.with_voxels(np.clip(image.voxels, 0, None), Contrast.T1W)
    right, left = split_legs(mr, body_mask(mr))
    alone = leg_image(mr, left, crop_frame(mr.grid, (0, 0, 0), mr.grid.shape))
    assert not alone.voxels[right.mask].any()
    np.testing.assert_array_equal(alone.voxels[left.mask], mr.voxels[left.mask])


def test_a_thigh_larger_than_the_window_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"the right thigh is larger than the window: .* 9\d x 9\d of 90 x 128"):
        per_leg(two_legs(), spots, size=(90, 128))


def test_a_leg_of_unknown_side_is_not_mirrored() -> None:
    image = two_legs()
    single = image.with_voxels(np.where(np.arange(SHAPE[1]) < 120, image.voxels, -1000))
    with pytest.raises(InputError, match="leg of unknown side look like a right one"):
        per_leg(single, spots, mirror_to="right")
    labels = per_leg(single, spots, mirror_to="right", side="left")
    np.testing.assert_array_equal(labels.voxels > 0, single.voxels > 200)


def test_labels_of_another_grid_or_set_are_refused() -> None:
    image = two_legs()
    with pytest.raises(GeometryError, match="does not lie on the frame's grid"):
        per_leg(image, lambda leg: spots(image))
    answers = iter(("thigh-4", "thigh-10"))
    with pytest.raises(LabelError, match=r"labelled as 'thigh-4', the other as 'thigh-10'"):
        per_leg(image, lambda leg: LabelMap(spots(leg).voxels, leg.grid, label_set(next(answers))))


def test_sides_are_given_by_the_legs() -> None:
    image = two_legs()
    labels = spots(image)
    stray = labels.voxels.copy()
    stray[:, 0, 5] = 2
    sided = label_sides(labels.with_voxels(stray), split_legs(image, body_mask(image)))
    names = {sided.label_set[int(i)].full_name for i in np.unique(sided.voxels[..., :120]) if i}
    assert names == {"gracilis left", "hamstrings left"}
    assert {sided.label_set[int(i)].full_name for i in np.unique(sided.voxels[..., 120:]) if i} == {"gracilis right"}
    assert label_sides(sided, ()) is sided


def test_sides_that_are_not_known_are_not_guessed() -> None:
    image = two_legs()
    everything = np.ones(image.grid.shape, dtype=bool)
    labels = spots(image)
    for legs in ((), (Leg(None, everything),)):
        with pytest.raises(LabelError, match="the side of a leg is not known"):
            label_sides(labels, legs)
    with pytest.raises(LabelError, match="two legs are left"):
        label_sides(labels, (Leg("left", everything), Leg("left", everything)))
    with pytest.raises(GeometryError, match="a leg mask has shape"):
        label_sides(labels, (Leg("left", everything), Leg("right", everything[1:])))
    only = label_sides(labels, (Leg("left", everything),))
    assert {only.label_set[int(i)].side for i in np.unique(only.voxels) if i} == {"left"}


def test_an_empty_leg_has_no_window() -> None:
    grid = Grid.from_spacing((2, 10, 10), (1, 1, 1))
    with pytest.raises(InputError, match="the mask of the leg is empty"):
        leg_frame(Leg("left", np.zeros(grid.shape, dtype=bool)), grid)
    with pytest.raises(GeometryError, match="the leg mask has shape"):
        leg_frame(Leg("left", np.ones((1, 2, 2), dtype=bool)), grid)
