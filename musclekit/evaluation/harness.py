"""Run methods over cases and score what they give."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from musclekit import registry
from musclekit.errors import InputError, MusclekitError, ParameterError
from musclekit.evaluation.scores import common_label_set, failed, params_id, score
from musclekit.image import Case, Image
from musclekit.labels import LabelSet
from musclekit.protocols import Segmenter

__all__ = ["evaluate", "image_for"]


def image_for(method: Segmenter, case: Case) -> Image:
    """Return the image of a case that a method works on.

    Raises
    ------
    InputError
        If the method takes none of the images, or several.
    """
    fitting = [image for contrast, image in case.images.items() if contrast in method.contrasts]
    if len(fitting) != 1:
        takes, has = ", ".join(sorted(method.contrasts)), ", ".join(sorted(case.images))
        which = "none" if not fitting else "more than one"
        raise InputError(f"case '{case.id}' has {has}; the method takes {takes}: {which} of them fits")
    return fitting[0]


def evaluate(
    methods: Mapping[str, Segmenter],
    cases: Iterable[Case],
    *,
    label_set: LabelSet | None = None,
    progress: Callable[[str, str], None] | None = None,
) -> pd.DataFrame:
    """Segment every case with every method and score the results. Nothing is trained.

    Parameters
    ----------
    methods : mapping of str to Segmenter
        Name in the table -> method, fitted if it learns.
    cases : iterable of Case
        With references. Each is held only while it is worked on.
    label_set : LabelSet, optional
        Set to compare in; that of `musclekit.evaluation.scores.common_label_set` if left out.
    progress : callable, optional
        Called with case id and method name after each.

    Returns
    -------
    DataFrame
        Score table (`musclekit.evaluation.scores.COLUMNS`), case after case and method after method. A method that
        fails on a case, or a case without a reference, gives rows that say so; the others are done all the same.
        ``params_id`` is empty for a method whose parameters cannot be written down.

    Raises
    ------
    InputError
        If there is no method or no case.
    """
    if not methods:
        raise InputError("there is no method to evaluate")
    ids = {name: _params_id(method) for name, method in methods.items()}
    parts = []
    for case in cases:
        for name, method in methods.items():
            parts.append(_evaluate_case(name, method, ids[name], case, label_set))
            if progress is not None:
                progress(case.id, name)
    if not parts:
        raise InputError("there is no case to evaluate on")
    return pd.concat(parts, ignore_index=True)


def _evaluate_case(name: str, method: Segmenter, id_: str, case: Case, label_set: LabelSet | None) -> pd.DataFrame:
    compared_in = label_set
    try:
        if case.reference is None:
            raise InputError(f"case '{case.id}' has no reference labels")
        compared_in = label_set or common_label_set(method.label_set, case.reference.label_set)
        labels = method.segment(image_for(method, case))
        return score(
            labels,
            case.reference,
            case_id=case.id,
            subject=case.subject,
            method=name,
            params_id=id_,
            side=case.side,
            label_set=compared_in,
        )
    except MusclekitError as problem:
        message = str(problem)
    except Exception as problem:  # a fault in one case must not take the others with it; the row names it
        where = traceback.extract_tb(problem.__traceback__)[-1]
        message = f"unexpected {type(problem).__name__} in {Path(where.filename).name}:{where.lineno}: {problem}"
    return failed(
        message,
        case_id=case.id,
        subject=case.subject,
        method=name,
        params_id=id_,
        side=case.side,
        label_set=compared_in,
    )


def _params_id(method: Segmenter) -> str:
    try:
        return params_id(registry.describe(method))
    except ParameterError:
        return ""
