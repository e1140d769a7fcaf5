from __future__ import annotations

import itertools
import math
from dataclasses import replace

import cv2
import maxflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from musclekit.errors import GeometryError, ParameterError, VoxelError
from musclekit.segmenters.mincut import (
    BACKGROUND,
    FREE,
    MUSCLE,
    BinaryProblem,
    Neighbourhood,
    cut_energy,
    mean_squared_difference,
    min_cut,
    neighbourhood,
)

CONNECTIVITIES = (4, 8, 6, 18, 26)
SPACING = (3.0, 1.0, 1.0)


def pairs_of(problem: BinaryProblem) -> list[tuple[int, int, float]]:
    """Every pair of neighbours by flat index, with what parting it costs: written to be read, not to be fast."""
    shape = problem.shape
    found = []
    for here in itertools.product(*(range(n) for n in shape)):
        for offset, weight in zip(problem.neighbourhood.offsets, problem.neighbourhood.weights, strict=True):
            there = tuple(a + b for a, b in zip(here, offset, strict=True))
            if all(0 <= k < n for k, n in zip(there, shape, strict=True)):
                price = problem.smoothness * weight
                if problem.guide is not None:
                    step = float(problem.guide[here]) - float(problem.guide[there])
                    price *= math.exp(-(step**2) / (2 * problem.guide_variance))
                i, j = (int(np.ravel_multi_index(p, shape)) for p in (here, there))
                found.append((i, j, price))
    return found


def all_energies(problem: BinaryProblem) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Energy of every labelling there is, and the labellings, one a row."""
    n = math.prod(problem.shape)
    labels = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    energy = np.where(labels, problem.muscle_cost.ravel(), problem.background_cost.ravel()).sum(axis=1)
    for i, j, price in pairs_of(problem):
        energy += price * (labels[:, i] != labels[:, j])
    if problem.fixed is not None:
        wrong = (problem.fixed.ravel() != FREE) & (problem.fixed.ravel() != labels)
        energy[wrong.any(axis=1)] = np.inf
    return energy, labels


def whole_cut(problem: BinaryProblem) -> NDArray[np.bool_]:
    """The peer: PyMaxflow on the full grid, hard constraints as large capacities."""
    shape, n = problem.shape, math.prod(problem.shape)
    graph = maxflow.GraphFloat(n, n * len(problem.neighbourhood.offsets))
    nodes = graph.add_grid_nodes(shape)
    for offset, weight in zip(problem.neighbourhood.offsets, problem.neighbourhood.weights, strict=True):
        near = tuple(slice(max(0, -k), min(n, n - k)) for k, n in zip(offset, shape, strict=True))
        far = tuple(slice(max(0, k), min(n, n + k)) for k, n in zip(offset, shape, strict=True))
        prices = np.full(nodes[near].shape, problem.smoothness * weight)
        if problem.guide is not None:
            prices *= np.exp(-((problem.guide[near] - problem.guide[far]) ** 2) / (2 * problem.guide_variance))
        graph.add_edges(nodes[near].ravel(), nodes[far].ravel(), prices.ravel(), prices.ravel())
    gain = (problem.background_cost - problem.muscle_cost).astype(np.float64)
    if problem.fixed is not None:
        gain = np.select([problem.fixed == BACKGROUND, problem.fixed == MUSCLE], [-(2.0**30), 2.0**30], gain)
    graph.add_grid_tedges(nodes, np.maximum(-gain, 0), np.maximum(gain, 0))
    graph.maxflow()
    found: NDArray[np.bool_] = graph.get_grid_segments(nodes)
    return found


def soft_disk(shape: tuple[int, int, int], rng: np.random.Generator, noise: float = 0.25) -> NDArray[np.float64]:
    """Like the probabilities of a thigh: high in a ring, low around it and in its middle, doubtful here and there."""
    _, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    radius = np.hypot(y - shape[1] / 2, x - shape[2] / 2) / min(shape[1:])
    ring = ((radius < 0.35) & (radius > 0.08)).astype(float)
    blotches = np.stack([cv2.GaussianBlur(rng.normal(size=shape[1:]), (0, 0), 3) for _ in range(shape[0])])
    doubt = noise * rng.normal(size=shape) + 8 * noise * blotches
    # Not clipped to 0..1: costs that are all alike have several cheapest labellings.
    return 0.1 + 0.8 * ring + doubt


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 2, 3)])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_cut_is_the_cheapest_of_all_labellings(
    shape: tuple[int, int, int], connectivity: int, contrast: bool, given: bool
) -> None:
    rng = np.random.default_rng(connectivity)
    for _ in range(4):
        problem = BinaryProblem(
            rng.random(shape),
            rng.random(shape),
            neighbourhood(connectivity, SPACING),
            float(rng.uniform(0.02, 0.5)),
            rng.choice([FREE, FREE, FREE, BACKGROUND, MUSCLE], shape).astype(np.int8) if given else None,
            rng.random(shape) if contrast else None,
            0.1,
        )
        energies, labels = all_energies(problem)
        found = min_cut(problem)
        np.testing.assert_array_equal(found.ravel(), labels[energies.argmin()])
        assert cut_energy(problem, found) == pytest.approx(energies.min(), abs=1e-12)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_of_equals_the_one_with_least_muscle(connectivity: int) -> None:
    rng = np.random.default_rng(connectivity)
    several = 0
    for _ in range(40):
        costs = rng.integers(0, 4, (2, 1, 3, 4)) / 4
        pairs = neighbourhood(connectivity, SPACING)
        problem = BinaryProblem(costs[0], costs[1], replace(pairs, weights=(1.0,) * len(pairs.weights)), 0.25)
        energies, labels = all_energies(problem)
        best = labels[energies == energies.min()]
        several += len(best) > 1
        # The common part of cheapest labellings is one of them.
        np.testing.assert_array_equal(min_cut(problem).ravel(), best.all(axis=0))
    assert several > 3


def test_energy_is_counted_pair_by_pair() -> None:
    rng = np.random.default_rng(3)
    shape = (3, 4, 5)
    mask = rng.random(shape) < 0.5
    for connectivity, guide in itertools.product(CONNECTIVITIES, (None, rng.random(shape))):
        problem = BinaryProblem(
            rng.random(shape), rng.random(shape), neighbourhood(connectivity, SPACING), 0.3, None, guide, 0.2
        )
        expected = np.where(mask, problem.muscle_cost, problem.background_cost).sum()
        expected += sum(price for i, j, price in pairs_of(problem) if mask.flat[i] != mask.flat[j])
        assert cut_energy(problem, mask) == pytest.approx(expected, rel=1e-12)


def test_energy_of_a_contradiction_is_infinite() -> None:
    fixed = np.full((1, 2, 2), FREE, dtype=np.int8)
    fixed[0, 0, 0] = BACKGROUND
    problem = BinaryProblem(np.ones((1, 2, 2)), np.zeros((1, 2, 2)), neighbourhood(4, SPACING), 0.1, fixed)
    assert cut_energy(problem, np.ones((1, 2, 2), dtype=bool)) == math.inf
    assert not min_cut(problem)[0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    connectivity=st.sampled_from(CONNECTIVITIES),
    smoothness=st.sampled_from([0.001, 0.02, 0.1, 0.2, 0.5]),
    planes=st.integers(1, 6),
    contrast=st.sampled_from(["none", "image", "speckle"]),
    slab=st.floats(0.8, 8),
    noise=st.floats(0.02, 0.6),
)
def test_band_finds_the_cut_of_the_whole_grid(
    seed: int, connectivity: int, smoothness: float, planes: int, contrast: str, slab: float, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = (planes, 44, 37)
    muscle = soft_disk(shape, rng, noise)
    fixed = np.full(shape, FREE, dtype=np.int8)
    # Any part of the rim, so that the box of the free voxels lies anywhere.
    top, bottom, left, right = rng.integers(0, 9, 4)
    fixed[:, :top], fixed[:, 44 - bottom :], fixed[:, :, :left], fixed[:, :, 37 - right :] = (BACKGROUND,) * 4
    fixed[: rng.integers(0, planes)] = BACKGROUND
    fixed[-1, 20:22, 17:20] = MUSCLE
    # Speckle: weights of nearly 0 among those of 1, so that no shape holds together by its size.
    guide = {"none": None, "image": muscle, "speckle": (rng.random(shape) < 0.3).astype(float)}[contrast]
    pairs = neighbourhood(connectivity, (slab, 1, 1))
    problem = BinaryProblem(muscle, 1 - muscle, pairs, smoothness, fixed, guide, 0.03)
    ours, peer = min_cut(problem), whole_cut(problem)
    assert cut_energy(problem, ours) == pytest.approx(cut_energy(problem, peer), rel=1e-10)
    # Costs of random numbers have one cheapest labelling.
    np.testing.assert_array_equal(ours, peer)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_cut_is_the_maximum_flow_of_scipy(connectivity: int) -> None:
    muscle = soft_disk((1, 200, 200), np.random.default_rng(1))
    problem = BinaryProblem(muscle, 1 - muscle, neighbourhood(connectivity, SPACING), 0.2)
    n = muscle.size
    source, sink = n, n + 1
    gain = (problem.background_cost - problem.muscle_cost).ravel()
    pairs = pairs_of(problem)
    # Whole capacities as large as SciPy's 32 bits allow for the sum at any node.
    scale = min(1e6, 2.0**30 / (abs(gain).max() + sum(problem.neighbourhood.weights) * 2 * problem.smoothness))
    whole = np.rint(gain * scale).astype(np.int32)
    i, j, price = (np.array(column) for column in zip(*pairs, strict=True))
    edge = np.rint(price * scale).astype(np.int32)
    towards, away = np.flatnonzero(whole > 0), np.flatnonzero(whole < 0)
    rows = np.concatenate([i, j, np.full(len(towards), source), away])
    columns = np.concatenate([j, i, towards, np.full(len(away), sink)])
    capacities = np.concatenate([edge, edge, whole[towards], -whole[away]])
    graph = sparse.csr_array((capacities, (rows, columns)), shape=(n + 2, n + 2))
    flow = sparse.csgraph.maximum_flow(graph, source, sink).flow_value
    # What is left of every voxel's cost is what it pays in any case.
    least = float(np.minimum(problem.background_cost, problem.muscle_cost).sum()) + flow / scale
    found = cut_energy(problem, min_cut(problem))
    assert found == pytest.approx(least, abs=n * 3 / scale)
    assert found < 0.99 * cut_energy(problem, muscle > 0.5)


def test_no_random_flip_is_cheaper() -> None:
    rng = np.random.default_rng(2)
    muscle = soft_disk((4, 40, 40), rng)
    problem = BinaryProblem(muscle, 1 - muscle, neighbourhood(26, SPACING), 0.1)
    found = min_cut(problem)
    least = cut_energy(problem, found)
    for size in (1, 2, 5, 20) * 250:
        other = found.copy()
        at = rng.integers(0, other.size, size)
        other.flat[at] = ~other.flat[at]
        assert cut_energy(problem, other) >= least - 1e-9


def test_without_smoothness_each_voxel_decides_by_itself() -> None:
    rng = np.random.default_rng(0)
    muscle = rng.random((2, 9, 9)).astype(np.float32)
    muscle[0, 0, :3] = 0.5, np.nextafter(np.float32(0.5), np.float32(1)), np.nextafter(np.float32(0.5), np.float32(0))
    fixed = np.full(muscle.shape, FREE, dtype=np.int8)
    fixed[1, :2] = BACKGROUND
    fixed[1, 2:4] = MUSCLE
    found = min_cut(BinaryProblem(muscle, 1 - muscle, neighbourhood(8, SPACING), 0.0, fixed))
    expected = (muscle > 0.5) & (fixed != BACKGROUND) | (fixed == MUSCLE)
    np.testing.assert_array_equal(found, expected)


def test_what_both_labels_cost_does_not_matter() -> None:
    muscle = soft_disk((2, 60, 60), np.random.default_rng(4))
    shift = np.random.default_rng(5).uniform(0, 1e8, muscle.shape)
    pairs = neighbourhood(26, SPACING)
    plain = min_cut(BinaryProblem(muscle, 1 - muscle, pairs, 0.1))
    np.testing.assert_array_equal(min_cut(BinaryProblem(muscle + shift, 1 - muscle + shift, pairs, 0.1)), plain)


def test_all_may_be_given() -> None:
    costs = np.random.default_rng(0).random((2, 2, 5, 5))
    for label in (BACKGROUND, MUSCLE):
        fixed = np.full((2, 5, 5), label, dtype=np.int8)
        found = min_cut(BinaryProblem(costs[0], costs[1], neighbourhood(26, SPACING), 0.2, fixed))
        np.testing.assert_array_equal(found, label == MUSCLE)


def test_planes_are_cut_one_by_one_with_neighbours_in_the_plane() -> None:
    muscle = soft_disk((3, 30, 30), np.random.default_rng(5))
    pairs = neighbourhood(8, SPACING)
    together = min_cut(BinaryProblem(muscle, 1 - muscle, pairs, 0.3))
    alone = [min_cut(BinaryProblem(plane[None], 1 - plane[None], pairs, 0.3)) for plane in muscle]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_cut_leaves_the_problem_alone_and_takes_read_only_arrays() -> None:
    muscle = soft_disk((2, 20, 20), np.random.default_rng(5))
    background = 1 - muscle
    fixed = np.full(muscle.shape, FREE, dtype=np.int8)
    for array in (muscle, background, fixed):
        array.setflags(write=False)
    problem = BinaryProblem(muscle, background, neighbourhood(6, SPACING), 0.2, fixed, muscle, 0.1)
    np.testing.assert_array_equal(min_cut(problem), min_cut(problem))


@pytest.mark.parametrize(
    ("connectivity", "count", "weights"),
    [
        (4, 2, {(0, 0, 1): 1, (0, 1, 0): 1}),
        (8, 4, {(0, 1, 1): 1 / math.sqrt(2), (0, 1, -1): 1 / math.sqrt(2), (0, 0, 1): 1}),
        (6, 3, {(1, 0, 0): 0.25, (0, 1, 0): 1}),
        (18, 9, {(1, 0, 1): 2 / math.hypot(8, 2), (1, -1, 0): 2 / math.hypot(8, 2), (0, 1, 1): 1 / math.sqrt(2)}),
        (26, 13, {(1, 1, 1): 2 / math.sqrt(64 + 4 + 4), (1, -1, 1): 2 / math.sqrt(72)}),
    ],
)
def test_weights_follow_the_spacing(connectivity: int, count: int, weights: dict[tuple[int, ...], float]) -> None:
    pairs = neighbourhood(connectivity, (8.0, 2.0, 2.0))
    assert len(pairs.offsets) == len(pairs.weights) == count
    # One of each opposite pair.
    assert not {tuple(-k for k in offset) for offset in pairs.offsets} & set(pairs.offsets)
    found = dict(zip(pairs.offsets, pairs.weights, strict=True))
    for offset, weight in weights.items():
        assert found[offset] == pytest.approx(weight)


def test_oblong_pixels_weigh_by_their_distance() -> None:
    pairs = dict(zip(*(getattr(neighbourhood(4, (1.0, 4.0, 1.0)), k) for k in ("offsets", "weights")), strict=True))
    assert pairs == {(0, 0, 1): 2.0, (0, 1, 0): 0.5}


def test_unknown_neighbourhood_is_refused() -> None:
    with pytest.raises(ParameterError, match="must be one of 4, 8, 6, 18, 26, not 5"):
        neighbourhood(5, SPACING)


def test_mean_squared_difference_counts_the_pairs_inside() -> None:
    guide = np.array([[[0.0, 1.0, 3.0], [0.0, 0.0, 10.0]]])
    pairs = neighbourhood(4, SPACING)
    # Along x: 1, 4, 0, 100; along y: 0, 1, 49.
    assert mean_squared_difference(guide, pairs) == pytest.approx(155 / 7)
    inside = np.array([[[True, True, False], [True, True, False]]])
    assert mean_squared_difference(guide, pairs, inside) == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert mean_squared_difference(guide, pairs, np.zeros_like(inside)) == 0


def test_contrast_draws_the_boundary_to_the_edge() -> None:
    # The costs change at column 10, with doubt up to column 14, where the image has its edge.
    muscle = np.zeros((1, 12, 24))
    muscle[..., :10], muscle[..., 10:14] = 1, 0.45
    guide = np.zeros(muscle.shape)
    guide[..., :14] = 1
    plain = BinaryProblem(muscle, 1 - muscle, neighbourhood(4, SPACING), 0.5)
    np.testing.assert_array_equal(min_cut(plain).sum(axis=2), 10)
    guided = replace(plain, guide=guide, guide_variance=0.1)
    np.testing.assert_array_equal(min_cut(guided).sum(axis=2), 14)


def test_contrast_lets_corners_go_that_length_would_hold() -> None:
    # A square that holds together if all its weights are alike; here its corners look like what is around it.
    gain = np.full((1, 7, 7), -5.0)
    gain[0, 2:5, 2:5] = 0.75
    guide = np.zeros(gain.shape)
    guide[0, 3, 2:5] = guide[0, 2:5, 3] = 1
    square = BinaryProblem(np.maximum(gain, 0), np.maximum(-gain, 0), neighbourhood(4, SPACING), 0.5)
    np.testing.assert_array_equal(min_cut(square), gain > 0)
    np.testing.assert_array_equal(min_cut(replace(square, guide=guide, guide_variance=0.05)), guide > 0)


def test_costs_that_are_no_numbers_are_refused() -> None:
    costs = np.zeros((1, 3, 3))
    for bad in (np.nan, np.inf):
        broken = costs.copy()
        broken[0, 1, 1] = bad
        for smoothness in (0.0, 0.1):
            with pytest.raises(VoxelError, match="must be finite numbers"):
                min_cut(BinaryProblem(broken, costs, neighbourhood(4, SPACING), smoothness))


def test_arrays_that_do_not_fit_are_refused() -> None:
    costs, pairs = np.zeros((1, 3, 3)), neighbourhood(4, SPACING)
    with pytest.raises(GeometryError, match=r"muscle_cost has shape \(1, 3, 4\)"):
        BinaryProblem(costs, np.zeros((1, 3, 4)), pairs, 0.1)
    with pytest.raises(GeometryError, match="background_cost has shape"):
        BinaryProblem(costs[0], costs[0], pairs, 0.1)
    with pytest.raises(GeometryError, match="the mask has shape"):
        cut_energy(BinaryProblem(costs, costs, pairs, 0.1), np.zeros((1, 3, 4), dtype=bool))


def test_parameters_out_of_range_are_refused() -> None:
    costs, pairs = np.zeros((1, 3, 3)), neighbourhood(4, SPACING)
    with pytest.raises(ParameterError, match="smoothness"):
        BinaryProblem(costs, costs, pairs, -0.1)
    with pytest.raises(ParameterError, match="weight of a neighbour"):
        BinaryProblem(costs, costs, Neighbourhood(((0, 0, 1),), (-1.0,)), 0.1)
    with pytest.raises(ParameterError, match="guide_variance"):
        BinaryProblem(costs, costs, pairs, 0.1, guide=costs, guide_variance=0.0)
    with pytest.raises(ParameterError, match=r"fixed must hold -1 \(free\), 0 \(background\) or 1 \(muscle\)"):
        BinaryProblem(costs, costs, pairs, 0.1, fixed=np.full(costs.shape, 2, dtype=np.int8))
