from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musclekit.errors import InputError, LeakError, ParameterError
from musclekit.evaluation.splits import Fold, by_split, check_folds, k_folds, leave_one_subject_out, subjects_of
from musclekit.image import Case, Contrast, Grid, Image

PAIRS = {"a-left": "a", "b-left": "b", "a-right": "a", "c": "c"}

#: Case id to subject: two to nine subjects, one to four cases each, in any order.
studies = (
    st.lists(st.integers(1, 4), min_size=2, max_size=9)
    .map(lambda counts: [(f"{s}-{i}", f"s{s}") for s, n in enumerate(counts) for i in range(n)])
    .flatmap(st.permutations)
    .map(dict)
)


def test_each_subject_is_left_out_once_with_all_its_cases() -> None:
    assert leave_one_subject_out(PAIRS) == (
        Fold("a", ("b-left", "c"), ("a-left", "a-right")),
        Fold("b", ("a-left", "a-right", "c"), ("b-left",)),
        Fold("c", ("a-left", "b-left", "a-right"), ("c",)),
    )


def test_one_subject_cannot_be_left_out() -> None:
    message = "leaving one subject out needs two or more subjects; all 2 cases are of subject 'a'"
    with pytest.raises(InputError, match=message):
        leave_one_subject_out({"a-left": "a", "a-right": "a"})
    with pytest.raises(InputError, match="2 folds by subject needs two or more subjects; there is no case"):
        k_folds({}, 2)


@given(studies, st.data())
def test_folds_are_whole_subjects_and_test_every_case_once(subjects: dict[str, str], data: st.DataObject) -> None:
    n = len(set(subjects.values()))
    k = data.draw(st.integers(2, n))
    for folds in (leave_one_subject_out(subjects), k_folds(subjects, k, seed=data.draw(st.integers(0, 9)))):
        check_folds(folds, subjects)
        assert sorted(id_ for fold in folds for id_ in fold.test) == sorted(subjects)
        for fold in folds:
            assert {*fold.train, *fold.test} == set(subjects)
            assert not {subjects[i] for i in fold.train} & {subjects[i] for i in fold.test}
    sizes = [len({subjects[i] for i in fold.test}) for fold in folds]
    assert len(folds) == k
    assert max(sizes) - min(sizes) <= 1


@given(studies, st.data())
def test_domains_are_spread_evenly(subjects: dict[str, str], data: st.DataObject) -> None:
    grade = {name: data.draw(st.sampled_from(["healthy", "severe"])) for name in sorted(set(subjects.values()))}
    k = data.draw(st.integers(2, len(grade)))
    folds = k_folds(subjects, k, domains={id_: grade[name] for id_, name in subjects.items()})
    for domain in ("healthy", "severe"):
        counts = [len({subjects[i] for i in fold.test if grade[subjects[i]] == domain}) for fold in folds]
        assert max(counts) - min(counts) <= 1


def test_k_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    subjects = {f"case {i}": f"s{i:02d}" for i in range(20)}
    tested = {frozenset(fold.test) for fold in k_folds(subjects, 4, seed=3)}
    assert tested == {frozenset(fold.test) for fold in k_folds(dict(reversed(subjects.items())), 4, seed=3)}
    assert tested != {frozenset(fold.test) for fold in k_folds(subjects, 4, seed=4)}


@pytest.mark.parametrize("k", [-1, 0, 1, 4])
def test_the_number_of_folds_has_its_range(k: int) -> None:
    with pytest.raises(ParameterError, match=f"lies between 2 and the number of subjects, 3, not at {k}"):
        k_folds(PAIRS, k)


def test_the_split_of_the_manifest() -> None:
    splits = {"a-left": "train", "a-right": "train", "b-left": "test", "c": "later"}
    assert by_split(PAIRS, splits) == (Fold("test", ("a-left", "a-right"), ("b-left",)),)
    assert by_split(PAIRS, splits, test="later")[0].test == ("c",)
    with pytest.raises(InputError, match="no case is in the split 'validation'; there are: later, test, train"):
        by_split(PAIRS, splits, test="validation")
    with pytest.raises(InputError, match="no case is in the split 'train'; there are: none"):
        by_split(PAIRS, dict.fromkeys(PAIRS))


def test_a_subject_on_both_sides_is_a_leak() -> None:
    message = "fold 'test': subject 'a' would be learnt from and tested on; keep all cases of a person on one side"
    with pytest.raises(LeakError, match=message):
        by_split(PAIRS, {"a-left": "train", "a-right": "test"})
    with pytest.raises(LeakError, match="subjects 'a', 'b' would be learnt"):
        check_folds([Fold("1", ("a-left", "b-left"), ("a-right", "b-left"))], PAIRS)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "there is no fold"),
        ([Fold("1", ("c",), ())], "fold '1' has no case to test on"),
        ([Fold("1", ("d",), ("c",))], "fold '1': there is no case 'd'"),
        ([Fold("1", (), ("c",)), Fold("1", (), ("a-left",))], "two folds are called '1'"),
        ([Fold("1", (), ("c",)), Fold("2", (), ("c",))], "case 'c' is tested on twice, in the folds '1' and '2'"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds: list[Fold], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_folds(folds, PAIRS)


def test_subjects_come_from_cases() -> None:
    grid = Grid.from_spacing((1, 4, 4), (1, 1, 1))
    image = Image(np.zeros(grid.shape), grid, Contrast.CT)
    cases = [Case(id_, subject, {Contrast.CT: image}) for id_, subject in PAIRS.items()]
    assert list(subjects_of(cases).items()) == list(PAIRS.items())
    assert Counter(subjects_of(cases).values())["a"] == 2
    with pytest.raises(InputError, match="two cases are called 'c'; give each an id of its own"):
        subjects_of([*cases, cases[-1]])
