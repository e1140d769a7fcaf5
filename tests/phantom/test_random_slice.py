"""Slices drawn by chance from planes of muscles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.errors import GeometryError, InputError, ParameterError
from musclekit.labels import label_set
from musclekit.phantom import MUSCLES, LegPlanes, ShapeRange, SliceRange, Structure, draw_slice, leg_planes, make_thigh
from musclekit.phantom.completion import femur_room
from musclekit.phantom.other_regions import other_region
from musclekit.phantom.random_contrast import LEAST_CONTRAST, LEAST_MASS, _apart, _cancelled, draw_appearance, painted
from musclekit.phantom.random_shape import moved_plane, smooth_plane, wasted_plane
from musclekit.phantom.random_slice import _acquired, _averaged, _beyond_edge, _mirror_beside, _to_the_middle
from musclekit.phantom.random_surroundings import _pulled, grow_mass, lay_scrotum, packed_plane, surrounded

CONTEXT = label_set("thigh-context")
STILL = ShapeRange(rotation_deg=0, size=1, aspect=0, shear=0, sway_mm=0, shift_mm=0, waste=0, swell=0, change_mm=0)


@pytest.fixture(scope="module")
def legs() -> tuple[LegPlanes, ...]:
    return leg_planes(make_thigh(2, shape=(6, 160, 160)).labels, "p")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_slice_is_one(legs: tuple[LegPlanes, ...], seed: int) -> None:
    found = draw_slice(legs, np.random.default_rng(seed), SliceRange(size=64, spacing_mm=3.0, fine=3))
    assert found.image.shape == found.classes.shape == (64, 64)
    assert found.image.dtype == np.float32
    assert np.isfinite(found.image).all()
    assert found.image.min() >= -1
    assert found.image.max() <= 1
    assert set(np.unique(found.classes)) <= {0, *CONTEXT.ids}


@pytest.mark.parametrize("fine", [1, 2, 3, 4])
def test_classes_lie_where_the_image_shows_them(fine: int) -> None:
    # The rim of a disc is as bright on either side of its labels, whatever the number of fine pixels.
    size = 40 * fine
    at = np.arange(size) - (size - 1) / 2
    disc = np.hypot(at[:, None], at) < 12.3 * fine
    middle = slice(fine // 2, None, fine)
    image = _averaged(disc.astype(np.float32), fine)[middle, middle]
    labels = disc[middle, middle]
    rows, columns = np.indices(image.shape)
    for axis in (rows, columns):
        assert (axis * image).sum() / image.sum() == pytest.approx(axis[labels].mean(), abs=0.06)
    assert image.sum() == pytest.approx(labels.sum(), rel=0.03)


def test_the_other_leg_is_no_part_of_this_one() -> None:
    structure = np.zeros((60, 60), dtype=np.uint8)
    structure[20:40, 25:55] = 1
    for seed in range(30):
        grey, mine, inside = (structure == 1).astype(np.float32), structure.copy(), structure > 0
        _mirror_beside(grey, mine, inside, 1.0, np.random.default_rng(seed))
        kept = np.flatnonzero((mine == 1).any(axis=0))
        other = np.flatnonzero((mine == Structure.SKIN).any(axis=0))
        # No part of the leg is left beyond the other one.
        assert len(other) == 0 or other.max() < kept.min()
        assert np.array_equal(mine > 0, inside)


def test_an_edge_of_the_field_of_view_cuts_the_leg() -> None:
    leg = np.zeros((60, 60), dtype=bool)
    leg[10:50, 10:50] = True
    for seed in range(20):
        lost = np.mean(_beyond_edge(leg, np.random.default_rng(seed))[leg])
        assert 0 < lost <= 0.81
    assert not _beyond_edge(np.zeros((5, 5), dtype=bool), np.random.default_rng(0)).any()


def test_of_a_leg_that_is_cut_enough_is_left(legs: tuple[LegPlanes, ...]) -> None:
    rng = np.random.default_rng(6)
    how = SliceRange(other_region=0, neighbour=0, cropped=1)
    seen = [np.count_nonzero(draw_slice(legs, rng, how).classes) for _ in range(60)]
    assert min(seen) > 100
    assert np.quantile(seen, 0.2) < 0.7 * np.quantile(seen, 0.9)


def test_high_in_a_thigh_a_gluteus_lies_behind(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[0].planes[-3], 1.0, 240, np.random.default_rng(0), STILL)
    front = np.argwhere(plane > 0)[:, 0].mean()

    def behind(height: float) -> float:
        drawn = [surrounded(plane, 1.0, height, 1.0, np.random.default_rng(seed)) for seed in range(30)]
        areas = [np.count_nonzero((one == Structure.OTHER_MUSCLE)[: int(front)]) for one in drawn]
        return float(np.mean(np.array(areas) > 400))

    assert behind(0.95) > 0.8
    assert behind(0.3) < 0.5


def test_a_mass_can_be_told_from_muscle() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        look = draw_appearance(rng)
        assert abs(_apart(look.muscle, rng) - look.muscle) >= LEAST_MASS


def test_the_same_seed_draws_the_same_slice(legs: tuple[LegPlanes, ...]) -> None:
    one, same, other = (draw_slice(legs, np.random.default_rng(seed), SliceRange()) for seed in (5, 5, 6))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.classes, same.classes)
    assert not np.array_equal(one.image, other.image)


def test_most_slices_show_most_muscles(legs: tuple[LegPlanes, ...]) -> None:
    rng = np.random.default_rng(1)
    how = SliceRange(other_region=0, cropped=0)
    shown = [len(set(np.unique(draw_slice(legs, rng, how).classes)) & set(range(1, 12))) for _ in range(40)]
    assert np.median(shown) >= 9


def test_contrasts_are_of_every_kind(legs: tuple[LegPlanes, ...]) -> None:
    rng = np.random.default_rng(2)
    how = SliceRange(other_region=0, cropped=0, mass=0)
    brighter = []
    for _ in range(60):
        found = draw_slice(legs, rng, how)
        muscle, fat = ((found.classes >= 1) & (found.classes <= 11), found.classes == 14)
        if fat.sum() > 50:
            brighter.append(found.image[fat].mean() > found.image[muscle].mean())
    assert 0.2 < np.mean(brighter) < 0.9


def test_a_plane_that_is_not_moved_stays(legs: tuple[LegPlanes, ...]) -> None:
    plane = legs[0].planes[3]
    moved = moved_plane(plane, 1.0, 240, np.random.default_rng(0), STILL)
    for n in range(1, 12):
        assert np.sum(moved == n) == pytest.approx(np.sum(plane == n), rel=0.02, abs=12)
    assert np.allclose(np.argwhere(moved > 0).mean(axis=0), 119.5, atol=1)
    assert np.array_equal(wasted_plane(plane, 1.0, np.random.default_rng(3), STILL) > 0, plane > 0)


def test_size_changes_areas_as_it_says(legs: tuple[LegPlanes, ...]) -> None:
    plane = legs[0].planes[3]
    how = ShapeRange(**{**STILL.__dict__, "size": 1.3})
    ratios = [
        np.sum(moved_plane(plane, 1.0, 240, np.random.default_rng(seed), how) > 0) / np.sum(plane > 0)
        for seed in range(30)
    ]
    assert min(ratios) > 1.3**-2 * 0.97
    assert max(ratios) < 1.3**2 * 1.03
    assert np.std(ratios) > 0.1


def test_a_wasted_muscle_leaves_fat_and_a_swollen_one_takes_no_other(legs: tuple[LegPlanes, ...]) -> None:
    plane = legs[1].planes[2]
    wasted = wasted_plane(plane, 1.0, np.random.default_rng(4), ShapeRange(waste=1, swell=0))
    lost = (plane > 0) & (wasted != plane)
    assert lost.any()
    assert np.all(wasted[lost] == 0)
    assert set(np.unique(wasted)) == set(np.unique(plane))
    swollen = wasted_plane(plane, 1.0, np.random.default_rng(7), ShapeRange(waste=0, swell=1))
    grown = (swollen > 0) & (plane == 0)
    assert grown.any()
    assert np.all((swollen == plane) | (swollen == 0) | (plane == 0))


def test_packed_muscles_fill_clefts_and_leave_room_for_the_femur(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[1].planes[3], 1.0, 240, np.random.default_rng(0), STILL)
    room = femur_room(plane, 1.0, 1.0)
    assert room is not None
    column, row, radius = (int(value) for value in room)
    for seed in range(5):
        packed = packed_plane(plane, 1.0, np.random.default_rng(seed))
        assert np.sum((packed > 0) & (plane == 0)) > 100
        # What a muscle has it keeps, but for the septa.
        assert np.all((packed == plane) | (packed == 0) | (plane == 0))
        assert np.mean(packed[plane > 0] == 0) < 0.08
        assert not packed[row - radius // 2 : row + radius // 2, column - radius // 2 : column + radius // 2].any()


def test_muscles_keep_their_place_in_a_whole_leg(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[1].planes[3], 1.0, 240, np.random.default_rng(0), STILL)
    for seed in range(5):
        whole = surrounded(plane, 1.0, 0.4, 1.0, np.random.default_rng(seed))
        muscle = plane > 0
        assert np.array_equal(whole[muscle], plane[muscle])
        assert {Structure.CORTEX, Structure.MARROW, Structure.SUBCUTANEOUS, Structure.SKIN} <= set(np.unique(whole))


def test_the_hip_and_the_knee_have_other_muscles(legs: tuple[LegPlanes, ...]) -> None:
    plane = np.where(np.isin(legs[1].planes[5], (1, 2)), legs[1].planes[5], 0).astype(np.uint8)
    plane = moved_plane(plane, 1.0, 240, np.random.default_rng(0), STILL)
    other = [np.sum(surrounded(plane, 1.0, 0.95, 0.1, np.random.default_rng(seed)) == Structure.OTHER_MUSCLE)
             for seed in range(10)]  # fmt: skip
    assert np.median(other) > 2 * np.sum(plane > 0)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_what_is_no_thigh_shows_no_muscle_and_no_bone_of_one(seed: int) -> None:
    limb = other_region(200, 1.0, np.random.default_rng(seed))
    assert not np.isin(limb, [*range(1, len(MUSCLES) + 1), Structure.CORTEX, Structure.MARROW]).any()
    assert (limb == Structure.SKIN).any()
    assert np.isin(limb, (Structure.OTHER_MARROW, Structure.OTHER_MUSCLE)).sum() > 100


def test_what_a_field_of_view_leaves_stands_in_the_middle() -> None:
    inside = np.zeros((60, 60), dtype=bool)
    inside[2:12, 30:59] = True
    moved = np.roll(inside, _to_the_middle(inside), (0, 1))
    assert np.allclose(np.argwhere(moved).mean(axis=0), 29.5, atol=1)
    assert _to_the_middle(np.zeros((60, 60), dtype=bool)) == (0, 0)


def test_a_mass_takes_room_or_pushes_aside(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[1].planes[3], 1.0, 240, np.random.default_rng(0), STILL)
    whole = surrounded(plane, 1.0, 0.4, 1.0, np.random.default_rng(0))
    sizes, pushed = [], 0
    for seed in range(40):
        grown = whole.copy()
        grow_mass(grown, 1.0, np.random.default_rng(seed))
        mass = grown == Structure.MASS
        sizes.append(2 * np.sqrt(mass.sum() / np.pi))
        changed = grown != whole
        if np.array_equal(changed, mass):
            assert not np.isin(whole[mass], (Structure.AIR, Structure.CORTEX, Structure.MARROW)).any()
        else:
            pushed += 1
            # The leg is larger by what the mass needs, at most.
            assert np.sum(whole > 0) - 60 <= np.sum(grown > 0) <= np.sum(whole > 0) + 1.4 * mass.sum() + 60
    assert 10 < pushed < 30
    assert min(sizes) < 30 < 90 < max(sizes)


@given(apart=st.floats(0.01, 20), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_what_is_pushed_aside_keeps_its_order(apart: float, seed: int) -> None:
    near, far = (
        value * float(_pulled(np.array([value]), np.random.default_rng(seed))[0]) for value in (apart, apart * 1.01)
    )
    assert 0 <= near <= apart
    assert near <= far + 1e-9


def test_a_scrotum_is_no_part_of_the_leg(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[1].planes[3], 1.0, 240, np.random.default_rng(0), STILL)
    whole = surrounded(plane, 1.0, 0.9, 1.0, np.random.default_rng(0))
    middle = np.argwhere(whole > 0).mean(axis=0)
    for seed in range(20):
        grey, structure = np.zeros(whole.shape, dtype=np.float32), whole.copy()
        lay_scrotum(grey, structure, 1.0, np.random.default_rng(seed))
        new = structure != whole
        assert np.all(structure[new] == Structure.SKIN)
        assert np.all(whole[new] == Structure.AIR)
        assert np.array_equal(grey != 0, new)
        assert new.sum() > 300
        front, out = np.argwhere(new).mean(axis=0) - middle
        assert out < 0
        assert front > -20
    nothing = np.zeros((20, 20), dtype=np.uint8)
    lay_scrotum(np.zeros((20, 20), dtype=np.float32), nothing, 1.0, np.random.default_rng(0))
    assert not nothing.any()


def test_the_noise_of_counts_grows_with_the_signal() -> None:
    dark, bright = [], []
    how = SliceRange(noise=0.2, bias=0, streaks=0, metal=0)
    plane = np.full((64, 64), 0.1, dtype=np.float32)
    plane[:, 32:] = 1.0
    seen = np.ones(plane.shape, dtype=bool)
    for seed in range(60):
        found = _acquired(plane, seen, np.random.default_rng(seed), how)
        dark.append(found[:, :30].std())
        bright.append(found[:, 34:].std())
    louder = np.array(bright) > 1.4 * np.array(dark)
    # Of Gaussian noise both have the same, of Rician noise nearly.
    assert 2 <= louder.sum() <= 25


def test_fat_and_muscle_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        look = draw_appearance(rng)
        assert abs(look.subcutaneous_fat - look.muscle) >= LEAST_CONTRAST


def test_infiltration_goes_from_none_to_complete(legs: tuple[LegPlanes, ...]) -> None:
    plane = moved_plane(legs[1].planes[3], 1.0, 240, np.random.default_rng(0), STILL)
    whole = surrounded(plane, 1.0, 0.4, 1.0, np.random.default_rng(0))
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        look = draw_appearance(rng)
        grey = painted(whole, 1.0, look, rng)
        lateral = grey[whole == MUSCLES.index("vastus lateralis") + 1].mean()
        shares.append((lateral - look.muscle) / (look.infiltrating_fat - look.muscle))
    assert np.quantile(shares, 0.2) < 0.1
    assert np.quantile(shares, 0.95) > 0.5


def test_out_of_phase_fat_and_water_cancel_where_they_meet() -> None:
    structure = np.full((40, 40), Structure.CLEFT, dtype=np.uint8)
    structure[:, 20:] = 1
    fat = np.where(structure == Structure.CLEFT, 1.0, 0.0).astype(np.float32)
    lost = _cancelled(fat, structure, 1.0)
    assert lost[20, 19:21].min() > 0.4
    assert lost[20, [3, 36]].max() < 0.01
    assert _cancelled(np.full_like(fat, 0.5), structure, 1.0).min() > 0.99


def test_smooth_noise_is_smooth_and_of_one_scale() -> None:
    for scale in (0.0, 0.8, 5.0, 20.0):
        noise = smooth_plane(np.random.default_rng(3), (200, 180), scale)
        assert noise.shape == (200, 180)
        assert noise.std() == pytest.approx(1, abs=1e-3)
        step = np.abs(np.diff(noise, axis=0)).mean()
        assert step < 1.2 / max(scale, 1)


def test_what_cannot_be_drawn_is_refused(legs: tuple[LegPlanes, ...]) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="there is no leg to draw a slice of"):
        draw_slice((), rng, SliceRange())
    with pytest.raises(GeometryError, match=r"the leg has pixels of 1 mm, slices are painted in 0\.5 mm"):
        draw_slice(legs, rng, SliceRange(spacing_mm=1.0))
    for name, value in (("size", 4), ("mass", 1.5), ("noise", -0.1)):
        with pytest.raises(ParameterError, match=name):
            SliceRange(**{name: value})
    for name, value in (("size", 0.5), ("sway_scale_mm", 0), ("waste", 2)):
        with pytest.raises(ParameterError, match=name):
            ShapeRange(**{name: value})
