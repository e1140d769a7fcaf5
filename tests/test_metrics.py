from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure
from scipy.spatial.distance import cdist

from musclekit.errors import GeometryError, ParameterError
from musclekit.metrics import (
    ReferenceSurface,
    SurfaceDistances,
    accuracy,
    accuracy_of_counts,
    average_surface_distance,
    dice,
    dice_of_counts,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    jaccard,
    jaccard_of_counts,
    positive_predictive_value,
    positive_predictive_value_of_counts,
    ppv_erosion_curve,
    sensitivity,
    sensitivity_of_counts,
    specificity,
    specificity_of_counts,
    surface,
    surface_dice,
    surface_distances,
    volume_error,
)

Mask = NDArray[np.bool_]


def squares() -> tuple[Mask, Mask]:
    """Two 9x9 squares, one pixel apart."""
    a, b = np.zeros((15, 15), bool), np.zeros((15, 15), bool)
    a[3:12, 3:12] = True
    b[3:12, 4:13] = True
    return a, b


def ball(radius: float, centre: tuple[float, float, float], shape: tuple[int, int, int] = (20, 24, 28)) -> Mask:
    grid = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    mask: Mask = (grid**2).sum(axis=0) <= radius**2
    return mask


pairs = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)
spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3)


def brute_force(a: Mask, b: Mask, spacing: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances by SciPy's erosion and every pair of points."""
    used = [axis for axis, length in enumerate(a.shape) if length > 1]

    def edge(mask: Mask) -> NDArray[np.float64]:
        if used:
            flat = np.squeeze(mask)
            inside = binary_erosion(flat, generate_binary_structure(flat.ndim, 1)).reshape(mask.shape)
            mask = mask & ~inside
        return np.argwhere(mask) * np.asarray(spacing)

    between = cdist(edge(a), edge(b))
    return between.min(axis=1, initial=np.inf), between.min(axis=0, initial=np.inf)


def test_dice_of_squares_one_pixel_apart() -> None:
    assert dice(*squares()) == pytest.approx(0.8889, abs=5e-5)


@pytest.mark.parametrize(("spacing", "expected"), [((1.0, 1.0), 0.5), ((2.0, 2.0), 1.0)])
def test_asd_of_squares_one_pixel_apart(spacing: tuple[float, float], expected: float) -> None:
    distances = surface_distances(*squares(), spacing)
    assert average_surface_distance(distances) == pytest.approx(expected)
    assert hausdorff95(distances) == hausdorff(distances) == spacing[1]


def test_a_single_plane_is_measured_in_its_plane() -> None:
    a, b = squares()
    flat = surface_distances(a, b, (0.8, 0.8))
    for axis, spacing in enumerate([(5.0, 0.8, 0.8), (0.8, 5.0, 0.8), (0.8, 0.8, 5.0)]):
        plane = surface_distances(np.expand_dims(a, axis), np.expand_dims(b, axis), spacing)
        assert average_surface_distance(plane) == average_surface_distance(flat)


def test_a_plane_of_a_volume_is_all_surface() -> None:
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 2:7, 2:7] = True
    assert surface(mask).sum() == 25
    assert surface(mask[1:2]).sum() == 16
    other = np.roll(mask, 1, axis=2)
    # 5 of 25 voxels lie 1 mm from the other square on either side.
    assert average_surface_distance(surface_distances(mask, other, (1, 1, 1))) == pytest.approx(0.2)


def test_a_single_voxel_is_its_own_surface() -> None:
    assert surface(np.ones((1, 1, 1), bool)).all()


def test_anisotropic_distances_are_in_millimetres() -> None:
    a, b = ball(4, (8, 10, 12)), ball(4, (10, 10, 12))
    assert hausdorff(surface_distances(a, b, (3.0, 1.0, 1.0))) > hausdorff(surface_distances(a, b, (1.0, 1.0, 1.0)))
    lone_a, lone_b = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    lone_a[1, 1, 1] = lone_b[3, 2, 1] = True
    assert hausdorff(surface_distances(lone_a, lone_b, (3.0, 8.0, 1.0))) == 10.0


def test_hausdorff95_pools_both_directions() -> None:
    a = np.zeros((1, 1, 40), bool)
    b = a.copy()
    a[0, 0, ::2] = True  # 20 lone voxels: with 1 voxel of b, 21 pooled distances
    b[0, 0, 0] = True
    pooled = np.append(np.arange(0, 40, 2.0), 0.0)
    # Along a line every second voxel stands alone, so each is surface.
    assert hausdorff95(surface_distances(a, b, (1, 1, 1))) == pytest.approx(np.percentile(pooled, 95))


@settings(max_examples=150, deadline=None)
@given(pairs, spacings)
def test_distances_are_those_of_brute_force(pair: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    found = surface_distances(*pair, spacing)
    expected = brute_force(*pair, spacing)
    np.testing.assert_allclose(np.sort(found.a_to_b), np.sort(expected[0]), rtol=1e-12)
    np.testing.assert_allclose(np.sort(found.b_to_a), np.sort(expected[1]), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs, spacings)
def test_measures_are_symmetric_and_scale(pair: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    a, b = pair
    for measure in (average_surface_distance, hausdorff95, hausdorff):
        forth = measure(surface_distances(a, b, spacing))
        assert measure(surface_distances(b, a, spacing)) == pytest.approx(forth, nan_ok=True)
        doubled = measure(surface_distances(a, b, [2 * s for s in spacing]))
        assert doubled == pytest.approx(2 * forth, nan_ok=True)
    assert dice(a, b) == pytest.approx(dice(b, a), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_dice_is_the_f1_score(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    true, wrong = int((a & b).sum()), int((a ^ b).sum())
    expected = 2 * true / (2 * true + wrong) if true + wrong else np.nan
    assert dice(a, b) == pytest.approx(expected, nan_ok=True)


def test_empty_masks_follow_the_convention() -> None:
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert np.isnan(dice(empty, empty))
    assert dice(empty, full) == dice(full, empty) == 0
    for measure in (average_surface_distance, hausdorff95, hausdorff):
        assert np.isnan(measure(surface_distances(empty, empty, (1, 1, 1))))
        assert measure(surface_distances(empty, full, (1, 1, 1))) == np.inf
        assert measure(surface_distances(full, empty, (1, 1, 1))) == np.inf
        assert measure(surface_distances(full, full, (1, 1, 1))) == 0


def test_dice_of_counts_works_element_by_element() -> None:
    np.testing.assert_array_equal(dice_of_counts([1, 0, 0], [2, 3, 0], [2, 0, 0]), [0.5, 0.0, np.nan])


def test_volume_error_is_prediction_minus_reference() -> None:
    reference = np.zeros((4, 10, 10), bool)
    reference[:, :5] = True
    smaller = reference.copy()
    smaller[0] = False
    error = volume_error(smaller, reference, voxel_volume_mm3=20.0)
    assert error.ml == pytest.approx(-1.0)
    assert error.percent == pytest.approx(-25.0)
    assert volume_error(reference, smaller, 20.0).ml == pytest.approx(1.0)


def test_volume_error_of_empty_masks() -> None:
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert volume_error(full, empty, 1.0).percent == np.inf
    assert volume_error(empty, full, 1.0).percent == -100
    nothing = volume_error(empty, empty, 1.0)
    assert nothing.ml == 0
    assert np.isnan(nothing.percent)


def test_bad_masks_are_refused() -> None:
    mask = np.ones((2, 3, 4), bool)
    with pytest.raises(GeometryError, match=r"masks of shape \(2, 3, 4\) and \(3, 4\) cannot be compared"):
        dice(mask, mask[0])
    with pytest.raises(ParameterError, match="a mask is boolean, not uint8; compare first"):
        dice(mask.astype(np.uint8), mask)
    with pytest.raises(GeometryError, match="spacing needs 3 positive numbers, one an axis, not"):
        surface_distances(mask, mask, (1.0, 1.0))
    with pytest.raises(GeometryError, match="spacing needs 3 positive numbers"):
        surface_distances(mask, mask, (1.0, 0.0, 1.0))


@pytest.mark.parametrize("empty_side", ["both", "prediction", "reference"])
def test_empty_masks_in_every_other_measure(empty_side: str) -> None:
    empty, some = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    some[1, 1:3, 1:4] = True
    everywhere = np.ones((3, 4, 5), bool)
    prediction = some if empty_side == "reference" else empty
    reference = some if empty_side == "prediction" else empty
    distances = surface_distances(prediction, reference, (1, 1, 1))
    found = {
        "jaccard": jaccard(prediction, reference),
        "sensitivity": sensitivity(prediction, reference),
        "ppv": positive_predictive_value(prediction, reference),
        "specificity": specificity(prediction, reference, everywhere),
        "accuracy": accuracy(prediction, reference, everywhere),
        "hausdorff95_max": hausdorff95_max(distances),
        "surface_dice": surface_dice(distances, 100.0),
    }
    expected = {
        "both": dict.fromkeys(found, np.nan) | {"specificity": 1.0, "accuracy": 1.0},
        "prediction": dict.fromkeys(found, 0.0)
        | {"ppv": np.nan, "specificity": 1.0, "accuracy": 54 / 60, "hausdorff95_max": np.inf},
        "reference": dict.fromkeys(found, 0.0)
        | {"sensitivity": np.nan, "specificity": 54 / 60, "accuracy": 54 / 60, "hausdorff95_max": np.inf},
    }[empty_side]
    assert found == pytest.approx(expected, nan_ok=True)
    curve = ppv_erosion_curve(prediction, reference)
    assert curve.area_ratio.tolist() == ([np.inf] if empty_side == "reference" else [])
    assert curve.positive_predictive_value.tolist() == ([0.0] if empty_side == "reference" else [])


def test_overlap_of_hand_counted_squares() -> None:
    prediction, reference = squares()  # 81 each, 72 in common, of 225
    prediction[3] = False  # 72, 64 in common
    everywhere, body = np.ones((15, 15), bool), np.zeros((15, 15), bool)
    body[:, 2:14] = True  # 180 voxels
    assert jaccard(prediction, reference) == pytest.approx(64 / 89)
    assert sensitivity(prediction, reference) == pytest.approx(64 / 81)
    assert positive_predictive_value(prediction, reference) == pytest.approx(64 / 72)
    assert specificity(prediction, reference, everywhere) == pytest.approx((225 - 89) / (225 - 81))
    assert specificity(prediction, reference, body) == pytest.approx((180 - 89) / (180 - 81))
    # 25 voxels are wrong: 8 found beside the reference, 17 of it not found.
    assert accuracy(prediction, reference, everywhere) == pytest.approx((225 - 25) / 225)
    assert accuracy(prediction, reference, body) == pytest.approx((180 - 25) / 180)
    body[:, 3] = False  # now the false positives, in column 3, lie outside
    assert specificity(prediction, reference, body) == 1.0
    assert accuracy(prediction, reference, body) == pytest.approx((165 - 17) / 165)


def test_specificity_where_the_reference_fills_the_region() -> None:
    prediction, reference = squares()
    assert np.isnan(specificity(prediction, reference, reference))
    assert accuracy(prediction, reference, reference) == pytest.approx(72 / 81)
    assert np.isnan(accuracy(prediction, reference, np.zeros_like(reference)))


def test_counts_work_element_by_element() -> None:
    common, found, wanted = [[1, 0], [0, 0]], [[2, 3], [0, 0]], [[2, 0], [2, 0]]
    nan = np.nan
    np.testing.assert_allclose(jaccard_of_counts(common, found, wanted), [[1 / 3, 0], [0, nan]])
    np.testing.assert_array_equal(sensitivity_of_counts(common, wanted), [[0.5, nan], [0, nan]])
    np.testing.assert_array_equal(positive_predictive_value_of_counts(common, found), [[0.5, 0], [nan, nan]])
    np.testing.assert_allclose(specificity_of_counts(common, found, wanted, 10), [[7 / 8, 0.7], [1, 1]])
    np.testing.assert_allclose(accuracy_of_counts(common, found, wanted, 10), [[0.8, 0.7], [0.8, 1]])


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_measures_of_overlap_agree_with_each_other(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    d = dice(a, b)
    assert jaccard(a, b) == pytest.approx(d / (2 - d), nan_ok=True)
    assert sensitivity(a, b) == pytest.approx(positive_predictive_value(b, a), nan_ok=True)
    everywhere = np.ones_like(a)
    assert specificity(a, b, everywhere) == pytest.approx(sensitivity(~a, ~b), nan_ok=True)
    assert accuracy(a, b, everywhere) == pytest.approx(np.mean(a == b))
    if a.any() and b.any():
        parts = sensitivity(a, b), positive_predictive_value(a, b)
        assert d == pytest.approx(2 * parts[0] * parts[1] / sum(parts) if sum(parts) else 0)


def test_hausdorff95_max_takes_the_worse_direction() -> None:
    distances = SurfaceDistances(np.arange(21.0), np.zeros(1000))
    assert hausdorff95_max(distances) == 19.0
    assert hausdorff95(distances) == 0.0


def test_surface_dice_counts_what_lies_within() -> None:
    distances = SurfaceDistances(np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0]))
    assert [surface_dice(distances, mm) for mm in (0, 1, 2.5, 3)] == [0.4, 0.6, 0.8, 1.0]
    lone_a, lone_b = np.zeros(4, bool), np.zeros(4, bool)
    lone_a[0] = lone_b[3] = True
    assert surface_dice(surface_distances(lone_a, lone_b, [0.1]), 0.3) == 1.0  # 3 x 0.1 is not 0.3 in floats


@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(ParameterError, match="tolerance_mm must be a finite number, 0 or more, not"):
        surface_dice(surface_distances(*squares(), (1, 1)), tolerance)


@settings(max_examples=100, deadline=None)
@given(pairs, spacings, st.data())
def test_a_reference_made_ready_measures_every_prediction_alike(
    pair: tuple[Mask, Mask], spacing: tuple[float, float, float], data: st.DataObject
) -> None:
    reference = ReferenceSurface(pair[1], spacing)
    another = data.draw(hnp.arrays(np.bool_, pair[0].shape))
    for prediction in (pair[0], another, pair[0]):
        found, expected = reference.distances(prediction), brute_force(prediction, pair[1], spacing)
        # Element by element: voxels are met in the order of the array.
        np.testing.assert_allclose(found.a_to_b, expected[0], rtol=1e-12)
        np.testing.assert_allclose(found.b_to_a, expected[1], rtol=1e-12)


def test_a_reference_made_ready_refuses_another_shape() -> None:
    reference = ReferenceSurface(np.ones((2, 3, 4), bool), (1, 1, 1))
    with pytest.raises(GeometryError, match=r"masks of shape \(2, 3, 5\) and \(2, 3, 4\) cannot be compared"):
        reference.distances(np.ones((2, 3, 5), bool))
    with pytest.raises(ParameterError, match="a mask is boolean, not int64"):
        reference.distances(np.ones((2, 3, 4), np.int64))
    with pytest.raises(ParameterError, match="a mask is boolean, not uint8"):
        ReferenceSurface(np.ones((2, 3, 4), np.uint8), (1, 1, 1))
    with pytest.raises(GeometryError, match="spacing needs 3 positive numbers, one an axis"):
        ReferenceSurface(np.ones((2, 3, 4), bool), (1, np.nan, 1))


def test_the_erosion_curve_of_squares_one_pixel_apart() -> None:
    curve = ppv_erosion_curve(*squares())
    np.testing.assert_allclose(curve.area_ratio, [1, 0.6049, 0.3086, 0.1111, 0.0123], atol=5e-5)
    np.testing.assert_allclose(curve.positive_predictive_value, [0.8889, 1, 1, 1, 1], atol=5e-5)


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_the_erosion_curve_is_that_of_scipy(pair: tuple[Mask, Mask]) -> None:
    left, wanted = pair
    points = []
    while left.any():
        points.append((left.sum(), (left & wanted).sum()))
        left = binary_erosion(left, np.ones((1, 3, 3), bool))
    curve = ppv_erosion_curve(*pair)
    with np.errstate(divide="ignore"):
        expected = [np.divide(size, wanted.sum()) for size, _ in points]
    np.testing.assert_allclose(curve.area_ratio, expected)
    np.testing.assert_allclose(curve.positive_predictive_value, [common / size for size, common in points])


def test_the_erosion_curve_wants_slices() -> None:
    with pytest.raises(GeometryError, match=r"masks of 2 or 3 dimensions, not of shape \(4,\)"):
        ppv_erosion_curve(np.ones(4, bool), np.ones(4, bool))


@settings(max_examples=30, deadline=None)
@given(pairs, spacings)
def test_simpleitk_agrees(pair: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    a, b = pair
    if not a.any() or not b.any():
        return  # SimpleITK has other conventions
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in pair]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)  # the second is the reference
    assert dice(a, b) == pytest.approx(overlap.GetDiceCoefficient(1))
    assert jaccard(a, b) == pytest.approx(overlap.GetJaccardCoefficient(1))
    assert 1 - sensitivity(a, b) == pytest.approx(overlap.GetFalseNegativeError(1))
    assert 1 - positive_predictive_value(a, b) == pytest.approx(overlap.GetFalseDiscoveryRate(1))
    assert 1 - specificity(a, b, np.ones_like(a)) == pytest.approx(overlap.GetFalsePositiveError(1), nan_ok=True)
    # Its Hausdorff distance is that of all voxels; of the surfaces alone it is a Maurer map, looked up.
    distances = surface_distances(a, b, spacing)
    for of, to, found in ((a, b, distances.a_to_b), (b, a, distances.b_to_a)):
        image = sitk.GetImageFromArray(surface(to).astype(np.uint8))
        image.SetSpacing(spacing[::-1])
        far = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
        # Within the surface the map is negative or 0: those voxels lie on it.
        expected = np.maximum(sitk.GetArrayFromImage(far)[surface(of)], 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(pairs, spacings)
def test_distances_are_those_of_scipys_transform(pair: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    a, b = pair
    if not a.any() or not b.any():
        return
    distances = surface_distances(a, b, spacing)
    for of, to, found in ((a, b, distances.a_to_b), (b, a, distances.b_to_a)):
        expected = distance_transform_edt(~surface(to), sampling=spacing)[surface(of)]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.slow  # importing MONAI takes seconds
@pytest.mark.filterwarnings("ignore")  # and warns of matters that are not ours
def test_monai_agrees() -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    spacing = (3.0, 0.8, 0.8)
    for a, b in [
        (ball(6, (9, 11, 13)), ball(6, (10, 12, 14))),
        (ball(3, (5, 8, 20)), ball(7, (11, 12, 13))),
        (ball(9, (0, 11, 13)), ball(8, (1, 11, 15))),  # cut by the first plane
    ]:
        distances = surface_distances(a, b, spacing)
        one, other = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (a, b))
        assert dice(a, b) == pytest.approx(float(monai.compute_dice(one, other)))
        asd = monai.compute_average_surface_distance(one, other, symmetric=True, spacing=spacing)
        assert average_surface_distance(distances) == pytest.approx(float(asd), rel=1e-5)
        largest = monai.compute_hausdorff_distance(one, other, spacing=spacing)
        assert hausdorff(distances) == pytest.approx(float(largest), rel=1e-5)
        percentile = monai.compute_hausdorff_distance(one, other, percentile=95, spacing=spacing)
        assert hausdorff95_max(distances) == pytest.approx(float(percentile), rel=1e-5)
        assert jaccard(a, b) == pytest.approx(float(monai.compute_iou(one, other)))
        for tolerance in (0.0, 1.0, 3.0):
            # MONAI leaves the first channel out unless told.
            within = monai.compute_surface_dice(one, other, [tolerance], include_background=True, spacing=spacing)
            assert surface_dice(distances, tolerance) == pytest.approx(float(within), rel=1e-5)
        confusion = monai.get_confusion_matrix(one, other)
        for name, measured in (
            ("sensitivity", sensitivity(a, b)),
            ("precision", positive_predictive_value(a, b)),
            ("specificity", specificity(a, b, np.ones_like(a))),
        ):
            assert measured == pytest.approx(float(monai.compute_confusion_matrix_metric(name, confusion)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None)
@given(pairs, spacings)
def test_monai_agrees_on_random_masks(pair: tuple[Mask, Mask], spacing: tuple[float, float, float]) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    a, b = pair
    if not a.any() or not b.any() or 1 in a.shape:
        return  # a mask of one plane is all surface to MONAI
    distances = surface_distances(a, b, spacing)
    one, other = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (a, b))
    asd = monai.compute_average_surface_distance(one, other, symmetric=True, spacing=spacing, include_background=True)
    assert average_surface_distance(distances) == pytest.approx(float(asd), rel=1e-5, abs=1e-6)
    for percentile, measured in ((None, hausdorff(distances)), (95, hausdorff95_max(distances))):
        far = monai.compute_hausdorff_distance(
            one, other, percentile=percentile, spacing=spacing, include_background=True
        )
        assert measured == pytest.approx(float(far), rel=1e-5, abs=1e-6)
