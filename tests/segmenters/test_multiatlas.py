"""Muscles by a vote of annotated thighs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musclekit.errors import InputError, LabelError, NotFittedError, ParameterError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.labels import SIDES, label_set
from musclekit.memory import Memory, remembering
from musclekit.metrics import dice
from musclekit.phantom import make_case
from musclekit.segmenters.multiatlas import MultiAtlasSegmenter
from musclekit.testing import example_cases


def thigh(seed: int, side: str = "right", *, grade: str = "healthy", legs: str | None = None) -> Case:
    return make_case(
        seed,
        contrasts=(Contrast.T1W,),
        grade=grade,  # type: ignore[arg-type]
        legs=legs or side,  # type: ignore[arg-type]
        shape=(3, 112, 112) if legs is None else (3, 112, 224),
        spacing=(60, 2, 2),
        reference="thigh-11",
        id=f"{seed}-{side}",
        subject=f"person {seed}",
    )


@pytest.fixture(scope="module")
def people() -> list[Case]:
    return [thigh(61), thigh(62, "left"), thigh(63), thigh(64, "left", grade="minor")]


def muscles(found: LabelMap, case: Case) -> float:
    assert case.reference is not None
    names = case.reference.label_set.names
    return float(np.nanmean([dice(found.mask(name), case.reference.mask(name)) for name in names]))


def test_a_thigh_that_is_its_own_atlas_is_found_again(people: list[Case]):
    with pytest.warns(UserWarning, match="multiatlas: this image stands in the atlas"):
        found = MultiAtlasSegmenter().fit(people[:1]).segment(people[0].image)
    assert muscles(found, people[0]) > 0.95


def test_others_tell_the_muscles_of_a_thigh_and_left_serves_right(people: list[Case]):
    with remembering(Memory()):
        for n, case in enumerate(people):
            others = people[:n] + people[n + 1 :]
            found = MultiAtlasSegmenter().fit(others).segment(case.image)
            assert muscles(found, case) > 0.55
            assert case.reference is not None
            assert dice(found.voxels > 0, case.reference.voxels > 0) > 0.85


def test_only_the_nearest_vote(people: list[Case]):
    with remembering(Memory()):
        one = MultiAtlasSegmenter(n_atlases=1).fit(people[1:]).probabilities(people[0].image).voxels
        three = MultiAtlasSegmenter(n_atlases=3).fit(people[1:]).probabilities(people[0].image).voxels
        more = MultiAtlasSegmenter(n_atlases=9).fit(people[1:]).probabilities(people[0].image).voxels
    assert not np.allclose(one, three)
    np.testing.assert_array_equal(three, more)


def test_two_legs_are_done_one_by_one(people: list[Case]):
    both = thigh(65, "both", legs="both")
    assert both.reference is not None
    found = MultiAtlasSegmenter().fit(people).segment(both.image)
    half = both.image.grid.shape[2] // 2
    for part in (np.s_[..., :half], np.s_[..., half:]):
        assert dice(found.voxels[part] > 0, both.reference.voxels[part] > 0) > 0.8


def test_the_leg_of_the_other_side_votes_for_the_side_of_the_scan():
    one, other = (
        make_case(seed, legs="both", shape=(3, 112, 224), spacing=(60, 2, 2), reference="thigh-11-sided")
        for seed in (71, 72)
    )
    found = MultiAtlasSegmenter(labels="thigh-11-sided").fit([one]).segment(other.image)
    assert other.reference is not None
    for side in SIDES:
        mine, theirs = (
            np.isin(labels.voxels, [label.id for label in found.label_set if label.side == side])
            for labels in (found, other.reference)
        )
        assert dice(mine, theirs) > 0.85


def test_axes_that_run_the_other_way_change_nothing(people: list[Case]):
    image = people[0].image
    affine = image.grid.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (image.grid.shape[2] - 1)
    affine[:3, 2] *= -1
    turned = Image(image.voxels[..., ::-1], Grid(image.grid.shape, affine), image.contrast)
    method = MultiAtlasSegmenter().fit(people[1:3])
    straight, back = method.segment(image).voxels, method.segment(turned).voxels[..., ::-1]
    # The optimiser starts on mirrored pixels, and its steps are few.
    assert dice(straight > 0, back > 0) > 0.95


def test_a_search_registers_each_pair_once(people: list[Case]):
    with remembering(Memory()) as memory:
        for n_atlases in (2, 3):
            MultiAtlasSegmenter(n_atlases=n_atlases).fit(people[1:]).segment(people[0].image)
    assert memory.computed["musclekit.segmenters.multiatlas._splines"] == 3


def test_muscle_alone_can_be_asked_for(people: list[Case]):
    found = MultiAtlasSegmenter(labels="muscle").fit(people[1:3]).segment(people[0].image)
    assert found.label_set == label_set("muscle")
    assert people[0].reference is not None
    assert dice(found.voxels > 0, people[0].reference.voxels > 0) > 0.8


def test_it_remembers_whom_it_learnt_from(people: list[Case]):
    assert MultiAtlasSegmenter().fit(people[2:0:-1]).training_subjects_ == ("person 62", "person 63")


def test_it_refuses_what_it_cannot_learn_from(people: list[Case]):
    with pytest.raises(NotFittedError, match="call fit"):
        MultiAtlasSegmenter().segment(people[0].image)
    with pytest.raises(InputError, match="needs annotated cases"):
        MultiAtlasSegmenter().fit([])
    with pytest.raises(InputError, match="case '61-right' has no reference"):
        MultiAtlasSegmenter().fit([replace(people[0], reference=None)])
    nothing = LabelMap(np.zeros(people[0].image.grid.shape, np.uint8), people[0].image.grid, label_set("thigh-11"))
    with pytest.raises(InputError, match="no muscle is labelled"):
        MultiAtlasSegmenter().fit([replace(people[0], reference=nothing)])
    with pytest.raises(LabelError, match="thigh-11"):
        MultiAtlasSegmenter().fit(example_cases("muscle"))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("n_atlases", 0, "n_atlases must be a whole number of at least 1, not 0"),
        ("spacing_mm", 0.1, "spacing_mm must be a number of at least 0.5 and of at most 10, not 0.1"),
        ("control_mm", 2.0, "control_mm must be a number of at least 8 and of at most 288, not 2.0"),
        ("labels", 11, "labels must be the name of a label set, such as thigh-11, not 11"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, value: object, says: str, people: list[Case]):
    with pytest.raises(ParameterError, match=says):
        MultiAtlasSegmenter(**{name: value}).fit(people)  # type: ignore[arg-type]
