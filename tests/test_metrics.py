from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.spatial.distance import cdist

from musclekit.errors import GeometryError, ParameterError
from musclekit.metrics import (
    average_surface_distance,
    dice,
    dice_of_counts,
    hausdorff,
    hausdorff95,
    surface,
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
        directed = max(np.percentile(distances.a_to_b, 95), np.percentile(distances.b_to_a, 95))
        percentile = monai.compute_hausdorff_distance(one, other, percentile=95, spacing=spacing)
        assert directed == pytest.approx(float(percentile), rel=1e-5)
