"""Score methods, or label maps that are there already, over the cases of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.base import clone

from musclekit import registry
from musclekit.errors import InputError, MissingFileError, MusclekitError, ParameterError
from musclekit.evaluation.case_scores import score_case
from musclekit.evaluation.harness import evaluate, forget
from musclekit.evaluation.scores import (
    DEFAULT_METRICS,
    failed,
    known_metrics,
    params_id,
    params_table,
    write_scores,
)
from musclekit.evaluation.search import read_plan
from musclekit.evaluation.splits import Fold, by_split, k_folds, leave_one_subject_out
from musclekit.image import Case, LabelMap
from musclekit.io import ManifestRow, files_of, read_labels, stem
from musclekit.labels import LabelSet, label_set
from musclekit.protocols import Segmenter
from musclekit.report import Failure, Report, Table, paper_table, summary_table, write_report
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.inputs import VOLUME_SUFFIXES
from musclekit.workflows.measure import label_set_of
from musclekit.workflows.numbers import write_table
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions
from musclekit.workflows.score_report import (
    every_metric,
    failures_of,
    lost_scores,
    metric_title,
    metrics_of,
    score_figures,
    volume_tables,
)
from musclekit.workflows.segment import compose_method, noted_warnings

__all__ = [
    "EvaluationResult",
    "evaluate_methods",
    "evaluate_predictions",
    "method_of_plan",
    "method_title",
    "methods_of",
    "prediction_path",
    "read_prediction",
]

#: The scores of the harness, and the volumes that the Bland-Altman figure is drawn from.
METRICS = (*DEFAULT_METRICS, "volume", "reference_volume")


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation wrote.

    Parameters
    ----------
    scores : DataFrame
        Score table.
    summary : DataFrame
        As `musclekit.report.summary_table` gives it.
    scores_path, report_path : Path
        Where score table and report lie.
    failures : tuple of Failure
        The cases on which a method failed, each with its reason.
    warnings : tuple of str
        What the reader of the scores should know.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    scores_path: Path
    report_path: Path
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


def method_title(description: Mapping[str, Any]) -> str:
    """Return what a method is called in tables: ``n4 + spgc`` for a translated one, ``spgc + fill-holes`` refined."""
    name = str(description["name"])
    if name == "translated":
        return f"{method_title(description['translator'])} + {method_title(description['segmenter'])}"
    if name == "refined":
        return f"{method_title(description['segmenter'])} + {method_title(description['refiner'])}"
    return name


def methods_of(
    names: Sequence[str],
    plan: Path | None,
    translator: str | None,
    settings: Mapping[str, Any],
    title: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the methods meant by names, or by a plan: what each is called in tables, to its description.

    Parameters
    ----------
    names : sequence of str
        Segmenters; empty with a plan.
    plan : Path, optional
        A plan (TOML) whose method is meant.
    translator : str, optional
        A translator to put before each of the segmenters.
    settings : mapping
        Parameters, as `musclekit.workflows.compose_method` takes them; those of the plan are kept beside them.
    title : str, optional
        What the method is called, where there is one.

    Raises
    ------
    InputError
        If a name or parameter does not exist, several methods are given parameters or one title, or one twice.
    """
    if plan is not None:
        if translator is not None:
            raise ParameterError("a plan says what comes before its method: leave out --translator")
        described = method_of_plan(plan)
        method = registry.build(**described)
        unknown = [key for key in settings if key not in method.get_params()]
        if unknown:
            known = ", ".join(sorted(method.get_params()))
            raise ParameterError(f"the method of {plan.name} has no parameter '{unknown[0]}'; it has: {known}")
        described = registry.describe(registry.build(**{**described, **settings}))
        return {title or method_title(described): described}
    if len(names) > 1 and (settings or title is not None):
        raise ParameterError("--set and --name are for one method; evaluate the others by themselves")
    methods: dict[str, dict[str, Any]] = {}
    for name in names:
        described = compose_method(name, translator, settings)
        called = title or method_title(described)
        if called in methods:
            raise ParameterError(f"method '{called}' is given twice")
        methods[called] = described
    return methods


def method_of_plan(path: Path) -> dict[str, Any]:
    """Return the description of the method of a plan, with all its parameters.

    Raises
    ------
    InputError
        If the file is not there or no plan, or names a method or parameter that does not exist.
    """
    return registry.describe(registry.build(**read_plan(path).method))


def evaluate_methods(
    manifest: Path,
    out: Path,
    *,
    methods: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str] | None = None,
    splits: str = "none",
    training: Path | None = None,
    jobs: int = 1,
    label_set_name: str | None = None,
    compared_in: str | None = None,
    keep_labels: bool = False,
    progress: OnProgress | None = None,
) -> EvaluationResult:
    """Segment the cases of a manifest with methods, and score what they give.

    Parameters
    ----------
    manifest : Path
        CSV of cases with label maps.
    out : Path
        Folder to write to. What an interrupted call has done there is used again.
    methods : mapping of str to mapping
        Name in the table to description, as `musclekit.registry.describe` gives it.
    metrics : sequence of str, optional
        What to measure; `METRICS` if left out.
    splits : str
        ``"none"``: no folds; ``"leave-one-subject-out"``; ``"manifest"``: the column ``split`` says which
        cases are fitted on (``train``) and which are scored (``test``); or a number of folds of subjects.
    training : Path, optional
        Manifest of annotated cases that every method is fitted on beforehand, without folds. A case of one of their
        subjects is not scored: its row says so.
    jobs : int
        Cases worked on at the same time, each in a process of its own.
    label_set_name : str, optional
        What the ids of the label maps mean; read from the label tables beside them if left out.
    compared_in : str, optional
        Label set to score in; that of the reference, if the method's labels map to it, else the method's.
    keep_labels : bool
        Whether to keep every label map, in ``labels/<method>/``.
    progress : callable, optional
        Called as work goes on with (done, total, what).

    Returns
    -------
    EvaluationResult
        Written: ``scores.csv``, ``params.csv``, ``report.html``, ``report.json`` and ``run.json``. A case without a
        label map is in no fold; its row says so.

    Raises
    ------
    InputError
        If the manifest cannot be used, none of its cases can, a method has to be fitted and is not, there are too few
        subjects for the splits, or the folder holds another run.
    ParameterError
        If both splits and training cases are given.
    """
    started = datetime.now(UTC)
    if training is not None and splits != "none":
        raise ParameterError("give either --cases, to fit on these once, or --splits, to fit on folds of the manifest")
    cases = open_cases(manifest, label_set_name)
    target = None if compared_in is None else label_set(compared_in)
    measured = known_metrics(METRICS if metrics is None else metrics)
    built = {name: registry.build(**description) for name, description in methods.items()}
    parameters = {
        "manifest": str(manifest),
        "methods": {name: dict(description) for name, description in methods.items()},
        "metrics": list(measured),
        "splits": splits,
        "training": None if training is None else str(training),
        "label set": label_set_name,
        "compared in": compared_in,
        "keep labels": keep_labels,
    }
    check_folder(out, "evaluate", parameters)
    if all(row.image is None for rows in cases.rows for row in rows):
        raise InputError(f"{manifest}: no case has an image, only label maps: there is nothing to segment")
    for method in built.values():
        _check_parameters(method)
    # What nobody annotated can be neither learnt from nor scored: it is in no fold.
    opened: Iterable[Case] = cases if splits == "none" else [case for case in cases if case.reference is not None]
    with noted_warnings() as notes:
        if training is not None:
            annotated = open_cases(training, label_set_name).all()
            built = {name: method.fit(annotated) for name, method in built.items()}
        scores = evaluate(
            built,
            opened,
            measured,
            splits=_folds(splits, cases),
            jobs=jobs,
            folder=out,
            label_set=target,
            keep_labels=keep_labels,
            progress=progress,
        )
    left_out = dict(cases.failed)
    if splits != "none":
        left_out |= {id_: f"case '{id_}' has no reference labels" for id_ in cases.subjects if not cases.annotated(id_)}
    unscored = [
        failed(
            message,
            case_id=case_id,
            subject=cases.subjects[case_id],
            method=name,
            params_id=params_id(description),
            label_set=target,
            metrics=measured,
        )
        for case_id, message in left_out.items()
        for name, description in methods.items()
    ]
    scores = pd.concat([scores, *unscored], ignore_index=True)
    if _nothing_works(scores):
        forget(out)
    write_table(params_table(list(methods.values())), out / "params.csv")
    return _finish(scores, cases, out, parameters, notes, started)


def evaluate_predictions(
    manifest: Path,
    predictions: Path,
    out: Path,
    *,
    name: str | None = None,
    metrics: Sequence[str] | None = None,
    label_set_name: str | None = None,
    compared_in: str | None = None,
    progress: OnProgress | None = None,
) -> EvaluationResult:
    """Score label maps that are there already, wherever they come from.

    Parameters
    ----------
    manifest : Path
        CSV of cases with label maps: the reference.
    predictions : Path
        Folder of label maps named ``<case_id>_dseg.nii.gz`` (or ``<case_id>.nii.gz``; NRRD and MHA as well).
    out : Path
        Folder to write to.
    name : str, optional
        What the method is called in the table; the name of the folder if left out.
    metrics, label_set_name, compared_in, progress
        As in `evaluate_methods`. `label_set_name` holds for predictions and reference alike, wherever no label table
        lies beside them.

    Returns
    -------
    EvaluationResult
        As of `evaluate_methods`. A case without a prediction is a failed row.

    Raises
    ------
    InputError
        If the manifest or the folder cannot be used, or there is a prediction for none of the cases.
    """
    started = datetime.now(UTC)
    if not predictions.is_dir():
        raise MissingFileError(f"{predictions}: no such folder")
    cases = open_cases(manifest, label_set_name)
    target = None if compared_in is None else label_set(compared_in)
    measured = known_metrics(METRICS if metrics is None else metrics)
    method = name or predictions.resolve().name
    parameters = {
        "manifest": str(manifest),
        "predictions": str(predictions),
        "name": method,
        "metrics": list(measured),
        "label set": label_set_name,
        "compared in": compared_in,
    }
    found = {rows[0].case_id: prediction_path(predictions, rows) for rows in cases.rows}
    if not any(found.values()):
        raise InputError(
            f"{predictions}: there is a label map for none of the {len(found)} cases; they are looked for as "
            "<case_id>_dseg.nii.gz, there or in <case_id>/, as for " + repr(next(iter(found)))
        )
    check_folder(out, "evaluate", parameters)
    tables = []
    for done, rows in enumerate(cases.rows, start=1):
        case_id = rows[0].case_id
        try:
            case = cases.open(case_id)
            tables.append(_score_file(case, found[case_id], method, label_set_name, target, measured))
        except MusclekitError as problem:
            tables.append(
                failed(
                    str(problem),
                    case_id=case_id,
                    subject=rows[0].subject,
                    method=method,
                    side=rows[0].side,
                    label_set=target,
                    metrics=measured,
                )
            )
        if progress is not None:
            progress(done, len(cases), case_id)
    return _finish(pd.concat(tables, ignore_index=True), cases, out, parameters, [], started)


def _check_parameters(method: Segmenter) -> None:
    """Refuse a parameter outside its range before any case is opened; that a method learns is no matter here."""
    try:
        clone(method).fit([])
    except ParameterError:
        raise
    except InputError:
        return


def _folds(splits: str, cases: ManifestCases) -> tuple[Fold, ...] | None:
    """Return the folds meant by the option; cases that could not be opened or are not annotated are in none."""
    usable = [case_id for case_id in cases.subjects if case_id not in cases.failed and cases.annotated(case_id)]
    subjects = {case_id: cases.subjects[case_id] for case_id in usable}
    if splits != "none" and not usable:
        raise InputError(f"{cases.path}: no case can be fitted on: {_why_none(cases)}")
    first = {rows[0].case_id: rows[0] for rows in cases.rows}
    match splits:
        case "none":
            return None
        case "leave-one-subject-out":
            return leave_one_subject_out(subjects)
        case "manifest":
            return by_split(subjects, {case_id: first[case_id].split for case_id in subjects})
        case _ if splits.isdecimal():
            return k_folds(subjects, int(splits), domains={case_id: first[case_id].domain for case_id in subjects})
    raise ParameterError(f"--splits is none, leave-one-subject-out, manifest or a number of folds, not '{splits}'")


def _why_none(cases: ManifestCases) -> str:
    return next(iter(cases.failed.values()), "none has a label map")


def prediction_path(folder: Path, rows: Sequence[ManifestRow]) -> Path | None:
    """Return the label map of a case in a folder of predictions, by its name; None where there is none.

    `segment` gives each of several scans a folder of its own. Label maps may lie beside images, which are none.
    """
    case_id, images = rows[0].case_id, {row.image.resolve() for row in rows if row.image is not None}
    for place in (folder, folder / case_id):
        for ending in ("_dseg", ""):
            for suffix in VOLUME_SUFFIXES:
                path = place / f"{case_id}{ending}{suffix}"
                if path.is_file() and path.resolve() not in images:
                    return path
    return None


def _score_file(
    case: Case,
    path: Path | None,
    method: str,
    label_set_name: str | None,
    target: LabelSet | None,
    metrics: Sequence[str],
) -> pd.DataFrame:
    if path is None:
        raise MissingFileError(f"there is no label map {case.id}_dseg.nii.gz in the folder of predictions")
    return score_case(read_prediction(path, label_set_name), case, method=method, metrics=metrics, label_set=target)


def read_prediction(path: Path, label_set_name: str | None = None) -> LabelMap:
    """Read a label map whose ids mean what the table beside it says, else what the name of a label set says."""
    table = path.with_name(f"{stem(path)}.tsv")
    meaning = label_set(label_set_name) if label_set_name and not table.is_file() else label_set_of(path)
    return read_labels(path, meaning)


def _nothing_works(scores: pd.DataFrame) -> bool:
    return bool(scores["status"].astype(str).str.startswith("failed").all())


def _finish(
    scores: pd.DataFrame,
    cases: ManifestCases,
    out: Path,
    parameters: Mapping[str, Any],
    notes: Sequence[str],
    started: datetime,
) -> EvaluationResult:
    """Write the score table, the report and the record."""
    failures = failures_of(scores)
    if _nothing_works(scores):
        raise InputError(f"no case could be scored: {failures[0].name}: {failures[0].message}")
    write_scores(scores, out / "scores.csv")
    summary = summary_table(scores)
    figures, warnings = score_figures(scores)
    first = metrics_of(scores)[0]
    notes = [*notes, *warnings]
    n_cases, n_subjects = scores["case_id"].nunique(), scores["subject"].nunique()
    write_report(
        Report(
            "Evaluation",
            subtitle=f"{n_cases} cases of {n_subjects} subjects: {', '.join(dict.fromkeys(scores['method']))}",
            date=started.date().isoformat(),
            tiles={"Cases": n_cases, "Subjects": n_subjects, "Failed": len(failures), "Warnings": len(notes)},
            failures=failures,
            tables=[
                Table(
                    f"{metric_title(first)[0]}: median (quartiles)",
                    paper_table(summary, first),
                    lost_scores(scores, first),
                ),
                *volume_tables(scores),
                every_metric(summary),
            ],
            figures=list(figures.values()),
            warnings=notes,
            parameters={**parameters, "versions": versions()},
        ),
        out / "report.html",
    )
    inputs = [{"name": "manifest", "path": str(cases.path), "sha256": file_hash(cases.path)}]
    for rows in cases.rows:
        inputs += [{"name": rows[0].case_id, "path": str(path), "sha256": file_hash(path)} for path in files_of(rows)]
    RunRecord("evaluate", parameters, inputs, "cpu", started).write(out / "run.json")
    return EvaluationResult(scores, summary, out / "scores.csv", out / "report.html", tuple(failures), tuple(notes))
