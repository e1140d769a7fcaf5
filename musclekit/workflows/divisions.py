"""Who a network learns from, is chosen by, and is tested on: parts of a manifest, and folds of subjects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from musclekit.errors import InputError, ParameterError
from musclekit.evaluation import k_folds, leave_one_subject_out
from musclekit.workflows.cases import ManifestCases

if TYPE_CHECKING:
    from musclekit.neural.training.segmenter_plan import SegmenterPlan

__all__ = ["LEAVE_ONE_OUT", "Division", "divisions_of", "folder_name", "parts_of"]

#: What ``folds`` may be besides a number.
LEAVE_ONE_OUT = "leave-one-out"


@dataclass(frozen=True)
class Division:
    """Who one network is made and tried by.

    Parameters
    ----------
    train, validation, test : tuple of str
        Ids of the cases that it learns from, that its best epoch is chosen by, and that it is tested on.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()


def parts_of(cases: ManifestCases, plan: SegmenterPlan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labelled cases to train on, and those of the validation that the plan names.

    Parameters
    ----------
    cases : ManifestCases
        Of the manifest.
    plan : SegmenterPlan
        Its ``split`` and ``validation_split`` name parts of the manifest.

    Raises
    ------
    InputError
        If there is no labelled case, the manifest has no such part, or parts the subjects and the plan does not say
        which are trained on.
    """
    splits = {rows[0].case_id: rows[0].split for rows in cases.rows}
    there = sorted({split for split in splits.values() if split is not None})
    others = {splits[case_id] for case_id in splits} - {plan.validation_split}
    labelled = [case_id for case_id in splits if cases.annotated(case_id)]
    if not labelled:
        raise InputError(f"{cases.path}: no case has a label map; a segmenter learns from labelled scans")
    if plan.split is None and (len(others) > 1 or others == {"test"}):
        # Those whom somebody kept apart to be tested are not learnt from without being asked for.
        raise InputError(
            f"{cases.path}: its column split parts the subjects ({', '.join(there)}); say in the plan which are "
            'trained on, as split = "train"'
        )
    for name in (plan.split, plan.validation_split):
        if name is not None and name not in [splits[case_id] for case_id in labelled]:
            raise InputError(
                f"{cases.path}: no labelled case is in split '{name}'; there are: {', '.join(there) or 'none'}"
            )
    validation = tuple(
        case_id
        for case_id in labelled
        if plan.validation_split is not None and splits[case_id] == plan.validation_split
    )
    train = tuple(
        case_id for case_id in labelled if case_id not in validation and plan.split in (None, splits[case_id])
    )
    if not train:
        raise InputError(f"{cases.path}: no labelled case is left to train on")
    return train, validation


def divisions_of(
    train: tuple[str, ...], validation: tuple[str, ...], cases: ManifestCases, plan: SegmenterPlan, folds: str | None
) -> dict[str, Division]:
    """Return what each network is trained on, by the name of its fold; one without a name where there are none.

    Parameters
    ----------
    train, validation : tuple of str
        As of `parts_of`.
    cases : ManifestCases
        Of the manifest.
    plan : SegmenterPlan
        Its seed deals the subjects, its ``validation_share`` keeps some of each fold.
    folds : str or None
        A number, ``"leave-one-out"``, or None for a single network.

    Raises
    ------
    InputError
        If there are too few subjects, or the folders of two would have one name.
    ParameterError
        If folds are neither.
    """
    people = {case_id: subject for case_id, subject in cases.subjects.items() if case_id in train}
    if folds is None:
        return {"": _shared_out(train, validation, people, plan)}
    if folds == LEAVE_ONE_OUT:
        dealt = leave_one_subject_out(people)
    elif folds.isdecimal():
        domains = {rows[0].case_id: rows[0].domain for rows in cases.rows}
        dealt = k_folds(people, int(folds), domains=domains, seed=plan.seed)
    else:
        raise ParameterError(f"folds are a number or '{LEAVE_ONE_OUT}', not '{folds}'")
    folders = [folder_name(fold.name) for fold in dealt]
    twice = sorted({name for name in folders if folders.count(name) > 1})
    if twice:
        raise InputError(f"{cases.path}: two subjects would share the folder '{twice[0]}'; name them differently")
    return {fold.name: replace(_shared_out(fold.train, validation, people, plan), test=fold.test) for fold in dealt}


def folder_name(fold: str) -> str:
    """Return what the folder of a fold is called: a slash in the name of a subject makes no folder."""
    return f"fold-{fold.replace('/', '_')}"


def _shared_out(
    train: tuple[str, ...], validation: tuple[str, ...], people: Mapping[str, str], plan: SegmenterPlan
) -> Division:
    """Deal a share of the subjects to the validation, where the plan asks for one and names none."""
    if validation or not plan.validation_share:
        return Division(train, validation)
    names = sorted({people[case_id] for case_id in train})
    n = max(1, round(plan.validation_share * len(names)))
    if n >= len(names):
        raise InputError(
            f"{len(names)} subjects cannot be shared out with validation_share = {plan.validation_share:g}: nobody "
            "would be left to train on"
        )
    chosen = {names[i] for i in np.random.default_rng(plan.seed).permutation(len(names))[:n]}
    return Division(
        tuple(case_id for case_id in train if people[case_id] not in chosen),
        tuple(case_id for case_id in train if people[case_id] in chosen),
    )
