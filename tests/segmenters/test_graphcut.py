from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, clone

from musclekit import io, registry
from musclekit.anatomy import body_mask
from musclekit.compose import Translated
from musclekit.errors import InputError, NotFittedError, ParameterError, VoxelError
from musclekit.image import Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.memory import Memory, remembering
from musclekit.metrics import dice
from musclekit.phantom import make_case, make_thigh, render
from musclekit.segmenters import AppearanceSegmenter, GraphCutSegmenter, MixtureSegmenter, ThresholdSegmenter
from musclekit.segmenters.graphcut import (
    bone_of,
    cut_problem,
    fixed_labels,
    muscle_probability,
    smoothed_image,
    smoothed_probability,
    unary_costs,
)
from musclekit.segmenters.mincut import BACKGROUND, FREE, cut_energy, mean_squared_difference, min_cut, neighbourhood
from musclekit.testing import example_cases, example_image


def phantom(seed: int, grade: Any = "healthy", contrast: Contrast = Contrast.T1W) -> tuple[Image, NDArray[np.bool_]]:
    case = make_case(
        seed, contrasts=(contrast,), grade=grade, legs="left", shape=(4, 128, 128), spacing=(30.0, 1.75, 1.75)
    )
    reference = case.reference
    assert reference is not None
    return case.image, reference.mapped(label_mapping(reference.label_set, label_set("muscle"))).mask("muscle")


class Known(BaseEstimator):
    """A unary with probabilities of its own: those of the grey values, mapped to a set of eleven muscles or not."""

    contrasts = frozenset(Contrast)

    def __init__(self, *, name: str = "muscle") -> None:
        self.name = name

    @property
    def label_set(self) -> LabelSet:
        return label_set(self.name)

    def fit(self, cases: Sequence[Case]) -> Self:
        self.mean_ = float(np.mean([case.image.voxels.mean() for case in cases])) if cases else 0.0
        return self

    def segment(self, image: Image) -> LabelMap:
        return self.probabilities(image).labels()

    def probabilities(self, image: Image) -> ProbabilityMap:
        muscle = np.exp(-(((image.voxels - 300) / 150) ** 2))
        n = len(self.label_set)
        return ProbabilityMap(np.stack([1 - muscle, *[muscle / n] * n]), image.grid, self.label_set)


class Negative(BaseEstimator):
    """A translator: turns bright into dark."""

    contrasts = frozenset({Contrast.T1W})
    source = None
    target = None

    def translate(self, image: Image) -> Image:
        return image.with_voxels(1000 - image.voxels)


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.CT])
def test_cut_is_better_than_its_mixture(contrast: Contrast) -> None:
    image, truth = phantom(3, contrast=contrast)
    cut = dice(GraphCutSegmenter().segment(image).mask("muscle"), truth)
    alone = dice(MixtureSegmenter().segment(image).mask("muscle"), truth)
    assert cut > max(alone, 0.9)


def test_trained_cut_is_better_than_its_unary_where_muscle_is_infiltrated() -> None:
    cases = [
        make_case(
            seed, contrasts=(Contrast.T1W,), grade="severe", legs="left", shape=(4, 96, 96), spacing=(30.0, 2.3, 2.3)
        )
        for seed in range(4)
    ]
    cut = GraphCutSegmenter(unary=AppearanceSegmenter()).fit(cases[:3])
    unary = AppearanceSegmenter().fit(cases[:3])
    reference = cases[3].reference
    assert reference is not None
    truth = reference.mapped(label_mapping(reference.label_set, label_set("muscle"))).mask("muscle")
    found = dice(cut.segment(cases[3].image).mask("muscle"), truth)
    assert found > dice(unary.segment(cases[3].image).mask("muscle"), truth) + 0.05
    assert found > dice(MixtureSegmenter().segment(cases[3].image).mask("muscle"), truth) + 0.05


@pytest.mark.parametrize("unary", [None, Known()])
def test_without_weights_it_is_a_threshold(unary: Any) -> None:
    image, _ = phantom(1, "moderate")
    method = GraphCutSegmenter(unary=unary, smoothness=0.0, sigma=0.0)
    probability = (unary or MixtureSegmenter()).probabilities(image).of("muscle")
    expected = (probability > 0.5) & body_mask(image) & ~bone_of(image)
    np.testing.assert_array_equal(method.segment(image).mask("muscle"), expected)


def test_nothing_is_muscle_outside_the_body_or_in_bone() -> None:
    image, _ = phantom(2, contrast=Contrast.CT)
    fixed = fixed_labels(image)
    bone = bone_of(image)
    assert bone.any()
    np.testing.assert_array_equal(fixed == FREE, body_mask(image) & ~bone)
    np.testing.assert_array_equal(fixed_labels(image, exclude_bone=False) == FREE, body_mask(image))
    assert set(np.unique(fixed)) == {FREE, BACKGROUND}
    muscle = GraphCutSegmenter(unary=Known(), cost="nll", smoothness=0.5).segment(image).mask("muscle")
    assert not muscle[fixed == BACKGROUND].any()


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W])
def test_bone_is_the_femur_of_the_phantom(contrast: Contrast) -> None:
    shape, spacing = (5, 128, 128), (20.0, 1.75, 1.75)
    thigh = make_thigh(4, shape=shape, spacing=spacing, legs="left")
    femur = thigh.reference("tissue").mask("cortical bone", "marrow")
    assert dice(bone_of(render(thigh, contrast)), femur) > 0.8


def test_bone_is_found_on_oblong_pixels() -> None:
    thigh = make_thigh(4, shape=(3, 100, 160), spacing=(20.0, 2.4, 1.5), legs="left")
    femur = thigh.reference("tissue").mask("cortical bone", "marrow")
    assert dice(bone_of(render(thigh, Contrast.CT)), femur) > 0.75


def test_costs_are_the_probability_of_the_other_label() -> None:
    probability = np.array([[[0.0, 0.25, 1.0]]], dtype=np.float32)
    background, muscle = unary_costs(probability)
    np.testing.assert_allclose(background, probability)
    np.testing.assert_allclose(muscle, 1 - probability)
    background, muscle = unary_costs(probability, "nll")
    np.testing.assert_allclose(background, [[[0, -math.log(0.75), -math.log(1e-6)]]], atol=2e-6, rtol=1e-4)
    np.testing.assert_allclose(muscle, [[[-math.log(1e-6), -math.log(0.25), 0]]], atol=2e-6, rtol=1e-4)


def test_labels_that_are_muscle_are_added_up() -> None:
    image = example_image(Contrast.T1W)
    np.testing.assert_allclose(
        muscle_probability(Known(name="thigh-11"), image), muscle_probability(Known(), image), atol=1e-6
    )


def test_low_pass_takes_nothing_from_outside() -> None:
    image, _ = phantom(1)
    body = body_mask(image)
    smooth = smoothed_image(image, 2.0)
    np.testing.assert_array_equal(smooth.voxels[~body], image.voxels[~body])
    # Air is dark: had it flowed in, the rim would have lost brightness.
    flat = image.with_voxels(np.where(body, 500.0, 3.0))
    np.testing.assert_allclose(smoothed_image(flat, 2.0).voxels[body_mask(flat)], 500, rtol=1e-5)
    assert smoothed_image(image, 0.0) is image
    free = fixed_labels(image) == FREE
    found = smoothed_probability(Known(), image, 1.0, free)
    assert not found[~free].any()
    assert found[free].std() < muscle_probability(Known(), image)[free].std()
    np.testing.assert_array_equal(smoothed_probability(Known(), image, 0.0, free), muscle_probability(Known(), image))


def test_either_image_or_probability_is_smoothed() -> None:
    image, _ = phantom(1)
    free = fixed_labels(image) == FREE
    of_image = GraphCutSegmenter(unary=Known(), sigma=1.5, low_pass="image").problem(image)
    np.testing.assert_array_equal(of_image.background_cost, muscle_probability(Known(), smoothed_image(image, 1.5)))
    of_probability = GraphCutSegmenter(unary=Known(), sigma=1.5).problem(image)
    np.testing.assert_array_equal(of_probability.background_cost, smoothed_probability(Known(), image, 1.5, free))


def test_unary_is_fitted_on_what_it_will_see() -> None:
    cases = example_cases("muscle")
    smooth = [smoothed_image(case.image, 2.0).voxels.mean() for case in cases]
    raw = [case.image.voxels.mean() for case in cases]
    unary = Known()
    assert GraphCutSegmenter(unary=unary, sigma=2.0, low_pass="image").fit(cases).unary_.mean_ == pytest.approx(
        np.mean(smooth)
    )
    assert GraphCutSegmenter(unary=unary, sigma=2.0).fit(cases).unary_.mean_ == pytest.approx(np.mean(raw))
    assert not hasattr(unary, "mean_")


def test_smoothness_shortens_the_boundary() -> None:
    image, _ = phantom(5, "moderate")
    lengths = []
    for smoothness in (0.0, 0.1, 0.5):
        muscle = GraphCutSegmenter(smoothness=smoothness).segment(image).mask("muscle")
        length = cut_problem(
            np.zeros(image.grid.shape, np.float32), image, np.full(image.grid.shape, FREE, np.int8), smoothness=1.0
        )
        lengths.append(cut_energy(length, muscle) - muscle.sum())
    assert lengths[0] > 1.1 * lengths[1] > 1.1 * lengths[2]


@pytest.mark.parametrize("connectivity", [4, 8, 6, 18, 26])
@pytest.mark.parametrize("pairwise", ["length", "contrast"])
def test_cut_costs_less_than_its_neighbours(connectivity: Any, pairwise: Any) -> None:
    image, _ = phantom(5, "moderate")
    method = GraphCutSegmenter(neighbourhood=connectivity, pairwise=pairwise, smoothness=0.2)
    problem = method.problem(image)
    found = method.segment(image).mask("muscle")
    least = cut_energy(problem, found)
    assert least < cut_energy(problem, (problem.background_cost > 0.5) & (problem.fixed == FREE))
    rng = np.random.default_rng(0)
    free = np.argwhere(problem.fixed == FREE)
    for at in rng.choice(free, 20):
        other = found.copy()
        other[tuple(at)] ^= True
        assert cut_energy(problem, other) >= least


def test_contrast_is_that_of_the_low_passed_image_inside() -> None:
    image, _ = phantom(1)
    problem = GraphCutSegmenter(pairwise="contrast", sigma=1.0).problem(image)
    smooth = smoothed_image(image, 1.0).voxels
    pairs = neighbourhood(8, image.grid.spacing)
    assert problem.guide is not None
    np.testing.assert_array_equal(problem.guide, smooth)
    assert problem.guide_variance == mean_squared_difference(smooth, pairs, fixed_labels(image) == FREE)


def test_contrast_of_even_tissue_is_length() -> None:
    image = example_image(Contrast.T1W)
    even = image.with_voxels(np.full(image.grid.shape, 5.0))
    free = np.full(image.grid.shape, FREE, dtype=np.int8)
    probability = np.full(image.grid.shape, 0.5, dtype=np.float32)
    assert cut_problem(probability, even, free, smoothness=0.1, pairwise="contrast").guide is None


def test_contrast_comes_from_the_translated_or_from_the_original_image() -> None:
    image, _ = phantom(1)
    translator = Negative()
    negative = translator.translate(image)
    inner = GraphCutSegmenter(unary=Known(), pairwise="contrast", sigma=0.0, exclude_bone=False)
    outer = GraphCutSegmenter(
        unary=Translated(translator=translator, segmenter=Known()), pairwise="contrast", sigma=0.0, exclude_bone=False
    )
    # From the original: the unary alone sees the translation.
    problem = outer.problem(image)
    assert problem.guide is not None
    np.testing.assert_array_equal(problem.guide, image.voxels)
    np.testing.assert_array_equal(problem.background_cost, Known().probabilities(negative).of("muscle"))
    # From the translated: the whole cut does.
    composed = Translated(translator=translator, segmenter=inner)
    seen = inner.problem(negative)
    assert seen.guide is not None
    np.testing.assert_array_equal(seen.guide, negative.voxels)
    np.testing.assert_array_equal(composed.segment(image).voxels, inner.segment(negative).voxels)


def test_search_over_smoothness_works_the_rest_out_once() -> None:
    image, _ = phantom(1)
    memory = Memory()
    with remembering(memory):
        remembered = [
            GraphCutSegmenter(smoothness=smoothness, sigma=sigma).fit([]).segment(image).voxels
            for sigma in (1.0, 2.0)
            for smoothness in (0.05, 0.1, 0.5)
        ]
    steps = {step.rpartition(".")[2]: n for step, n in memory.computed.items()}
    assert steps == {"body_of": 1, "bone_of": 1, "muscle_probability": 1, "smoothed_probability": 2}
    plain = GraphCutSegmenter(smoothness=0.1, sigma=2.0).segment(image).voxels
    np.testing.assert_array_equal(remembered[4], plain)


def test_unary_that_learns_asks_for_cases() -> None:
    method = GraphCutSegmenter(unary=AppearanceSegmenter())
    with pytest.raises(NotFittedError, match="learns from annotated cases"):
        method.segment(example_image(Contrast.T1W))
    with pytest.raises(InputError, match="needs annotated cases"):
        method.fit([])
    method.fit(example_cases("muscle"))
    assert method.training_subjects_ == ("example-1", "example-2", "example-3")
    assert method.contrasts == {Contrast.T1W}
    assert isinstance(method.unary, AppearanceSegmenter)
    assert not hasattr(method.unary, "densities_")
    assert not hasattr(GraphCutSegmenter().fit([]), "training_subjects_")
    image = example_image(Contrast.T1W)
    twin = pickle.loads(pickle.dumps(method))
    np.testing.assert_array_equal(twin.segment(image).voxels, method.segment(image).voxels)


def test_is_built_from_plain_data() -> None:
    method = registry.build(
        "graphcut", smoothness=0.2, neighbourhood=26, unary={"name": "appearance", "n_bins": 32}, unary__per="slice"
    )
    assert (method.unary.n_bins, method.unary.per) == (32, "slice")
    again = registry.build(**registry.describe(method))
    assert repr(again) == repr(method) == repr(clone(method))
    assert registry.build(**registry.describe(GraphCutSegmenter())).unary is None


def test_unary_without_probabilities_is_refused() -> None:
    with pytest.raises(
        ParameterError, match="unary of 'graphcut' must be a segmenter that gives probabilities, one of: gmm, appear"
    ):
        registry.build("graphcut", unary={"name": "threshold"})
    unary: Any = ThresholdSegmenter()
    with pytest.raises(ParameterError, match="such as gmm or appearance; ThresholdSegmenter gives none"):
        GraphCutSegmenter(unary=unary).segment(example_image(Contrast.CT))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoothness": -0.1}, "smoothness"),
        ({"sigma": math.nan}, "sigma"),
        ({"low_pass": "both"}, "low_pass must be one of probability, image, not 'both'"),
        ({"neighbourhood": 5}, "neighbourhood must be one of 4, 8, 6, 18, 26, not 5"),
        ({"pairwise": "edge"}, "pairwise must be one of length, contrast, not 'edge'"),
        ({"cost": "log"}, "cost must be one of probability, nll, not 'log'"),
        ({"exclude_bone": "no"}, "exclude_bone must be true or false, not 'no'"),
    ],
)
def test_parameters_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        GraphCutSegmenter(**settings).segment(example_image(Contrast.CT))


def test_constant_image_is_refused() -> None:
    image = example_image(Contrast.T1W)
    with pytest.raises(VoxelError, match="constant"):
        GraphCutSegmenter().segment(image.with_voxels(np.ones(image.grid.shape)))


@pytest.mark.slow
def test_real_plane_is_cut_as_scipy_cuts_it(shared_data: Path) -> None:
    image = io.read(shared_data / "huashan" / "Thigh_003_fat.nii.gz", contrast=Contrast.FAT)
    whole = GraphCutSegmenter(neighbourhood=8, smoothness=0.2).problem(image)
    middle = slice(8, 9)
    assert whole.fixed is not None
    problem = replace(
        whole,
        background_cost=whole.background_cost[middle].astype(np.float64),
        muscle_cost=whole.muscle_cost[middle].astype(np.float64),
        fixed=whole.fixed[middle],
    )
    n = math.prod(problem.shape)
    index = np.arange(n).reshape(problem.shape)
    assert problem.fixed is not None
    gain = np.where(problem.fixed == FREE, problem.background_cost - problem.muscle_cost, -10.0).ravel()
    scale = 1e6
    towards, away = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    rows, columns = [np.full(len(towards), n), away], [towards, np.full(len(away), n + 1)]
    capacities = [gain[towards], -gain[away]]
    for (_, dy, dx), weight in zip(problem.neighbourhood.offsets, problem.neighbourhood.weights, strict=True):
        y, x = np.meshgrid(np.arange(512 - dy), np.arange(max(0, -dx), 512 - max(0, dx)), indexing="ij")
        one, other = index[0, y, x].ravel(), index[0, y + dy, x + dx].ravel()
        rows += [one, other]
        columns += [other, one]
        capacities += [np.full(2 * len(one), problem.smoothness * weight)]
    entries = np.rint(np.concatenate(capacities) * scale).astype(np.int32)
    graph = sparse.csr_array((entries, (np.concatenate(rows), np.concatenate(columns))), shape=(n + 2, n + 2))
    flow = sparse.csgraph.maximum_flow(graph, n, n + 1).flow_value / scale
    # What a voxel pays in any case; of a fixed one, what it pays as background.
    least = np.minimum(problem.background_cost, problem.muscle_cost)
    base = np.where(problem.fixed == FREE, least, problem.background_cost).sum()
    # Half a millionth is lost by rounding at each pair that is parted, of which there are some thousands.
    assert cut_energy(problem, min_cut(problem)) == pytest.approx(base + flow, abs=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scan", ["Thigh_001", "Thigh_003"])
def test_cut_agrees_better_than_its_mixture_on_real_scans(shared_data: Path, scan: str) -> None:
    image = io.read(shared_data / "huashan" / f"{scan}_fat.nii.gz", contrast=Contrast.FAT)
    reference = io.read_labels(shared_data / "huashan" / f"{scan}_dseg.nii.gz", label_set("huashan-11"))
    muscle = reference.mapped(label_mapping(reference.label_set, label_set("muscle"))).mask("muscle")
    planes = [z for z in range(len(muscle)) if muscle[z].any()]
    masks = [method.segment(image).mask("muscle") for method in (GraphCutSegmenter(), MixtureSegmenter())]
    cut, mixture = (np.median([dice(found[z], muscle[z]) for z in planes]) for found in masks)
    assert cut > mixture
