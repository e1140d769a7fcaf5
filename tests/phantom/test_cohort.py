"""Cases and cohorts."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.errors import ParameterError
from musclekit.image import Contrast
from musclekit.phantom import GENERATOR_VERSION, make_case, make_cohort

TINY = (2, 48, 48)


def test_a_case() -> None:
    case = make_case(3, shape=TINY, grade="severe", contrasts=(Contrast.T1W, Contrast.CT))
    assert set(case.images) == {Contrast.T1W, Contrast.CT}
    assert case.reference is not None
    assert case.reference.label_set.name == "thigh-full-sided"
    assert case.domain == case.images[Contrast.CT].domain == "hard"
    assert case.side is None
    assert dict(case.meta) == {"grade": "severe", "seed": 3, "generator_version": GENERATOR_VERSION}


def test_a_single_leg_states_its_side() -> None:
    case = make_case(3, shape=TINY, legs="left", reference="muscle")
    assert case.side == "left"
    assert case.reference is not None
    assert case.reference.label_set.name == "muscle"
    unsided = make_case(3, shape=TINY, legs="left").reference
    assert unsided is not None
    assert unsided.label_set.name == "thigh-full"


def test_a_cohort() -> None:
    cases = list(make_cohort(3, modalities=("mr", "dixon"), grades=("healthy", "severe"), shape=TINY, seed=5))
    assert [case.id for case in cases] == [f"sub-0{n}_{m}" for n in (1, 2, 3) for m in ("mr", "dixon")]
    assert [case.domain for case in cases] == ["easy", "easy", "hard", "hard", "easy", "easy"]
    assert set(cases[1].images) == {Contrast.FAT, Contrast.WATER}
    one, two = cases[0].reference, cases[1].reference
    assert one is not None
    assert two is not None
    assert np.array_equal(one.voxels, two.voxels), "one person, one anatomy"
    third = cases[4].reference
    assert third is not None
    assert not np.array_equal(one.voxels, third.voxels)


def test_names_begin_as_one_says() -> None:
    first, second = (next(make_cohort(1, shape=(1, 32, 32), prefix=prefix)) for prefix in ("sub", "learn"))
    assert (second.id, second.subject) == ("learn-01_mr", "learn-01")
    assert np.array_equal(first.image.voxels, second.image.voxels)


def test_a_larger_cohort_begins_with_the_smaller() -> None:
    few = [case.image.voxels for case in make_cohort(2, shape=TINY, seed=1)]
    more = [case.image.voxels for case in make_cohort(3, shape=TINY, seed=1)]
    assert all(np.array_equal(a, b) for a, b in zip(few, more, strict=False))
    other = next(make_cohort(1, shape=TINY, seed=2)).image.voxels
    assert not np.array_equal(few[0], other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subjects": 0}, "at least one subject, not 0"),
        ({"modalities": ("pet",)}, "modality is one of mr, ct, dixon, not 'pet'"),
        ({"modalities": ()}, "needs at least one modality"),
        ({"grades": ("bad",)}, "grade is one of healthy, minor, moderate, severe, not 'bad'"),
        ({"prefix": "a b"}, "a prefix has letters and digits and nothing else, not 'a b'"),
    ],
)
def test_bad_cohorts(wrong: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_cohort(**({"subjects": 1} | wrong))
