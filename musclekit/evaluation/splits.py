"""Folds of a study: which cases a method learns from, and which it is tested on. Subjects are never torn apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musclekit.errors import InputError, LeakError, ParameterError
from musclekit.image import Case

__all__ = ["Fold", "by_split", "check_folds", "k_folds", "leave_one_subject_out", "subjects_of"]


@dataclass(frozen=True)
class Fold:
    """One division of the cases.

    Parameters
    ----------
    name : str
        What the score table calls it.
    train, test : tuple of str
        Ids of the cases to learn from, and of those to be tested on.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def subjects_of(cases: Iterable[Case]) -> dict[str, str]:
    """Return case id to subject, in the order of the cases.

    Raises
    ------
    InputError
        If two cases have one id.
    """
    subjects: dict[str, str] = {}
    for case in cases:
        if case.id in subjects:
            raise InputError(f"two cases are called '{case.id}'; give each an id of its own")
        subjects[case.id] = case.subject
    return subjects


def leave_one_subject_out(subjects: Mapping[str, str]) -> tuple[Fold, ...]:
    """Return a fold a subject: tested on all cases of one, learnt from all cases of the others.

    Parameters
    ----------
    subjects : mapping of str to str
        Case id to subject (`subjects_of`).

    Returns
    -------
    tuple of Fold
        By name, which is that of the subject left out; cases keep their order.

    Raises
    ------
    InputError
        If there are fewer than two subjects.
    """
    from sklearn.model_selection import LeaveOneGroupOut

    _need_two(subjects, "leaving one subject out")
    ids, groups = list(subjects), list(subjects.values())
    return tuple(
        Fold(groups[test[0]], tuple(ids[i] for i in train), tuple(ids[i] for i in test))
        for train, test in LeaveOneGroupOut().split(ids, groups=groups)
    )


def k_folds(
    subjects: Mapping[str, str], k: int, *, domains: Mapping[str, str | None] | None = None, seed: int = 0
) -> tuple[Fold, ...]:
    """Return k folds of whole subjects.

    Parameters
    ----------
    subjects : mapping of str to str
        Case id to subject (`subjects_of`).
    k : int
        Number of folds, from 2 to the number of subjects.
    domains : mapping of str to (str or None), optional
        Case id to population or grade: each fold is then tested on its share of each.
    seed : int
        The same seed gives the same folds, whatever the order of the cases.

    Returns
    -------
    tuple of Fold
        Named ``"1"`` to ``"k"``; the numbers of test subjects differ by at most one, and so do those of each domain.

    Raises
    ------
    InputError
        If there are fewer than two subjects.
    ParameterError
        If there are fewer subjects than folds, or fewer than two folds.

    Notes
    -----
    Shuffled subjects are dealt out domain by domain, like cards. scikit-learn's StratifiedGroupKFold balances cases
    rather than subjects, and only as well as a greedy choice does.
    """
    _need_two(subjects, f"{k} folds by subject")
    names = sorted(set(subjects.values()))
    if not 2 <= k <= len(names):
        raise ParameterError(f"the number of folds lies between 2 and the number of subjects, {len(names)}, not at {k}")
    strata: dict[str, set[str]] = {name: set() for name in names}
    for id_, subject in subjects.items():
        strata[subject].add((domains or {}).get(id_) or "")
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    dealt = sorted(shuffled, key=lambda name: sorted(strata[name]))
    return tuple(_fold(str(i + 1), subjects, set(dealt[i::k])) for i in range(k))


def by_split(
    subjects: Mapping[str, str], splits: Mapping[str, str | None], *, train: str = "train", test: str = "test"
) -> tuple[Fold, ...]:
    """Return the one fold that the column ``split`` of a manifest states.

    Parameters
    ----------
    subjects : mapping of str to str
        Case id to subject.
    splits : mapping of str to (str or None)
        Case id to its split. Cases of other splits, or of none, take no part.
    train, test : str
        What the two parts are called.

    Returns
    -------
    tuple of Fold
        One, named as the part to be tested on.

    Raises
    ------
    InputError
        If no case is in one of the two; the message lists the splits there are.
    LeakError
        If a subject stands in both.
    """
    parts = {part: tuple(id_ for id_ in subjects if splits.get(id_) == part) for part in (train, test)}
    for part, ids in parts.items():
        if not ids:
            known = sorted({split for split in splits.values() if split})
            raise InputError(f"no case is in the split '{part}'; there are: {', '.join(known) or 'none'}")
    folds = (Fold(test, parts[train], parts[test]),)
    check_folds(folds, subjects)
    return folds


def check_folds(folds: Sequence[Fold], subjects: Mapping[str, str]) -> None:
    """Check folds of any making against the cases.

    Raises
    ------
    LeakError
        If a subject is learnt from and tested on in one fold; the message names it.
    InputError
        If there is no fold, two have one name, one has no test case, a case is in no study or tested on twice.
    """
    if not folds:
        raise InputError("there is no fold")
    names = [fold.name for fold in folds]
    tested: dict[str, str] = {}
    for fold in folds:
        if names.count(fold.name) > 1:
            raise InputError(f"two folds are called '{fold.name}'")
        if not fold.test:
            raise InputError(f"fold '{fold.name}' has no case to test on")
        strange = [id_ for id_ in (*fold.train, *fold.test) if id_ not in subjects]
        if strange:
            raise InputError(f"fold '{fold.name}': there is no case '{strange[0]}'")
        both = sorted({subjects[id_] for id_ in fold.train} & {subjects[id_] for id_ in fold.test})
        if both:
            some = ", ".join(f"'{name}'" for name in both[:5])
            raise LeakError(
                f"fold '{fold.name}': subject{'s' * (len(both) > 1)} {some} would be learnt from and tested on; "
                "keep all cases of a person on one side"
            )
        for id_ in fold.test:
            if id_ in tested:
                raise InputError(f"case '{id_}' is tested on twice, in the folds '{tested[id_]}' and '{fold.name}'")
            tested[id_] = fold.name


def _fold(name: str, subjects: Mapping[str, str], tested: set[str]) -> Fold:
    train = tuple(id_ for id_, subject in subjects.items() if subject not in tested)
    return Fold(name, train, tuple(id_ for id_, subject in subjects.items() if subject in tested))


def _need_two(subjects: Mapping[str, str], what: str) -> None:
    names = set(subjects.values())
    if len(names) < 2:
        have = f"all {len(subjects)} cases are of subject '{next(iter(names))}'" if names else "there is no case"
        raise InputError(f"{what} needs two or more subjects; {have}")
