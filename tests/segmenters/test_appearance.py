from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone

from musclekit.errors import InputError, LabelError, ModalityError, NotFittedError, ParameterError, SegmentationError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.memory import Memory, fingerprint, remembering
from musclekit.metrics import dice
from musclekit.phantom import make_case
from musclekit.segmenters.appearance import (
    RANGE,
    AppearanceSegmenter,
    appearance_counts,
    class_densities,
    muscle_posterior,
    standardised,
)
from musclekit.testing import example_cases, example_image

GRID = Grid.from_spacing((3, 64, 64), (5.0, 3.0, 3.0))


def patches(contrast: Contrast, dark: float, muscle: float, bright: float, seed: int = 0) -> tuple[Image, LabelMap]:
    """A square body in air: a frame of fat, muscle inside it, something dark (in CT: dense) in the middle."""
    voxels = np.full(GRID.shape, -1000.0 if contrast is Contrast.CT else 0.0)
    voxels[:, 8:56, 8:56] = bright
    voxels[:, 14:50, 14:50] = muscle
    voxels[:, 28:36, 28:36] = dark
    voxels += np.random.default_rng(seed).normal(0, 3, GRID.shape)
    truth = np.zeros(GRID.shape, dtype=np.uint8)
    truth[:, 14:50, 14:50] = 1
    truth[:, 28:36, 28:36] = 0
    if contrast is not Contrast.CT:
        voxels = np.abs(voxels)
    return Image(voxels, GRID, contrast), LabelMap(truth, GRID, label_set("muscle"))


@pytest.mark.parametrize(
    ("contrast", "values"),
    [
        (Contrast.T1W, (40.0, 150.0, 500.0)),
        (Contrast.FAT, (40.0, 60.0, 500.0)),
        (Contrast.WATER, (600.0, 400.0, 150.0)),
        (Contrast.CT, (700.0, 55.0, -100.0)),
    ],
)
def test_muscle_is_put_at_zero_and_fat_at_one(contrast: Contrast, values: tuple[float, float, float]) -> None:
    image, truth = patches(contrast, *values)
    scaled = standardised(image)
    assert np.median(scaled[truth.voxels > 0]) == pytest.approx(0, abs=0.1)
    assert np.median(scaled[:, 8:13, 16:48]) == pytest.approx(1, abs=0.1)
    assert np.isnan(scaled[:, :5]).all()
    assert np.nanmin(scaled) >= RANGE[0]
    assert np.nanmax(scaled) <= RANGE[1]


def test_scale_does_not_know_the_scanner() -> None:
    image, _ = patches(Contrast.T1W, 40, 150, 500)
    louder = image.with_voxels(image.voxels * 7.5)
    np.testing.assert_allclose(standardised(image), standardised(louder), atol=1e-3)


def test_counts_are_those_of_the_voxels_in_the_body() -> None:
    image, truth = patches(Contrast.T1W, 40, 150, 500)
    counts = appearance_counts(image, truth)
    assert counts.shape == (2, 64)
    assert counts[1].sum() == np.count_nonzero(truth.voxels)
    assert counts.sum() == np.isfinite(standardised(image)).sum()
    edges = np.linspace(*RANGE, 65)
    assert edges[counts[1].argmax()] == pytest.approx(0, abs=0.1)


def test_planes_without_a_label_are_not_counted() -> None:
    image, truth = patches(Contrast.T1W, 40, 150, 500)
    part = truth.voxels.copy()
    part[1:] = 0
    one = appearance_counts(image, truth.with_voxels(part))
    assert one.sum() == np.isfinite(standardised(image))[0].sum()


def test_labels_of_another_set_are_gathered() -> None:
    one, other = (example_cases(name, subjects=1)[0] for name in ("muscle", "thigh-11"))
    assert one.reference is not None
    assert other.reference is not None
    np.testing.assert_array_equal(
        appearance_counts(one.image, one.reference), appearance_counts(other.image, other.reference)
    )


def test_labels_that_lead_nowhere_are_refused() -> None:
    image, truth = patches(Contrast.T1W, 40, 150, 500)
    strange = LabelMap(truth.voxels, GRID, label_set("compartment"))
    with pytest.raises(LabelError, match="no map from 'compartment' to 'muscle'"):
        AppearanceSegmenter().fit([Case("a", "a", {Contrast.T1W: image}, strange)])


def test_densities_add_one_to_every_bin() -> None:
    counts = np.array([[0, 6, 0], [3, 0, 3]])
    np.testing.assert_allclose(class_densities(counts, 0), [[1 / 9, 7 / 9, 1 / 9], [4 / 9, 1 / 9, 4 / 9]])
    smooth = class_densities(counts, 1.0)
    np.testing.assert_allclose(smooth.sum(axis=1), 1)
    assert smooth[0, 1] < 7 / 9


def test_posterior_is_that_of_bayes() -> None:
    densities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    middles = np.array([-0.5, 0.5, 1.5], dtype=np.float32)
    found = muscle_posterior(densities, 0.25, np.append(middles, np.float32(np.nan)))
    expected = [0.25 * m / (0.25 * m + 0.75 * b) for b, m in densities.T]
    np.testing.assert_allclose(found, [*expected, 0], rtol=1e-6)


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT, Contrast.WATER, Contrast.CT])
def test_learns_what_muscle_looks_like(contrast: Contrast) -> None:
    cases = example_cases("muscle", contrast)
    method = AppearanceSegmenter().fit(cases[:2])
    test = cases[2]
    assert test.reference is not None
    assert dice(method.segment(test.image).mask("muscle"), test.reference.mask("muscle")) > 0.9
    assert method.contrast_ is contrast
    assert method.training_subjects_ == ("example-1", "example-2")
    assert 0 < method.prior_ < 1


def test_knows_infiltrated_muscle_that_the_mixture_calls_fat() -> None:
    cases = [
        make_case(
            seed, contrasts=(Contrast.T1W,), grade="severe", legs="left", shape=(3, 96, 96), spacing=(30.0, 2.3, 2.3)
        )
        for seed in range(3)
    ]
    method = AppearanceSegmenter().fit(cases[:2])
    image, reference = cases[2].image, cases[2].reference
    assert reference is not None
    truth = reference.mapped(label_mapping(reference.label_set, label_set("muscle"))).mask("muscle")
    probability = method.probabilities(image).of("muscle")
    assert probability[truth].mean() > 0.4
    assert probability[truth].mean() > 1.3 * probability[~truth & (probability > 0)].mean()


def test_takes_the_contrast_it_has_learnt_and_no_other() -> None:
    method = AppearanceSegmenter()
    assert method.contrasts == frozenset(Contrast)
    method.fit(example_cases("muscle", Contrast.T1W))
    assert method.contrasts == {Contrast.T1W}
    with pytest.raises(ModalityError, match="appearance"):
        method.segment(example_image(Contrast.CT))


def test_cases_of_two_contrasts_are_refused() -> None:
    mixed = [*example_cases("muscle", Contrast.T1W, subjects=1), *example_cases("muscle", Contrast.CT, subjects=1)]
    with pytest.raises(ModalityError, match="cases of one contrast, not of ct and t1w"):
        AppearanceSegmenter().fit(mixed)


def test_needs_annotated_cases() -> None:
    with pytest.raises(NotFittedError, match="learns from annotated cases: call fit"):
        AppearanceSegmenter().segment(example_image(Contrast.T1W))
    with pytest.raises(InputError, match="needs annotated cases"):
        AppearanceSegmenter().fit([])
    bare = Case("bare", "someone", {Contrast.T1W: example_image(Contrast.T1W)})
    with pytest.raises(InputError, match="case 'bare' has no reference"):
        AppearanceSegmenter().fit([bare])


def alike() -> Image:
    """An image whose mixture finds no muscle: fat everywhere but in the dark middle."""
    image, _ = patches(Contrast.T1W, 150, 500, 500)
    return image


def test_image_without_two_tissues_has_no_scale() -> None:
    with pytest.raises(SegmentationError, match=r"does not tell muscle \(mean 15.*\) from fat"):
        standardised(alike())


def test_slice_without_a_scale_takes_that_of_its_neighbours() -> None:
    whole, _ = patches(Contrast.T1W, 40, 150, 500)
    brightness = np.array([1.0, 1.0, 3.0])[:, None, None]
    own = standardised(whole.with_voxels(whole.voxels * brightness), "slice")
    voxels = whole.voxels * brightness
    voxels[1] = 2 * alike().voxels[1]
    with pytest.warns(UserWarning, match="slice 1 cannot tell muscle from fat by itself and takes the scale"):
        filled = standardised(whole.with_voxels(voxels), "slice")
    np.testing.assert_array_equal(filled[[0, 2]], own[[0, 2]])
    # Half way between 150 to 500 and 450 to 1500; the frame of fat is 1000 there.
    assert np.median(filled[1, 8:13, 16:48]) == pytest.approx((1000 - 300) / 700, abs=0.05)


def test_no_slice_with_a_scale() -> None:
    with pytest.raises(SegmentationError, match=r"no slice has a scale of its own; slice 0: the mixture does not tell"):
        standardised(alike(), "slice")


def test_case_without_a_scale_is_left_out_and_named() -> None:
    good = example_cases("muscle", subjects=2)
    truth = LabelMap(np.ones(GRID.shape, dtype=np.uint8), GRID, label_set("muscle"))
    bad = Case("odd", "someone", {Contrast.T1W: alike()}, truth)
    with pytest.warns(UserWarning, match="case 'odd' is left out: the mixture does not tell"):
        method = AppearanceSegmenter().fit([good[0], bad, good[1]])
    np.testing.assert_array_equal(method.densities_, AppearanceSegmenter().fit(good).densities_)
    assert method.training_subjects_ == ("example-1", "example-2")
    with (
        pytest.warns(UserWarning, match="case 'odd' is left out"),
        pytest.raises(InputError, match="mixture failed on every case"),
    ):
        AppearanceSegmenter().fit([bad])


def test_case_without_muscle_is_left_out_and_named() -> None:
    good = example_cases("muscle", subjects=1)
    image, truth = patches(Contrast.T1W, 40, 150, 500)
    empty = Case("empty", "someone", {Contrast.T1W: image}, truth.with_voxels(np.zeros_like(truth.voxels)))
    with pytest.warns(UserWarning, match="case 'empty' is left out: no muscle is labelled"):
        AppearanceSegmenter().fit([*good, empty])


def test_slices_may_have_scales_of_their_own() -> None:
    image, truth = patches(Contrast.T1W, 40, 150, 500)
    voxels = image.voxels.copy()
    voxels[1] *= 1.6
    uneven = image.with_voxels(voxels)
    scaled = standardised(uneven, "slice")
    for plane, muscle in zip(scaled, truth.voxels > 0, strict=True):
        assert np.median(plane[muscle]) == pytest.approx(0, abs=0.1)
    assert np.median(standardised(uneven)[1][truth.voxels[1] > 0]) > 0.13


def test_histograms_of_a_case_are_made_once() -> None:
    cases = example_cases("muscle")
    memory = Memory()
    with remembering(memory):
        for left_out in range(3):
            AppearanceSegmenter().fit([case for k, case in enumerate(cases) if k != left_out])
    assert memory.computed["musclekit.segmenters.appearance.appearance_counts"] == 3


def test_what_it_learnt_travels() -> None:
    method = AppearanceSegmenter().fit(example_cases("muscle"))
    twin = pickle.loads(pickle.dumps(method))
    assert fingerprint(twin) == fingerprint(method)
    assert fingerprint(clone(method)) != fingerprint(method)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"per": "leg"}, "per must be one of"), ({"n_bins": 1}, "n_bins"), ({"smoothing_bins": -1.0}, "smoothing_bins")],
)
def test_parameters_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AppearanceSegmenter(**settings).fit(example_cases("muscle"))
