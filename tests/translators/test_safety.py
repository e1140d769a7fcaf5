from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from musclekit import registry
from musclekit.anatomy import body_mask
from musclekit.errors import GeometryError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_thigh, render
from musclekit.testing import example_image
from musclekit.translators.safety import Safety, edge_correlation, moved_boundary, safety


@cache
def scans() -> dict[str, Image]:
    """One infiltrated thigh, its healthy twin, and its CT."""
    phantom = make_thigh(1, shape=(2, 96, 96), grade="severe", legs="right")
    twin = replace(phantom, muscle_fat=np.minimum(phantom.muscle_fat, 0.03))
    hard, easy, ct = render(phantom, Contrast.T1W), render(twin, Contrast.T1W), render(phantom, Contrast.CT)
    return {"hard": hard, "easy": Image(easy.voxels, hard.grid, Contrast.T1W, "easy"), "ct": ct}


def checked(source: Image, fake: Image, monotone: str | None = None) -> Safety:
    tissue = registry.build("tissue")
    return safety(source, fake, before=tissue.segment(source), after=tissue.segment(fake), monotone=monotone)


def names(found: Safety) -> set[str]:
    return {check.name for check in found.checks() if check.is_met is False}


def test_the_same_image_passes_every_check_with_full_marks() -> None:
    hard = scans()["hard"]
    found = checked(hard, hard, "darker")
    assert found.edge_correlation == pytest.approx(1)
    assert (found.body_dice, found.compartment_dice) == (1, 1)
    assert (found.boundary_moved, found.against_direction, found.muscle_added, found.muscle_removed) == (0, 0, 0, 0)
    assert found.warnings() == ()


@pytest.mark.parametrize("pair", [("hard", "easy"), ("hard", "ct"), ("ct", "hard")])
def test_what_a_perfect_translation_would_give_passes(pair: tuple[str, str]) -> None:
    source, target = (scans()[name] for name in pair)
    found = checked(source, target, "darker")
    assert found.warnings() == ()
    assert math.isnan(found.against_direction) == ("ct" in pair)


def test_the_way_back_moves_against_the_direction() -> None:
    easy, hard = scans()["easy"], scans()["hard"]
    found = checked(easy, hard, "darker")
    assert names(found) == {"moved against the direction", "muscle removed"}
    assert found.against_direction > 0.3
    assert "moved against the direction is 0." in found.warnings()[0]
    assert "expected at most 0.05: this share of the body changed against the direction" in found.warnings()[0]
    # Where it was meant to, muscle may go, and must not come.
    assert checked(easy, hard, "brighter").warnings() == ()


def test_a_shifted_leg_is_seen_by_edges_body_and_compartment() -> None:
    hard, ct = scans()["hard"], scans()["ct"]
    moved = hard.with_voxels(np.roll(hard.voxels, math.ceil(9 / hard.grid.spacing[2]), axis=2))
    assert {"Dice of the body", "Dice of the compartment", "boundary moved"} <= names(checked(hard, moved))
    assert {"edge correlation", "Dice of the body"} <= names(checked(ct, moved))


def test_muscle_that_goes_is_counted() -> None:
    hard = scans()["hard"]
    before = registry.build("tissue").segment(hard)
    muscle = before.mask("muscle")
    half = muscle & (np.arange(hard.grid.shape[2]) < hard.grid.shape[2] / 2)
    after = before.with_voxels(np.where(half, 0, before.voxels))
    found = safety(hard, hard, before=before, after=after)
    assert found.muscle_removed == pytest.approx(half.sum() / muscle.sum())
    assert found.muscle_added == 0
    assert "muscle removed" in names(found)
    back = safety(hard, hard, before=after, after=before)
    assert back.muscle_added == pytest.approx(half.sum() / (muscle & ~half).sum())
    assert back.muscle_removed == 0


def test_an_image_without_a_body_or_edges_fails_rather_than_raises() -> None:
    hard = scans()["hard"]
    found = safety(hard, hard.with_voxels(np.zeros(hard.grid.shape)))
    assert (found.edge_correlation, found.body_dice) == (0, 0)
    assert math.isnan(found.compartment_dice)
    assert {"edge correlation", "Dice of the body"} == names(found)


def test_grey_values_that_the_network_never_saw_are_counted_where_the_window_is_fixed() -> None:
    ct = example_image(Contrast.CT)
    inside = body_mask(ct)
    beyond = np.count_nonzero(ct.voxels[inside] > 500) / np.count_nonzero(inside)
    assert safety(ct, ct, window=CT_WINDOW).outside_range == pytest.approx(beyond)
    metal = ct.with_voxels(np.where(inside & (np.arange(96) < 48), 3000, ct.voxels))
    assert "outside the training range" in names(safety(metal, metal, window=CT_WINDOW))
    t1w = example_image(Contrast.T1W)
    assert math.isnan(safety(t1w, t1w, window=MR_WINDOW).outside_range)


def test_an_image_unlike_those_of_the_training_is_told() -> None:
    hard, easy = scans()["hard"], scans()["easy"]
    unit = MR_WINDOW.scale_of(hard, body_mask(hard)).to_unit(hard.voxels[body_mask(hard)])
    found = np.quantile(unit[unit > -1], np.arange(1, 10) / 10)
    around = (found - 0.1, found + 0.1)
    assert safety(hard, hard, window=MR_WINDOW, deciles=around).unlike_training == 0
    other = safety(easy, easy, window=MR_WINDOW, deciles=around)
    assert 0.1 < other.unlike_training < 1
    assert "unlike the training" in names(other)
    # A shift of all deciles by 0.3 lies 0.2 beyond what was seen, of a range of 2.
    shifted = (around[0] + 0.3, around[1] + 0.3)
    assert safety(hard, hard, window=MR_WINDOW, deciles=shifted).unlike_training == pytest.approx(0.1)
    assert math.isnan(safety(hard, hard, window=MR_WINDOW).unlike_training)


def test_labels_and_images_share_a_grid() -> None:
    image = example_image(Contrast.CT)
    other = Image(image.voxels, Grid.from_spacing(image.grid.shape, (5, 2, 3)), Contrast.CT)
    with pytest.raises(GeometryError, match="image and translation lie on different grids"):
        safety(image, other)
    labels = LabelMap(np.zeros(other.grid.shape, int), other.grid, label_set("tissue"))
    with pytest.raises(GeometryError, match="image and labels before lie on different grids"):
        safety(image, image, before=labels, after=labels)


def test_a_boundary_moved_by_two_pixels_stands_still_and_by_three_it_does_not() -> None:
    square = np.zeros((2, 32, 32), dtype=bool)
    square[:, 8:20, 8:20] = True
    assert moved_boundary(square, np.roll(square, 2, axis=1)) == 0
    # Of a square moved by 3 along an axis, the sides that moved and the nearby ends of the others do not reach back.
    assert 0.3 < moved_boundary(square, np.roll(square, 3, axis=1)) < 0.6
    assert moved_boundary(square, np.zeros_like(square)) == 1
    assert math.isnan(moved_boundary(np.zeros_like(square), np.zeros_like(square)))


def test_edges_are_compared_by_strength_not_by_sign() -> None:
    image = example_image(Contrast.T1W)
    body = body_mask(image)
    assert edge_correlation(image, image.with_voxels(1000 - 0.5 * image.voxels), body) == pytest.approx(1)
