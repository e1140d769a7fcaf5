"""What is told of the answers of the segmenter of any contrast, on answers made by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from musclekit.segmenters.thigh_trust import (
    CONTEXT,
    FEATURES,
    MUSCLE_IDS,
    ThighTrust,
    certainty,
    longest_gain,
    slice_features,
    soft_dice,
)


def answer(classes: NDArray[np.int64], sure: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of classes that the network is so sure of; the rest is spread over all others."""
    channels = len(CONTEXT) + 1
    spread = np.full((channels, *classes.shape), (1 - sure) / (channels - 1))
    np.put_along_axis(spread, classes[None], sure, axis=0)
    return spread


def test_channels_are_ids() -> None:
    assert [label.id for label in CONTEXT] == list(range(1, len(CONTEXT) + 1))
    assert tuple(range(1, 12)) == MUSCLE_IDS


@given(arrays(np.float64, st.integers(1, 12), elements=st.floats(-4, 4)))
def test_the_thigh_is_the_stretch_of_most_gain(odds: NDArray[np.float64]) -> None:
    found = longest_gain(odds)
    best = max(odds[a:b].sum() for a, b in combinations(range(len(odds) + 1), 2))
    where = np.flatnonzero(found)
    assert odds[found].sum() == pytest.approx(max(best, 0), abs=1e-9)
    if len(where):
        assert np.array_equal(where, np.arange(where[0], where[-1] + 1))


def test_a_doubtful_slice_within_a_thigh_is_bridged() -> None:
    found = longest_gain(np.array([-3.0, 2, 3, -1, 4, -2, -3]))
    assert np.flatnonzero(found).tolist() == [1, 2, 3, 4]


def test_features_are_areas_and_shares() -> None:
    classes = np.zeros((3, 40, 40), dtype=np.int64)
    classes[0, :20] = 1
    classes[0, 20:30] = 12
    classes[1, :20] = 15
    classes[1, 20:30] = 16
    found = dict(zip(FEATURES, slice_features(answer(classes), 4.0).T, strict=True))
    # 800 pixels of 4 mm2 are 32 cm2.
    assert found["muscle"] == pytest.approx([np.log1p(32), 0, 0])
    assert found["share of the eleven in all muscle"] == pytest.approx([32 / 33, 0, 0])
    assert found["share of other bone in all bone"] == pytest.approx([0, 16 / 17, 0])
    assert found["muscles"] == pytest.approx([1 / 11, 0, 0])
    assert found["certainty"] == pytest.approx([1, 1, 0])


def test_certainty_is_that_of_what_is_no_background() -> None:
    classes = np.zeros((1, 10, 10), dtype=np.int64)
    classes[0, :5] = 3
    assert certainty(answer(classes, 0.7))[0] == pytest.approx(0.7)


def test_soft_dice_is_one_where_the_network_is_sure() -> None:
    classes = np.zeros((2, 10, 10), dtype=np.int64)
    classes[0, :5] = 3
    classes[1, :5] = 4
    sure = soft_dice(answer(classes))
    assert sure[2] == pytest.approx(1)
    assert np.isnan(np.delete(sure, [2, 3])).all()
    assert soft_dice(answer(classes, 0.6))[2] < 0.8
    assert np.isnan(soft_dice(answer(classes), np.array([False, True]))[2])


def test_what_was_learnt_is_kept(tmp_path: Path) -> None:
    trust = ThighTrust(np.arange(6.0), -1.5, np.array([0.2, 0.9]), np.array([0.1, 0.8]))
    trust.save(tmp_path / "trust.json", "ab" * 32)
    same = ThighTrust.load(tmp_path / "trust.json", "ab" * 32)
    features = np.random.default_rng(0).normal(size=(20, 6))
    assert np.array_equal(trust.odds(features), same.odds(features))
    assert np.all(np.abs(same.odds(1e6 * features)) <= 4)
    expected = same.expected_dice(np.array([0.2, 0.55, 1.0, np.nan]))
    assert expected == pytest.approx([0.1, 0.45, 0.8, np.nan], nan_ok=True)
