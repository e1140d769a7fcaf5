"""Largest component of 22 labels: beside SciPy, label by label over the whole grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from benchmarks.measures import muscles
from benchmarks.timing import Row, once, seconds, table
from musclekit.image import LabelMap
from musclekit.refiners import largest_component


def with_specks(labels: LabelMap) -> LabelMap:
    """Labels in which 3 % of the voxels of a label belong to another, as after a noisy classifier."""
    rng = np.random.default_rng(0)
    voxels = labels.voxels.copy()
    inside = np.flatnonzero(voxels)
    wrong = inside[rng.random(inside.size) < 0.03]
    voxels.reshape(-1)[wrong] = rng.permutation(voxels.reshape(-1)[wrong])
    return labels.with_voxels(voxels)


def whole_grid(labels: LabelMap) -> np.ndarray:
    structure = np.ones((3, 3, 3))
    kept = np.zeros_like(labels.voxels)
    for label in labels.label_set:
        components, n = ndimage.label(labels.voxels == label.id, structure)
        if n:
            sizes = np.bincount(components.reshape(-1))
            sizes[0] = 0
            kept[components == sizes.argmax()] = label.id
    return kept


def rows() -> list[Row]:
    found = []
    for note, labels in (("smooth labels", muscles(120)[1]), ("3 % of voxels astray", with_specks(muscles(120)[1]))):
        expected = []
        peer = once(lambda labels=labels, expected=expected: expected.append(whole_grid(labels)))
        taken = seconds(lambda labels=labels: largest_component(labels))
        np.testing.assert_array_equal(largest_component(labels).voxels, expected[0])
        operation = "largest component, 22 labels of CT 512x512x120"
        found.append(Row(operation, taken, 0.2, "SciPy, whole grid", peer, f"{note}; equal results"))
    return found


if __name__ == "__main__":
    print(table(rows()))
