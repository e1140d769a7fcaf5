"""Run methods over cases and score what they give."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd
from sklearn.base import BaseEstimator, clone

import musclekit
from musclekit import registry
from musclekit.compose import for_side
from musclekit.errors import InputError, LeakError, NotFittedError, ParameterError
from musclekit.evaluation.case_scores import CaseScorer, reason
from musclekit.evaluation.files import file_digests
from musclekit.evaluation.scores import known_metrics, params_id
from musclekit.evaluation.splits import Fold, check_folds, subjects_of
from musclekit.evaluation.translations import translation_problems
from musclekit.evaluation.units import Unit, UnitResult, Workers
from musclekit.image import Case, Image
from musclekit.io import replacing, write_label_table, write_labels
from musclekit.labels import LabelSet
from musclekit.memory import fingerprint, remembering
from musclekit.protocols import Segmenter

__all__ = ["evaluate", "forget", "image_for", "labels_name", "labels_path", "noting", "training_subjects"]

#: Where an evaluation keeps what it has done, and says what it is of.
UNITS_FOLDER = "units"
IDENTITY_FILE = "evaluation.json"


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
        which = "none of them fits" if not fitting else "more than one of them fits; give a manifest of one contrast"
        raise InputError(f"case '{case.id}' has {has}; the method takes {takes}: {which}")
    return fitting[0]


def training_subjects(method: object) -> frozenset[str]:
    """Return the subjects that a method, or a method inside it, was fitted on.

    Parameters
    ----------
    method : Segmenter, Translator or Refiner
        What learns from subjects tells them by an attribute ``training_subjects_``.
    """
    found = set(getattr(method, "training_subjects_", ()))
    for value in getattr(method, "__dict__", {}).values():
        if hasattr(value, "get_params"):
            found |= training_subjects(value)
    return frozenset(found)


def labels_path(folder: Path, method: str, case_id: str) -> Path:
    """Return where an evaluation that keeps its label maps puts the one of a case."""
    return folder / "labels" / method.replace("/", "_") / labels_name(case_id)


def labels_name(case_id: str) -> str:
    """Return what the file of the label map of a case is called: a slash in its id makes no folder."""
    return f"{case_id.replace('/', '_')}_dseg.nii.gz"


def forget(folder: Path) -> None:
    """Delete what an evaluation keeps to go on from: where nothing worked, another call is to try again."""
    shutil.rmtree(folder / UNITS_FOLDER, ignore_errors=True)


def evaluate(
    methods: Mapping[str, Segmenter],
    cases: Iterable[Case],
    metrics: Sequence[str] | None = None,
    *,
    splits: Sequence[Fold] | None = None,
    label_set: LabelSet | None = None,
    jobs: int = 1,
    folder: Path | None = None,
    keep_labels: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Segment every case with every method and score the results.

    Parameters
    ----------
    methods : mapping of str to Segmenter
        Name in the table -> method: any composition. Without splits each is used as it is, fitted if it learns; with
        splits a copy is fitted on the training cases of each fold.
    cases : iterable of Case
        With references. Without splits each is held only while it is worked on.
    metrics : sequence of str, optional
        Names among `musclekit.evaluation.METRICS`; `musclekit.evaluation.DEFAULT_METRICS` if left out.
    splits : sequence of Fold, optional
        See `musclekit.evaluation.leave_one_subject_out`. Left out, nothing is fitted.
    label_set : LabelSet, optional
        Set to compare in; that of `musclekit.evaluation.common_label_set` if left out.
    jobs : int
        Processes that work at the same time: each on a case or, with splits, on a method in a fold.
    folder : Path, optional
        Where results are kept as they come: an evaluation that was interrupted goes on from there.
    keep_labels : bool
        Whether to keep the label maps too, at `labels_path` in the folder.
    progress : callable, optional
        Called with the number of results, how many there will be (0 where the cases have no length) and what is done.

    Returns
    -------
    DataFrame
        Score table (`musclekit.evaluation.COLUMNS`), case after case and method after method; with splits fold after
        fold. It does not depend on ``jobs`` or on interruptions. A scan of two legs gives rows for each side
        (`CaseScorer`). A method that fails on a case, cannot be fitted in a fold, or was fitted on the subject of a
        case gives rows that say so, and so does a case without a reference; the others are done all the same.
        ``params_id`` is empty for a method whose parameters cannot be written down.

    Raises
    ------
    InputError
        If there is no method or no case, two cases have one id, or the folder holds another evaluation.
    NotFittedError
        Without splits, if a method needs fitting.
    LeakError
        If a subject would be learnt from and tested on in one fold.
    UnknownNameError
        If there is no such metric.
    ParameterError
        If label maps shall be kept and there is no folder, or a folder is given and a method has parameters that
        cannot be told from others.

    Warns
    -----
    UserWarning
        What methods warned of, with method and case.
    """
    if not methods:
        raise InputError("there is no method to evaluate")
    if keep_labels and folder is None:
        raise ParameterError("label maps can only be kept in a folder: give one")
    study = _Study(
        methods=dict(methods),
        ids={name: _params_id(method) for name, method in methods.items()},
        metrics=known_metrics(metrics),
        label_set=label_set,
        labels_folder=folder if keep_labels else None,
        cases={},
        folds=tuple(splits or ()),
    )
    if splits is None:
        units = _units_of_cases(cases, named=folder is not None)
        total = len(cases) * len(methods) if isinstance(cases, Sized) else 0
        work: Callable[..., UnitResult] = _work_on_case
    else:
        of_folds = _units_of_folds(study, cases)
        units, total = iter(of_folds), len(of_folds)
        work = _work_on_fold
    each = len(methods) if splits is None else 1
    identity = "" if folder is None else _claim(folder, study)
    kept = None if folder is None else folder / UNITS_FOLDER
    results: dict[str, UnitResult] = {}
    if progress is not None:
        progress(0, total, "")
    with Workers(study, jobs=jobs, folder=kept, identity=identity) as workers:
        for finished in workers.run(work, units):
            results[finished.unit.key] = finished.result
            if progress is not None:
                progress(len(results) * each, total, str(finished.result.tables["about"]["what"].iloc[0]))
    if not results:
        raise InputError("there is no case to evaluate on")
    ordered = [results[key] for key in sorted(results)]
    for text in dict.fromkeys(text for result in ordered for text in result.tables["warnings"]["text"]):
        warnings.warn(text, UserWarning, stacklevel=2)
    scores = pd.concat([result.tables["scores"] for result in ordered], ignore_index=True)
    if splits is None:
        return scores
    # Units are a method in a fold each; the table goes fold after fold, case after case, method after method.
    order = {case_id: n for n, case_id in enumerate(id_ for fold in splits for id_ in fold.test)}
    return scores.iloc[scores["case_id"].map(order).argsort(kind="stable")].reset_index(drop=True)


@dataclass(frozen=True)
class _Study:
    """What all units of an evaluation share."""

    methods: Mapping[str, Segmenter]
    ids: Mapping[str, str]
    metrics: tuple[str, ...]
    label_set: LabelSet | None
    labels_folder: Path | None
    cases: dict[str, Case]
    folds: tuple[Fold, ...]


def _units_of_cases(cases: Iterable[Case], *, named: bool) -> Iterator[Unit]:
    """Make a unit of each case; where results are kept, named by what the case holds, to do a changed scan anew."""
    seen: set[str] = set()
    for number, case in enumerate(cases):
        if case.id in seen:
            raise InputError(f"two cases are called '{case.id}'; give each an id of its own")
        seen.add(case.id)
        content = f"-{_content(case)}" if named else ""
        yield Unit(f"case-{number:05d}{content}", (case,))


def _units_of_folds(study: _Study, cases: Iterable[Case]) -> list[Unit]:
    """Check the folds, let all units share the cases, and make a unit of each method in each fold."""
    known = list(cases)
    if not known:
        raise InputError("there is no case to evaluate on")
    check_folds(study.folds, subjects_of(known))
    study.cases.update({case.id: case for case in known})
    return [
        Unit(f"fold-{f:03d}-{m:02d}", (f, name), weight=len(fold.train) + len(fold.test))
        for f, fold in enumerate(study.folds)
        for m, name in enumerate(study.methods)
    ]


def _content(case: Case) -> str:
    images = {str(contrast): image for contrast, image in case.images.items()}
    return fingerprint((case.id, case.subject, images, case.reference, case.side))[:16]


def _claim(folder: Path, study: _Study) -> str:
    """Return what names the evaluation, and write it into its folder; refuse a folder of another one."""
    prints = []
    for name, method in study.methods.items():
        try:
            prints.append((name, fingerprint(method), file_digests(cast(BaseEstimator, method).get_params())))
        except TypeError as problem:
            raise ParameterError(f"results of method '{name}' cannot be kept in a folder: {problem}") from None
    folds = [(fold.name, fold.train, fold.test) for fold in study.folds]
    kept_labels = study.labels_folder is not None
    contents = [_content(case) for case in study.cases.values()]
    identity = fingerprint(
        (musclekit.__version__, prints, study.metrics, study.label_set, folds, contents, kept_labels)
    )
    about = folder / IDENTITY_FILE
    # A call that was refused before its first result has left nothing to be mixed up with.
    if any((folder / UNITS_FOLDER).glob("[!.]*.zip")):
        try:
            earlier = json.loads(about.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            earlier = None  # as in the folder of a search
        if earlier != identity:
            raise InputError(
                f"{folder} holds other results: of other methods, parameters, metrics, folds or cases, or by another "
                "version; choose another folder"
            )
    with replacing(about) as temporary:
        plain = {"identity": identity, "methods": list(study.methods), "metrics": list(study.metrics)}
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return identity


def _work_on_case(study: _Study, case: Case) -> UnitResult:
    scorer = CaseScorer(case, study.metrics, study.label_set)
    notes: list[str] = []
    tables = [_segmented(study, scorer, name, method, "", notes) for name, method in study.methods.items()]
    return _result(tables, notes, case.id)


def _work_on_fold(study: _Study, number: int, name: str) -> UnitResult:
    fold = study.folds[number]
    notes: list[str] = []
    scorers = [CaseScorer(study.cases[id_], study.metrics, study.label_set) for id_ in fold.test]
    method: Segmenter = clone(study.methods[name])
    try:
        with noting(notes, f"{name}, fold '{fold.name}'"):
            method.fit([study.cases[id_] for id_ in fold.train])
    except Exception as problem:  # one fold must not take the others with it; the rows name the reason
        message = f"fitting on fold '{fold.name}' failed: {reason(problem)}"
        tables = [
            scorer.failed(
                message, study.methods[name].label_set, method=name, params_id=study.ids[name], fold=fold.name
            )
            for scorer in scorers
        ]
    else:
        tables = [_segmented(study, scorer, name, method, fold.name, notes) for scorer in scorers]
    return _result(tables, notes, f"{name}, fold {fold.name}")


def _segmented(
    study: _Study, scorer: CaseScorer, name: str, method: Segmenter, fold: str, notes: list[str]
) -> pd.DataFrame:
    """Rows of one method on one case, whatever comes."""
    case = scorer.case
    try:
        if case.reference is None:
            raise InputError(f"case '{case.id}' has no reference labels")
        if case.subject in training_subjects(method):
            raise LeakError(f"the method was fitted on subject '{case.subject}': its score would say nothing")
        # The translation is needed twice, to be segmented and to be checked.
        with noting(notes, f"{name}, case '{case.id}'"), remembering():
            image = image_for(method, case)
            labels = for_side(method, case.side).segment(image)
            for problem in translation_problems(method, image):
                warnings.warn(f"translation: {problem}", stacklevel=1)
        if study.labels_folder is not None:
            path = labels_path(study.labels_folder, name, case.id)
            write_labels(labels, path)
            write_label_table(labels.label_set, path.with_name(path.name.replace(".nii.gz", ".tsv")))
        return scorer.table(labels, method=name, params_id=study.ids[name], fold=fold)
    except NotFittedError as problem:
        if not fold:
            # It would fail on every case: that is no result.
            raise NotFittedError(f"method '{name}': {problem}; or give splits, to have it fitted on folds") from None
        return scorer.failed(reason(problem), method.label_set, method=name, params_id=study.ids[name], fold=fold)
    except Exception as problem:  # a fault in one case must not take the others with it; the row names it
        return scorer.failed(reason(problem), method.label_set, method=name, params_id=study.ids[name], fold=fold)


@contextmanager
def noting(notes: list[str], what: str) -> Iterator[None]:
    """Collect warnings as text, with what gave them: those of a worker process would be lost.

    Parameters
    ----------
    notes : list of str
        Where they are put.
    what : str
        Stands before each: method and case.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            notes += [f"{what}: {item.message}" for item in caught]


def _result(tables: Sequence[pd.DataFrame], notes: Sequence[str], what: str) -> UnitResult:
    return UnitResult(
        {
            "scores": pd.concat(tables, ignore_index=True),
            "warnings": pd.DataFrame({"text": pd.Series(list(dict.fromkeys(notes)), dtype=object)}),
            "about": pd.DataFrame({"what": [what]}),
        }
    )


def _params_id(method: Segmenter) -> str:
    try:
        return params_id(registry.describe(method))
    except ParameterError:
        return ""
