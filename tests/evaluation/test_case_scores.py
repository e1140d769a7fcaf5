"""Scores of a case: the body that specificity and accuracy are of."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.anatomy import body_mask
from musclekit.evaluation import CaseScorer
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import accuracy, specificity
from musclekit.phantom import make_thigh, render


@pytest.fixture(scope="module")
def case() -> Case:
    phantom = make_thigh(4, shape=(3, 64, 64))
    groups = label_set("functional-3-sided")
    reference = phantom.labels.mapped(label_mapping(phantom.labels.label_set, groups))
    return Case("c", "s", {Contrast.CT: render(phantom, Contrast.CT)}, reference)


def moved(labels: LabelMap) -> LabelMap:
    return labels.with_voxels(np.roll(labels.voxels, 2, axis=2))


def test_specificity_and_accuracy_leave_the_air_out(case: Case) -> None:
    assert case.reference is not None
    body = body_mask(case.image)
    found = moved(case.reference)
    frame = CaseScorer(case, ("specificity", "accuracy"), slices=False).table(found, method="m")
    for label in case.reference.label_set:
        a, b = found.voxels == label.id, case.reference.voxels == label.id
        mine = frame[(frame["label"] == label.name) & (frame["side"] == label.side)].set_index("metric")["value"]
        assert mine["specificity"] == pytest.approx(specificity(a, b, body))
        assert mine["accuracy"] == pytest.approx(accuracy(a, b, body))
        assert mine["specificity"] < specificity(a, b, np.ones_like(a))


def test_without_a_body_they_are_undefined(case: Case) -> None:
    assert case.reference is not None
    air = Image(np.full(case.image.grid.shape, -1000.0), case.image.grid, Contrast.CT)
    empty = Case("c", "s", {Contrast.CT: air}, case.reference)
    frame = CaseScorer(empty, ("dice", "accuracy"), slices=False).table(case.reference, method="m").set_index("metric")
    assert set(frame.loc["accuracy", "status"]) == {"undefined"}
    assert set(frame.loc["dice", "value"]) == {1.0}
