from __future__ import annotations

import warnings
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from musclekit.anatomy import body_mask
from musclekit.errors import ParameterError, SegmentationError, VoxelError
from musclekit.image import Contrast, Grid, Image
from musclekit.protocols import ProbabilisticSegmenter
from musclekit.segmenters.mixture import Mixture, MixtureSegmenter, fit_mixture, posteriors, smooth_inside


def three_tissues(n: int = 30_000, seed: int = 0, sd: float = 0.03) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    means = rng.choice([0.05, 0.25, 0.9], p=[0.2, 0.5, 0.3], size=n)
    return cast(NDArray[np.float32], rng.normal(means, sd).astype(np.float32))


def thigh(contrast: Contrast = Contrast.T1W, planes: int = 3, scale: float = 1000.0) -> tuple[Image, NDArray[np.bool_]]:
    """A fat disk, a muscle disk in it and a bone in the middle, in air; and where the muscle is."""
    grey = {
        Contrast.T1W: (0.0, 0.9, 0.25, 0.06),
        Contrast.FAT: (0.0, 0.9, 0.08, 0.05),
        Contrast.WATER: (0.0, 0.08, 0.6, 0.07),
        Contrast.CT: (-1.0, -0.1, 0.055, 1.1),
    }[contrast]
    y, x = np.mgrid[-64:64, -64:64]
    r = np.hypot(y, x)
    plane = np.select([r < 9, r < 42, r < 55], [grey[3], grey[2], grey[1]], grey[0])
    if contrast is Contrast.WATER:
        plane[(y - 20) ** 2 + x**2 < 16] = 1.0  # a vessel: three tissues of three components
    rng = np.random.default_rng(1)
    voxels = scale * (plane + rng.normal(0, 0.012, (planes, *plane.shape)))
    if contrast is not Contrast.CT:
        voxels = np.abs(voxels)
    muscle = np.broadcast_to((r >= 9) & (r < 42), voxels.shape)
    return Image(voxels.astype(np.float32), Grid.from_spacing(voxels.shape, (7, 1, 1)), contrast), muscle


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_the_start_is_the_published_one() -> None:
    # One step from (0, 1/6, 1) with equal weights and deviations of a sixth, by hand.
    values = np.array([0.0, 0.2, 0.3, 1.0], dtype=np.float32)
    joint = np.exp(-0.5 * ((values - np.array([[0], [1 / 6], [1]])) * 6) ** 2)
    share = joint / joint.sum(axis=0)
    expected = share @ values / share.sum(axis=1)
    with pytest.raises(SegmentationError):  # the two inner components are under one voxel at some step
        fit_mixture(values[:2], max_iterations=50)
    fitted = fit_mixture(np.repeat(values, 100), max_iterations=1, n_bins=4097)
    assert fitted.means == pytest.approx(expected, abs=2e-4)
    assert not fitted.converged
    assert fitted.n_iterations == 1


@pytest.mark.parametrize("initial", ["exact", "robust"])
def test_three_tissues_are_found_again(initial: str) -> None:
    fitted = fit_mixture(three_tissues(), initial=initial)  # type: ignore[arg-type]
    assert fitted.means == pytest.approx((0.05, 0.25, 0.9), abs=0.01)
    assert fitted.weights == pytest.approx((0.2, 0.5, 0.3), abs=0.01)
    assert np.sqrt(fitted.variances) == pytest.approx([0.03] * 3, abs=0.003)
    assert fitted.in_order
    assert fitted.converged
    # Muscle is the component started second.
    assert posteriors(fitted, 0.25)[1] > 0.99


def test_it_agrees_with_scikit_learn_from_the_same_start() -> None:
    values = three_tissues(8000, sd=0.08)
    low, high = float(values.min()), float(values.max())
    width = high - low
    oracle = GaussianMixture(
        3,
        weights_init=[1 / 3] * 3,
        means_init=np.array([[low], [low + width / 6], [high]]),
        precisions_init=np.full((3, 1, 1), (6 / width) ** 2),
        max_iter=60,
        tol=0,
        reg_covar=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it did not converge, as was asked
        oracle.fit(values[:, None])
    ours = fit_mixture(values, max_iterations=60, tolerance=0)
    assert ours.means == pytest.approx(oracle.means_.ravel(), abs=1e-3)
    assert ours.weights == pytest.approx(oracle.weights_, abs=2e-3)
    assert ours.variances == pytest.approx(oracle.covariances_.ravel(), rel=0.02)
    points = np.linspace(low, high, 50)
    expected = oracle.predict_proba(points[:, None]).T
    assert posteriors(ours, points) == pytest.approx(expected, abs=0.02)


def test_only_values_under_the_mask_count() -> None:
    values = three_tissues().reshape(100, 300)
    both = np.concatenate([values, np.full((10, 300), 50.0, dtype=np.float32)])
    mask = np.arange(110)[:, None].repeat(300, axis=1) < 100
    assert fit_mixture(both, mask).means == pytest.approx(fit_mixture(values).means, abs=1e-6)


def test_a_robust_start_ignores_a_speck_of_metal() -> None:
    values = np.concatenate([three_tissues(), np.full(10, 300.0, dtype=np.float32)])
    assert fit_mixture(values, initial="robust").means == pytest.approx((0.05, 0.25, 0.9), abs=0.01)
    assert fit_mixture(values, initial="exact").means[1] != pytest.approx(0.25, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 1e4), offset=st.floats(-500, 500), seed=st.integers(0, 5))
def test_units_of_grey_do_not_matter(gain: float, offset: float, seed: int) -> None:
    values = three_tissues(3000, seed).astype(np.float64)
    plain = fit_mixture(values)
    scaled = fit_mixture(values * gain + offset)
    slack = 2e-3 + 1e-6 * abs(offset) / gain  # values are float32
    assert (np.array(scaled.means) - offset) / gain == pytest.approx(plain.means, abs=slack)


@settings(max_examples=30, deadline=None)
@given(value=st.floats(-1e6, 1e6))
def test_posteriors_sum_to_one_however_far_out(value: float) -> None:
    mixture = Mixture((0.2, 0.5, 0.3), (0.05, 0.25, 0.9), (1e-4, 1e-4, 1e-6), 3, True)
    found = posteriors(mixture, [[value, 0.25]])
    assert found.shape == (3, 1, 2)
    assert found.sum(axis=0) == pytest.approx(np.ones((1, 2)))


def test_order_is_flagged() -> None:
    assert not Mixture((0.5, 0.5), (2.0, 1.0), (1.0, 1.0), 1, True).in_order
    assert Mixture((0.5, 0.5), (1.0, 2.0), (1.0, 1.0), 1, True).in_order


def test_components_that_swap_keep_their_names_and_are_reported() -> None:
    values = three_tissues()
    swapped = fit_mixture(values, means=[0.25, 0.05, 0.9])
    assert not swapped.in_order
    assert swapped.means == pytest.approx((0.25, 0.05, 0.9), abs=0.01)
    # A narrow muscle under a wide smear of other tissue: the component started first settles on the muscle.
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-40:40, -40:40]
    inside = np.hypot(y, x) < 36
    smear = rng.uniform(10, 900, inside.shape)
    grey = np.where(rng.random(inside.shape) < 0.6, rng.normal(250, 10, inside.shape), smear)
    grey[36:44, 36:44] = 1000
    image = Image((grey * inside)[None].astype(np.float32), Grid.from_spacing((1, 80, 80), (5, 1.5, 1.5)), Contrast.T1W)
    with pytest.warns(UserWarning, match=r"in slice 0 the means .* left the order"):
        MixtureSegmenter.exact().segment(image)


def test_all_alike_is_an_error_that_says_so() -> None:
    with pytest.raises(VoxelError, match=r"all voxels have one grey value \(7\)"):
        fit_mixture(np.full(50, 7.0))
    with pytest.raises(VoxelError, match="there are no voxels"):
        fit_mixture(np.arange(9.0), np.zeros(9, dtype=np.bool_))
    constant = Image(np.full((1, 8, 8), 3.0), Grid.from_spacing((1, 8, 8), (1, 1, 1)), Contrast.T1W)
    with pytest.raises(VoxelError, match="constant"):
        MixtureSegmenter().segment(constant)


def test_a_component_that_stays_empty_fails_loudly() -> None:
    two = np.repeat(np.array([0.0, 1.0], dtype=np.float32), 100)
    with pytest.raises(SegmentationError, match="component 2 of the mixture holds no voxel"):
        fit_mixture(two, means=[0.0, 30.0, 1.0])


def test_smoothing_takes_nothing_from_outside() -> None:
    inside = np.zeros((20, 20), dtype=np.bool_)
    inside[5:15, 5:15] = True
    plane = np.where(inside, 4.0, 1000.0).astype(np.float32)
    smooth = smooth_inside(plane, inside, (2.0, 1.0))
    assert smooth[inside] == pytest.approx(4.0, abs=1e-4)
    assert not smooth[~inside].any()


# In the water image the second and third component, muscle both, change places; that is said, and does not matter.
@pytest.mark.filterwarnings("ignore:gmm:UserWarning")
@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.WATER, Contrast.CT])
@pytest.mark.parametrize("per", ["slice", "volume"])
def test_muscle_of_a_healthy_thigh(contrast: Contrast, per: str) -> None:
    image, muscle = thigh(contrast)
    found = MixtureSegmenter(per=per).segment(image)  # type: ignore[arg-type]
    assert dice(found.mask("muscle"), muscle) > 0.95
    assert found.grid is image.grid


def test_a_fat_image_shows_neither_bone_nor_muscle_so_both_are_taken() -> None:
    image, _ = thigh(Contrast.FAT)
    dark = image.voxels < 500
    found = MixtureSegmenter(sigma_mm=0.0).segment(image).mask("muscle")
    assert dice(found, dark & body_mask(image)) > 0.99
    second = MixtureSegmenter(sigma_mm=0.0, muscle="second").segment(image).mask("muscle")
    assert second.sum() < found.sum()


def test_the_published_setting_on_a_healthy_thigh() -> None:
    image, muscle = thigh(Contrast.T1W)
    method = MixtureSegmenter.exact()
    assert (method.per, method.initial, method.sigma_mm, method.muscle) == ("slice", "exact", 0.0, "second")
    assert dice(method.segment(image).mask("muscle"), muscle) > 0.95
    # Each slice stands alone: a slice gives the same whatever lies beside it.
    one = Image(image.voxels[1:2], Grid.from_spacing((1, 128, 128), (7, 1, 1)), Contrast.T1W)
    assert np.array_equal(method.segment(one).voxels[0], method.segment(image).voxels[1])


def test_posteriors_and_probabilities_fit_together() -> None:
    image, _ = thigh(Contrast.T1W)
    method = MixtureSegmenter()
    parts = method.component_posteriors(image)
    body = body_mask(image)
    assert parts.shape == (3, *image.grid.shape)
    assert parts.sum(axis=0)[body] == pytest.approx(1.0, abs=1e-5)
    assert not parts[:, ~body].any()
    probabilities = method.probabilities(image)
    assert np.array_equal(probabilities.of("muscle"), parts[1])
    assert probabilities.voxels.sum(axis=0) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(method.segment(image).mask("muscle"), parts[1] > 0.5)


def test_planes_without_body_stay_empty() -> None:
    image, _ = thigh(Contrast.T1W)
    voxels = image.voxels.copy()
    voxels[0] = 0
    with_gap = image.with_voxels(voxels)
    found = MixtureSegmenter(per="slice").mixtures(with_gap)
    assert [mixture is None for mixture in found] == [True, False, False]
    for per in ("slice", "volume"):
        assert not MixtureSegmenter(per=per).segment(with_gap).voxels[0].any()  # type: ignore[arg-type]
    assert posteriors(Mixture((0.5, 0.5), (0.0, 1.0), (1.0, 1.0), 1, True), []).shape == (2, 0)


def test_it_is_a_segmenter_that_can_be_cloned() -> None:
    method = MixtureSegmenter(per="slice", tolerance=1e-5)
    assert isinstance(method, ProbabilisticSegmenter)
    assert clone(method).get_params() == method.get_params()
    assert method.fit([]) is method


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"per": "leg"}, "per must be one of slice, volume, not 'leg'"),
        ({"initial": "paper"}, "initial must be one of exact, robust"),
        ({"muscle": "third"}, "muscle must be one of by-contrast, second"),
        ({"sigma_mm": -1.0}, "sigma_mm must be a number of at least 0, not -1.0"),
        ({"n_bins": 2}, "n_bins must be a whole number of at least 3"),
        ({"max_iterations": 0}, "max_iterations must be a whole number of at least 1"),
        ({"tolerance": float("nan")}, "tolerance must be a number of at least 0, not nan"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MixtureSegmenter().set_params(**parameters).fit([])


def test_an_image_without_a_body_is_refused() -> None:
    voxels = np.zeros((2, 40, 40), np.float32)
    voxels[:, 10:13, 10:13] = 500.0
    speck = Image(voxels, Grid.from_spacing(voxels.shape, (5, 1, 1)), Contrast.T1W)
    with pytest.raises(SegmentationError, match="no body found"):
        MixtureSegmenter().segment(speck)
