"""Closed forms against brute force, and the limits of what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from musclekit.errors import ParameterError
from musclekit.phantom import GRADES, MUSCLES, draw_leg, vary_leg
from musclekit.phantom.shape import LEVELS, star_area, star_radius


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_area_of_a_fourier_outline_is_that_of_its_polygon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = (rng.normal(size=(1, 6)) + 1j * rng.normal(size=(1, 6))) * 2
    series[0, 0] = 50.0
    theta = np.linspace(0, 2 * np.pi, 4001)[:-1]
    radius = star_radius(series, theta)[0]
    x, y = radius * np.cos(theta), radius * np.sin(theta)
    polygon = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    assert star_area(series)[0] == pytest.approx(polygon, rel=1e-5)


def test_the_area_of_a_circle() -> None:
    series = np.zeros((1, 6), dtype=complex)
    series[0, 0] = 10
    assert star_area(series)[0] == pytest.approx(np.pi * 100)
    assert star_radius(series, np.array([0.3]))[0, 0] == pytest.approx(10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(GRADES))
@example(316, "healthy")
def test_every_thigh_is_one(seed: int, grade: str) -> None:
    leg = draw_leg(np.random.default_rng(seed), grade)
    theta = np.linspace(0, 2 * np.pi, 360)
    fat = star_radius(leg.fat, theta)
    assert fat.min() > leg.skin, "there is fat under the skin everywhere"
    compartment = star_radius(leg.outline, theta)
    assert 25 < compartment.min() < compartment.max() < 120
    u, v, a, b = leg.femur.T
    farthest = np.hypot(u, v) + np.maximum(a, b) + leg.fascia
    assert (farthest < compartment.min(axis=1)).all(), "the femur lies inside the fascia"
    assert (leg.cortex < np.minimum(a, b)).all()
    assert {MUSCLES[m] for m in leg.muscle_of_part} == set(MUSCLES)


def test_the_same_state_draws_the_same_thigh() -> None:
    one, two = (draw_leg(np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one.muscles, two.muscles)
    assert np.array_equal(one.outline, two.outline)
    other = draw_leg(np.random.default_rng(6))
    assert not np.array_equal(one.outline, other.outline)


def test_a_leg_between_two_levels_lies_between_them() -> None:
    leg = draw_leg(np.random.default_rng(2))
    profile = leg.at(np.array([0.4, 0.45, 0.5]))
    areas = profile.areas()["leg"]
    assert min(areas[0], areas[2]) <= areas[1] <= max(areas[0], areas[2])
    assert profile.femur[0] == pytest.approx(leg.femur[4])
    beyond = leg.at(np.array([-3.0, 0.0]))
    assert np.array_equal(beyond.outline[0], beyond.outline[1])


def test_areas_add_up() -> None:
    areas = draw_leg(np.random.default_rng(3), "severe").at(LEVELS).areas()
    assert areas["leg"] == pytest.approx(areas["skin"] + areas["subcutaneous fat"] + areas["inside the fascia"])
    assert areas["femur"] == pytest.approx(areas["cortical bone"] + areas["marrow"])


def test_anatomical_order() -> None:
    """Sartorius crosses from the front to the inner side; adductors end above, the short head begins below."""
    leg = draw_leg(np.random.default_rng(0))
    part = {name: [p for p, m in enumerate(leg.muscle_of_part) if MUSCLES[m] == name] for name in MUSCLES}

    def centre(name: str, level: int) -> np.ndarray:
        return leg.muscles[part[name], level, :2].mean(axis=0)

    def extent(name: str, level: int) -> float:
        return float(leg.muscles[part[name], level, 5].max())

    assert centre("sartorius", 9)[1] > centre("sartorius", 5)[1] > centre("sartorius", 0)[1]
    assert centre("sartorius", 9)[0] > centre("sartorius", 0)[0]
    assert centre("rectus femoris", 6)[1] > centre("vastus intermedius", 6)[1] > centre("semitendinosus", 6)[1]
    assert centre("gracilis", 5)[0] < centre("adductor magnus", 5)[0] < centre("vastus lateralis", 5)[0]
    assert centre("semimembranosus", 4)[0] < centre("semitendinosus", 4)[0] < centre("biceps femoris long head", 4)[0]
    assert extent("adductor magnus", 0) == 0
    assert extent("adductor magnus", 5) == 1
    assert extent("biceps femoris short head", 1) == 1
    assert extent("biceps femoris short head", 9) == 0


def test_the_other_leg() -> None:
    leg = draw_leg(np.random.default_rng(1))
    assert vary_leg(leg, np.random.default_rng(2), 0) is leg
    other = vary_leg(leg, np.random.default_rng(2), 0.03)
    ratio = other.at(LEVELS).areas()["leg"] / leg.at(LEVELS).areas()["leg"]
    assert (np.abs(ratio - 1) < 0.2).all()
    assert (ratio != 1).all()


def test_bad_parameters() -> None:
    with pytest.raises(ParameterError, match="grade is one of healthy, minor, moderate, severe, not 'awful'"):
        draw_leg(np.random.default_rng(0), "awful")
    with pytest.raises(ParameterError, match="subcutaneous fat is 2 to 60 mm thick"):
        draw_leg(np.random.default_rng(0), fat_mm=0.5)
