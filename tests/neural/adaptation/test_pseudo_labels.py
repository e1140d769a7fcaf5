"""Ranking by entropy, and labels without what cannot be muscle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.errors import GeometryError, InputError, ParameterError
from musclekit.neural.adaptation.pseudo_labels import cleaned_labels, mean_entropy, ranked


def test_the_mean_entropy_is_that_of_the_pixels() -> None:
    # The figure of the method sheet: 1.45678 bits.
    one = np.array([0.7, 0.1, 0.1, 0.05, 0.05])[:, None, None]
    sure = np.array([1.0, 0, 0, 0, 0])[:, None, None]
    both = np.concatenate([one, sure], axis=2)
    assert mean_entropy(one) == pytest.approx(1.45678, abs=1e-5)
    assert mean_entropy(both) == pytest.approx(1.45678 / 2, abs=1e-5)
    assert mean_entropy(both, np.array([[True, False]])) == pytest.approx(1.45678, abs=1e-5)
    with pytest.raises(InputError, match="the region is empty"):
        mean_entropy(both, np.zeros((1, 2), dtype=bool))


@pytest.mark.parametrize(("n", "easy"), [(2044, 1362), (3, 2), (2, 1), (30, 20)])
def test_the_first_two_thirds_are_easy(n: int, easy: int) -> None:
    found = ranked([f"{k:05d}" for k in range(n)], np.random.default_rng(0).random(n).tolist())
    assert found.easy.sum() == easy
    assert found.scores[found.easy].max() < found.scores[~found.easy].min()


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 3), min_size=1, max_size=20), st.floats(0.01, 1))
@settings(deadline=None)
def test_ranks_do_not_depend_on_the_order(scores: dict[str, float], share: float) -> None:
    names = sorted(scores)
    one = ranked(names, [scores[name] for name in names], easy_share=share)
    other = ranked(names[::-1], [scores[name] for name in names[::-1]], easy_share=share)
    assert one.ranks.tolist() == other.ranks[::-1].tolist()
    assert sorted(one.ranks.tolist()) == list(range(1, len(names) + 1))
    assert one.easy.sum() == other.easy.sum() <= share * len(names) + 1e-6
    for rank, score in zip(one.ranks, one.scores, strict=True):
        assert not np.any(one.scores[one.ranks < rank] > score)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(InputError, match="image 'a' stands twice"):
        ranked(["a", "b", "a"], [1, 2, 3])
    with pytest.raises(ParameterError, match="easy_share"):
        ranked(["a"], [1], easy_share=0)


def test_what_lies_outside_the_room_is_taken_and_counted() -> None:
    classes = np.array([[1, 1, 2, 2], [0, 1, 2, 0]], dtype=np.uint8)
    room = np.array([[True, True, True, False], [True, False, True, True]])
    found = cleaned_labels(classes, room, 3)
    assert found.classes.tolist() == [[1, 1, 2, 0], [0, 0, 2, 0]]
    assert found.removed[:2].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert np.isnan(found.removed[2])
    assert found.share == pytest.approx(1 / 3)
    assert found.is_doubtful()
    assert not found.is_doubtful(0.4)
    assert classes[0, 3] == 2


def test_only_muscle_is_cleaned_where_other_structures_are_labelled() -> None:
    classes = np.array([[1, 1, 2, 3]], dtype=np.uint8)
    found = cleaned_labels(classes, np.array([[True, False, False, False]]), 3, muscles=(1, 2))
    # Of what was no muscle nothing is known: it may be fat, bone or air.
    assert found.classes.tolist() == [[1, 255, 255, 3]]
    assert found.removed[:2].tolist() == [0.5, 1]
    assert np.isnan(found.removed[2])
    assert found.share == pytest.approx(2 / 3)


def test_a_map_without_labels_or_without_room_is_doubtful() -> None:
    empty = cleaned_labels(np.zeros((2, 2), dtype=np.uint8), np.ones((2, 2), dtype=bool), 1)
    assert np.isnan(empty.share)
    assert empty.is_doubtful()
    nowhere = cleaned_labels(np.ones((2, 2), dtype=np.uint8), np.zeros((2, 2), dtype=bool), 1)
    assert nowhere.share == 1
    assert nowhere.is_doubtful()
    with pytest.raises(GeometryError, match="the room for muscle"):
        cleaned_labels(np.ones((2, 2), dtype=np.uint8), np.zeros((2, 3), dtype=bool), 1)
