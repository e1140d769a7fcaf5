"""Which way up a thigh stands, told from where its muscles have their bulk."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.labels import label_mapping, label_set
from musclekit.phantom import make_thigh
from musclekit.segmenters.thigh_orientation import look_slices, upside_down


def areas(seed: int) -> np.ndarray:
    labels = make_thigh(seed, shape=(24, 96, 128)).labels
    full = labels.mapped(label_mapping(labels.label_set, label_set("thigh-full"))).voxels
    return np.stack([np.bincount(plane.ravel(), minlength=17) for plane in full], axis=1).astype(np.float64)


@pytest.mark.parametrize("seed", range(4))
def test_a_phantom_stands_on_its_feet(seed: int) -> None:
    found = areas(seed)
    assert not upside_down(found, 12.0)
    assert upside_down(found[:, ::-1], 12.0)


def test_of_a_thin_slab_nothing_is_said() -> None:
    found = areas(1)[:, ::-1]
    assert not upside_down(found[:, 10:13], 12.0)
    assert not upside_down(np.zeros((17, 20)), 12.0)
    found[[2, 6]] = 0
    assert not upside_down(found, 12.0)


def test_the_middle_of_what_is_accepted_is_looked_at() -> None:
    accepted = np.zeros(40, dtype=bool)
    accepted[10:31] = True
    assert look_slices(accepted) == (18, 22)
    assert look_slices(np.array([False, True, False])) == (1, 1)
