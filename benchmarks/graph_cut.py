"""Minimum cut of a CT of both thighs, 512x512x60: beside PyMaxflow on the full grid, with the energy each reaches."""

from __future__ import annotations

from functools import partial

import maxflow
import numpy as np

from benchmarks.timing import Row, ct, once, seconds, table
from musclekit.segmenters import GraphCutSegmenter
from musclekit.segmenters.mincut import FREE, BinaryProblem, cut_energy, min_cut

PLANES = 60


def full_grid(problem: BinaryProblem, found: list[np.ndarray]) -> None:
    """PyMaxflow as its tutorial uses it, its grid functions doing the work; hard constraints as large capacities."""
    shape = problem.shape
    graph = maxflow.GraphFloat(int(np.prod(shape)), int(np.prod(shape)) * len(problem.neighbourhood.offsets))
    nodes = graph.add_grid_nodes(shape)
    for offset, weight in zip(problem.neighbourhood.offsets, problem.neighbourhood.weights, strict=True):
        structure = np.zeros((3, 3, 3))
        structure[tuple(1 + k for k in offset)] = 1
        graph.add_grid_edges(nodes, problem.smoothness * weight, structure=structure, symmetric=True)
    gain = problem.background_cost.astype(np.float64) - problem.muscle_cost
    if problem.fixed is not None:
        gain[problem.fixed != FREE] = np.where(problem.fixed[problem.fixed != FREE] > 0, 2.0**30, -(2.0**30))
    graph.add_grid_tedges(nodes, np.maximum(-gain, 0), np.maximum(gain, 0))
    graph.maxflow()
    found.append(graph.get_grid_segments(nodes))


def rows(planes: int = PLANES) -> list[Row]:
    image, _ = ct(planes)
    lines = []
    for neighbourhood, smoothness in ((8, 0.1), (6, 0.1), (6, 0.5), (26, 0.1)):
        # Bone stays in, so that the cut has more to decide.
        method = GraphCutSegmenter(neighbourhood=neighbourhood, smoothness=smoothness, exclude_bone=False)
        problem = method.problem(image)
        ours = seconds(partial(min_cut, problem), 3)
        mask = min_cut(problem)
        energy = cut_energy(problem, mask)
        # The full graph of 26 neighbours would take 14 GB.
        peer_s, note = None, f"energy {energy:.6f}"
        if neighbourhood != 26:
            found: list[np.ndarray] = []
            peer_s = once(partial(full_grid, problem, found))
            note += f", peer {cut_energy(problem, found[0]):.6f}, {np.count_nonzero(found[0] != mask)} voxels differ"
        operation = f"graph cut 512x512x{planes}, {neighbourhood} neighbours, smoothness {smoothness:g}"
        lines.append(Row(operation, ours, 1.5, "PyMaxflow, full grid", peer_s, note))
    return lines


if __name__ == "__main__":
    print(table(rows()))
