"""Bending one slice onto another."""

from __future__ import annotations

import numpy as np

from musclekit.segmenters.deformable import bend, displacement, sample

SIZE, SPACING, CONTROL = 72, 4.0, 72.0


def blobs(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A disk with three dots in it, at places in pixels."""
    radius = np.hypot(columns - 35.5, rows - 35.5)
    picture = 1 / (1 + np.exp(radius - 25))
    for x, y in ((28, 30), (44, 33), (36, 46)):
        picture -= 0.8 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 30)
    return picture.astype(np.float32)


def test_a_known_bend_is_found():
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    across = 2.5 * np.sin(np.pi * rows / SIZE)
    along = 1.5 * np.cos(np.pi * columns / SIZE)
    atlas = blobs(columns, rows)
    target = blobs(columns + across, rows + along)
    spline = bend(target, atlas, spacing_mm=SPACING, control_mm=CONTROL)
    found = displacement(spline, (SIZE, SIZE), spacing_mm=SPACING, control_mm=CONTROL) / SPACING
    # What is said where nothing is drawn does not matter.
    drawn = np.hypot(columns - 35.5, rows - 35.5) < 22
    assert np.abs(found[..., 0] - across)[drawn].mean() < 0.5
    assert np.abs(found[..., 1] - along)[drawn].mean() < 0.5
    bent = sample(atlas, columns + found[..., 0], rows + found[..., 1])
    assert np.square(bent - target).mean() < 0.05 * np.square(atlas - target).mean()


def test_pictures_that_are_alike_stay_as_they_are():
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    picture = blobs(columns, rows)
    spline = bend(picture, picture, spacing_mm=SPACING, control_mm=CONTROL)
    assert np.abs(displacement(spline, (SIZE, SIZE), spacing_mm=SPACING, control_mm=CONTROL)).max() < 1e-3


def test_the_same_pictures_give_the_same_spline():
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    one, two = blobs(columns, rows), blobs(columns + 2, rows - 1)
    first, second = (bend(one, two, spacing_mm=SPACING, control_mm=CONTROL) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_outside_a_plane_there_is_nothing():
    plane = np.ones((4, 5), dtype=np.float32)
    at = np.array([[-3.0, 2.0, 9.0]], dtype=np.float32)
    np.testing.assert_array_equal(sample(plane, at, np.ones_like(at)), [[0, 1, 0]])
