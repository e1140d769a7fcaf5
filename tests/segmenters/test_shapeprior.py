"""Graph cut with a shape prior."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from musclekit import io
from musclekit.errors import InputError, NotFittedError, ParameterError, VoxelError
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import label_set
from musclekit.memory import Memory, remembering
from musclekit.metrics import dice
from musclekit.phantom import make_case
from musclekit.segmenters.appearance import AppearanceSegmenter
from musclekit.segmenters.atlas import AtlasCase, atlas_case
from musclekit.segmenters.graphcut import GraphCutSegmenter, fixed_labels, smoothed_probability
from musclekit.segmenters.mincut import FREE, min_cut
from musclekit.segmenters.mixture import MixtureSegmenter
from musclekit.segmenters.shapeprior import (
    ShapePrior,
    ShapePriorSegmenter,
    prior_costs,
    prior_map,
    refined_prior,
    with_prior,
)

REGISTRATION = "musclekit.segmenters.atlas.registration_of"


@pytest.fixture(scope="module", autouse=True)
def _memory() -> Iterator[None]:
    with remembering(Memory()):
        yield


def severe(seed: int, legs: str = "right", shape: tuple[int, int, int] = (3, 96, 96), **settings: object) -> Case:
    spacing = (60.0, 2.4, 2.4) if legs != "both" else (60.0, 3.0, 4.0)
    return make_case(seed, grade="severe", legs=legs, shape=shape, spacing=spacing, reference="muscle", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [severe(40 + n, ("left", "right")[n % 2]) for n in range(5)]


@pytest.fixture(scope="module")
def atlas(cases: list[Case]) -> list[AtlasCase]:
    return [atlas_case(case, "spgc", label_set("muscle")) for case in cases]


def muscle(case: Case) -> np.ndarray:
    assert case.reference is not None
    return case.reference.mask()


def prior_of(values: np.ndarray, coverage: int = 3) -> ShapePrior:
    return ShapePrior(values.astype(np.float32), np.full(values.shape, coverage, dtype=np.uint16))


# The map


def test_the_prior_shows_the_muscles_of_a_thigh_that_is_not_in_it(cases: list[Case], atlas: list[AtlasCase]):
    prior = prior_map(atlas[1:], cases[0].image)
    assert prior.muscle.min() >= 0
    assert prior.muscle.max() <= 1
    assert prior.coverage.max() == 4
    assert dice(prior.muscle > 0.5, muscle(cases[0])) > 0.8
    assert dice(prior.muscle[..., ::-1] > 0.5, muscle(cases[0])) < 0.75


def test_a_thigh_in_its_own_atlas_finds_itself(cases: list[Case], atlas: list[AtlasCase]):
    prior = prior_map(atlas[:1], cases[0].image)
    assert dice(prior.muscle > 0.5, muscle(cases[0])) > 0.99


def test_the_side_of_a_thigh_is_found_where_it_is_not_known(
    cases: list[Case], atlas: list[AtlasCase], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="musclekit"):
        known = prior_map(atlas[1:3], cases[0].image)
    assert "left overlaps the atlas better" in caplog.text
    caplog.clear()
    unknown = prior_map([replace(case, side=None) for case in atlas[1:3]], cases[0].image)
    assert "no thigh of the atlas has a known side" in caplog.text
    np.testing.assert_array_equal(known.muscle, unknown.muscle)


def test_each_leg_of_two_is_compared_with_each_leg_of_the_atlas():
    pair, single = severe(60, "both"), severe(61, "left")
    prior = prior_map([atlas_case(single, "spgc", label_set("muscle"))], pair.image)
    assert dice(prior.muscle > 0.5, muscle(pair)) > 0.65
    both = prior_map([atlas_case(pair, "spgc", label_set("muscle"))], single.image)
    assert both.coverage.max() == 2


def test_a_leg_that_is_not_annotated_is_no_atlas():
    pair, single = severe(60, "both"), severe(61, "left")
    assert pair.reference is not None
    middle = pair.image.grid.shape[2] // 2
    voxels = pair.reference.voxels.copy()
    voxels[..., :middle] = 0
    half = replace(pair, reference=pair.reference.with_voxels(voxels))
    assert prior_map([atlas_case(half, "spgc", label_set("muscle"))], single.image).coverage.max() == 1


def test_a_slice_without_labels_is_not_annotated(cases: list[Case]):
    voxels = muscle(cases[0]).astype(np.uint8)
    voxels[0] = 0
    partly = replace(cases[0], reference=LabelMap(voxels, cases[0].image.grid, label_set("muscle")))
    prior = prior_map([atlas_case(partly, "spgc", label_set("muscle"))], cases[0].image)
    assert not prior.coverage[0].any()
    assert prior.coverage[1:].all()


def test_an_atlas_in_other_pixels_says_the_same(cases: list[Case], atlas: list[AtlasCase]):
    fine = make_case(41, grade="severe", legs="right", shape=(3, 144, 128), spacing=(60, 1.6, 1.8), reference="muscle")
    coarse = prior_map(atlas[1:2], cases[0].image).muscle
    found = prior_map([atlas_case(fine, "spgc", label_set("muscle"))], cases[0].image).muscle
    assert dice(found > 0.5, coarse > 0.5) > 0.88


def test_a_second_registration_by_the_muscle_found_is_no_worse(cases: list[Case], atlas: list[AtlasCase]):
    prior = refined_prior(atlas[1:], cases[0].image, muscle(cases[0]))
    assert dice(prior.muscle > 0.5, muscle(cases[0])) > 0.8


def test_registrations_depend_on_the_two_images_alone(cases: list[Case]):
    with remembering(Memory()) as memory:
        for sigma, weight, left_out in ((1.0, 0.5, 0), (2.0, 0.1, 0), (1.0, 1.0, 1)):
            method = ShapePriorSegmenter(sigma=sigma, prior_weight=weight)
            method.fit([case for n, case in enumerate(cases[:3]) if n != left_out])
            for test in cases[3:]:
                method.segment(test.image)
        # Two scans of unknown side, three atlas cases, both ways round.
        assert memory.computed[REGISTRATION] == 2 * 3 * 2
        assert len(memory.lasting) == 12
    with remembering(Memory(lasting=memory.lasting)) as later:
        again = method.segment(cases[4].image)
        assert later.computed[REGISTRATION] == 0
    np.testing.assert_array_equal(again.voxels, method.segment(cases[4].image).voxels)


# The costs


@given(share=st.floats(0, 1), neutral=st.floats(0.05, 0.95))
def test_linear_costs_are_those_of_the_formula(share: float, neutral: float):
    background, against = prior_costs(prior_of(np.full((1, 1, 1), share)), neutral)
    assert background.item() == pytest.approx(max(0, share - neutral) / (1 - neutral), abs=1e-5)
    assert against.item() == pytest.approx(max(0, neutral - share) / neutral, abs=1e-5)


@given(share=st.floats(0, 1), neutral=st.floats(0.05, 0.95))
def test_log_odds_costs_are_those_of_the_formula(share: float, neutral: float):
    background, against = prior_costs(prior_of(np.full((1, 1, 1), share)), neutral, "logodds")
    clipped = np.clip(share, 1e-3, 1 - 1e-3)
    expected = np.log(neutral / (1 - neutral)) - np.log(clipped / (1 - clipped))
    assert against.item() - background.item() == pytest.approx(expected, abs=1e-3)
    assert min(against.item(), background.item()) == 0


@pytest.mark.parametrize("form", ["linear", "logodds"])
def test_where_no_atlas_shows_a_place_the_prior_costs_nothing(form: str):
    for cost in prior_costs(prior_of(np.zeros((1, 2, 2)), coverage=0), 0.3, form):  # type: ignore[arg-type]
        assert not cost.any()


# The identities


@pytest.fixture(scope="module")
def fitted(cases: list[Case]) -> ShapePriorSegmenter:
    return ShapePriorSegmenter(smoothness=0.2).fit(cases[1:])


def test_without_weight_it_is_the_graph_cut(cases: list[Case], fitted: ShapePriorSegmenter):
    cut = GraphCutSegmenter(unary=AppearanceSegmenter(), smoothness=0.2).fit(cases[1:])
    expected = cut.segment(cases[0].image).voxels
    weightless = ShapePriorSegmenter(smoothness=0.2, prior_weight=0).fit(cases[1:])
    np.testing.assert_array_equal(weightless.segment(cases[0].image).voxels, expected)
    assert (fitted.segment(cases[0].image).voxels != expected).any()


@pytest.mark.parametrize("form", ["linear", "logodds"])
@pytest.mark.parametrize("neutral", [0.2, 0.3, 0.4, 0.5])
def test_with_a_neutral_prior_it_is_the_graph_cut(cases: list[Case], form: str, neutral: float):
    problem = GraphCutSegmenter(smoothness=0.2).problem(cases[0].image)
    flat = prior_of(np.full(problem.shape, neutral))
    same = with_prior(problem, flat, prior_weight=1.0, neutral_probability=neutral, prior_cost=form)  # type: ignore[arg-type]
    np.testing.assert_array_equal(min_cut(same), min_cut(problem))


def test_without_any_weight_it_is_a_threshold(cases: list[Case]):
    method = ShapePriorSegmenter(unary=MixtureSegmenter(), smoothness=0, prior_weight=0, exclude_bone=False)
    image = cases[0].image
    free = fixed_labels(image, exclude_bone=False) == FREE
    expected = (smoothed_probability(MixtureSegmenter(), image, 1.0, free) > 0.5) & free
    np.testing.assert_array_equal(method.fit(cases[1:]).segment(image).mask(), expected)


def test_a_heavy_prior_has_the_last_word(cases: list[Case], atlas: list[AtlasCase]):
    method = ShapePriorSegmenter(smoothness=0, prior_weight=1000).fit(cases[1:])
    image = cases[0].image
    expected = (prior_map(atlas[1:], image).muscle > 0.5) & (fixed_labels(image) == FREE)
    assert dice(method.segment(image).mask(), expected) > 0.997


# What it is for


def test_the_prior_finds_muscle_that_turned_to_fat(cases: list[Case]):
    gains = []
    for n, case in enumerate(cases):
        others = [other for other in cases if other is not case]
        cut = GraphCutSegmenter(unary=AppearanceSegmenter()).fit(others).segment(case.image)
        with_shape = ShapePriorSegmenter().fit(others).segment(case.image)
        gains.append(dice(with_shape.mask(), muscle(case)) - dice(cut.mask(), muscle(case)))
        assert gains[n] > 0
    assert np.mean(gains) > 0.03


@pytest.mark.parametrize("passes", [2, 3])
def test_further_passes_change_little(cases: list[Case], passes: int):
    once = ShapePriorSegmenter().fit(cases[1:]).segment(cases[0].image)
    more = ShapePriorSegmenter(passes=passes).fit(cases[1:]).segment(cases[0].image)
    assert dice(once.mask(), more.mask()) > 0.9
    assert (once.voxels != more.voxels).any()


def test_it_learns_from_any_label_set_that_leads_to_muscle(cases: list[Case]):
    image = cases[0].image
    detailed = [
        make_case(40 + n, grade="severe", legs=("left", "right")[n % 2], shape=(3, 96, 96), spacing=(60, 2.4, 2.4))
        for n in (1, 2)
    ]
    assert detailed[0].reference is not None
    assert detailed[0].reference.label_set.name == "thigh-full"
    method = ShapePriorSegmenter().fit(detailed)
    assert method.training_subjects_ == tuple(sorted(case.subject for case in detailed))
    np.testing.assert_array_equal(
        method.segment(image).voxels, ShapePriorSegmenter().fit(cases[1:3]).segment(image).voxels
    )


# Bad input


def test_without_cases_there_is_nothing_to_learn():
    with pytest.raises(InputError, match="'spgc' needs annotated cases to learn from, and was given none"):
        ShapePriorSegmenter().fit([])
    with pytest.raises(InputError, match="a shape prior needs annotated cases"):
        prior_map([], severe(1).image)


def test_a_case_without_annotation_is_named(cases: list[Case]):
    with pytest.raises(InputError, match=f"case '{cases[1].id}' has no reference"):
        ShapePriorSegmenter().fit([cases[0], replace(cases[1], reference=None)])


def test_a_case_without_muscle_is_named(cases: list[Case]):
    empty = LabelMap(np.zeros(cases[1].image.grid.shape, np.uint8), cases[1].image.grid, label_set("muscle"))
    with pytest.raises(InputError, match=f"case '{cases[1].id}': no muscle is labelled"):
        ShapePriorSegmenter().fit([cases[0], replace(cases[1], reference=empty)])


def test_before_fit_it_says_what_to_do(cases: list[Case]):
    with pytest.raises(NotFittedError, match=r"'spgc' learns from annotated cases: call fit\(cases\) first"):
        ShapePriorSegmenter().segment(cases[0].image)


def test_an_image_of_the_atlas_is_segmented_with_a_warning(cases: list[Case], fitted: ShapePriorSegmenter):
    # A scan that is read without its manifest has no domain.
    with pytest.warns(UserWarning, match="spgc: this image stands in the atlas"):
        fitted.segment(replace(cases[1].image, domain=None))


def test_a_constant_image_is_refused(cases: list[Case], fitted: ShapePriorSegmenter):
    image = cases[0].image
    with pytest.raises(VoxelError, match="constant"):
        fitted.segment(Image(np.ones(image.grid.shape), image.grid, Contrast.T1W))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_weight": -1}, "prior_weight must be"),
        ({"neutral_probability": 0.0}, "neutral_probability must be"),
        ({"neutral_probability": 1.0}, "neutral_probability must be"),
        ({"prior_cost": "square"}, "prior_cost must be one of linear, logodds, not 'square'"),
        ({"passes": 4}, "passes must be"),
        ({"smoothness": -0.1}, "smoothness must be"),
        ({"neighbourhood": 5}, "neighbourhood must be one of"),
        ({"exclude_bone": "no"}, "exclude_bone must be true or false, not 'no'"),
    ],
)
def test_a_parameter_out_of_range_is_refused(
    cases: list[Case], fitted: ShapePriorSegmenter, settings: dict[str, object], message: str
):
    with pytest.raises(ParameterError, match=message):
        clone(fitted).set_params(**settings).fit(cases[1:])


# Real scans


@pytest.mark.slow
def test_real_thighs_of_two_patients_lie_on_each_other(shared_data: Path):
    found = []
    for name in ("001", "003"):
        path = shared_data / "huashan" / f"Thigh_{name}_fat.nii.gz"
        image = io.read(path, contrast=Contrast.FAT)
        labels = io.read_labels(path.with_name(f"Thigh_{name}_dseg.nii.gz"), label_set("huashan-11"))
        reference = LabelMap(labels.voxels, image.grid, labels.label_set)
        found.append(Case(id=name, subject=name, images={Contrast.FAT: image}, reference=reference))
    atlas = [atlas_case(case, "spgc", label_set("muscle")) for case in found]
    for mine, other in ((0, 1), (1, 0)):
        prior = prior_map([atlas[other]], found[mine].image)
        assert dice(prior.muscle > 0.5, atlas[mine].labels.mask()) > 0.6
