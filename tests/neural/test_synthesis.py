"""Batches of slices drawn from label maps."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from musclekit.errors import InputError, LabelError
from musclekit.labels import label_set
from musclekit.neural.synthesis import EXAMPLES, SyntheticDrawing, check_leg_classes, classes_of_context, synthetic_scan
from musclekit.phantom import LegPlanes, SliceRange, leg_planes, make_thigh

HOW = SliceRange(size=48, spacing_mm=4.0, fine=2)
FULL = label_set("thigh-context")


@pytest.fixture(scope="module")
def legs() -> tuple[LegPlanes, ...]:
    return leg_planes(make_thigh(2, shape=(4, 96, 96)).labels, "p", spacing_mm=HOW.step_mm)


def drawn(drawing: SyntheticDrawing, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [pair for batch in drawing.epoch(3, 4, np.random.default_rng(seed)) for pair in batch]


def test_batches_are_images_and_classes(legs: tuple[LegPlanes, ...]) -> None:
    batches = drawn(SyntheticDrawing(legs, FULL, HOW), 1)
    assert len(batches) == 3
    for images, classes in batches:
        assert images.shape == (4, 1, 48, 48)
        assert images.dtype == torch.float32
        assert classes.shape == (4, 48, 48)
        assert classes.dtype == torch.int64
        assert 0 <= int(classes.min()) <= int(classes.max()) <= len(FULL)


def test_slices_depend_on_the_seed_and_not_on_the_threads(legs: tuple[LegPlanes, ...]) -> None:
    one, three = (drawn(SyntheticDrawing(legs, FULL, HOW, threads), 1) for threads in (1, 3))
    other = drawn(SyntheticDrawing(legs, FULL, HOW), 2)
    for (images, classes), (same, alike) in zip(one, three, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(classes, alike)
    assert not torch.equal(one[0][0], other[0][0])
    # No slice is drawn twice.
    assert len({image.numpy().tobytes() for images, _ in one for image in images}) == 12


def test_classes_are_those_of_the_label_set(legs: tuple[LegPlanes, ...]) -> None:
    table = classes_of_context(label_set("functional-3"))
    groups = ("extensor", "flexor", "adductor")
    for label in FULL:
        assert table[label.id] == (1 + groups.index(label.group) if label.group in groups else 0)
    images, classes = drawn(SyntheticDrawing(legs, FULL, HOW), 1)[0]
    same, fewer = drawn(SyntheticDrawing(legs, label_set("muscle"), HOW), 1)[0]
    assert torch.equal(images, same)
    assert torch.equal(fewer == 1, (classes >= 1) & (classes <= 11) | (classes == 15))
    with pytest.raises(LabelError, match="no map from 'thigh-context' to 'hip-thigh-22'"):
        classes_of_context(label_set("hip-thigh-22"))


def test_a_muscle_that_no_leg_has_is_named(legs: tuple[LegPlanes, ...]) -> None:
    check_leg_classes(legs, FULL)
    lacking = [replace(leg, planes=np.where(leg.planes == 7, 0, leg.planes)) for leg in legs]
    with pytest.raises(LabelError, match="the cases of fold 2 show no gracilis: a network cannot learn"):
        check_leg_classes(lacking, FULL, "the cases of fold 2")
    check_leg_classes([*lacking, legs[0]], FULL)


def test_opencv_has_its_threads_back(legs: tuple[LegPlanes, ...]) -> None:
    before = cv2.getNumThreads()
    seen = [cv2.getNumThreads() for _ in SyntheticDrawing(legs, FULL, HOW).epoch(2, 1, np.random.default_rng(0))]
    assert seen == [1, 1]
    assert cv2.getNumThreads() == before


def test_an_epoch_without_steps_is_a_pass_over_the_planes(legs: tuple[LegPlanes, ...]) -> None:
    assert SyntheticDrawing(legs, FULL, HOW).steps(3) == -(-sum(len(leg.planes) for leg in legs) // 3)
    with pytest.raises(InputError, match="there is no leg to draw slices of"):
        SyntheticDrawing((), FULL, HOW)


def test_examples_of_a_person_stay_the_same(legs: tuple[LegPlanes, ...]) -> None:
    one, same, other = (synthetic_scan("c", "p", legs, FULL, HOW, seed) for seed in (1, 1, 2))
    assert len(one.views) == len(legs)
    for view, again, differs in zip(one.views, same.views, other.views, strict=True):
        assert view.image.shape == view.classes.shape == (EXAMPLES, 48, 48)
        assert view.frame.target.shape == view.image.shape
        assert np.array_equal(view.image, again.image)
        assert np.array_equal(view.classes, again.classes)
        assert not np.array_equal(view.image, differs.image)
    assert not np.array_equal(one.views[0].image, one.views[1].image)
