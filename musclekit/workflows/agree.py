"""How far automatic volumes of functional groups agree with manual ones, over the cases of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from musclekit.anatomy import label_sides
from musclekit.errors import GeometryError, InputError, MusclekitError, ParameterError, unknown_name
from musclekit.evaluation.agreement import LEAST_PERSONS, TAKES_PART, Legs, observations, pair_volumes, volume_agreement
from musclekit.evaluation.case_scores import CaseScorer
from musclekit.evaluation.harness import labels_path
from musclekit.image import Case, Contrast, LabelMap
from musclekit.io import ManifestRow
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.quantify.groups import GROUPS, VOLUMES, functional_groups, group_volumes
from musclekit.report import Failure, Figure, Report, Table, bland_altman, write_report
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.evaluate import (
    EvaluationResult,
    evaluate_methods,
    evaluate_predictions,
    prediction_path,
    read_prediction,
)
from musclekit.workflows.numbers import write_table
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions
from musclekit.workflows.score_report import METRIC_TITLES

__all__ = ["AgreementResult", "agree_on_volumes"]

#: What is told of the masks beside the volumes.
OVERLAP = ("dice", "sensitivity", "specificity", "accuracy")
#: Where the scores of the masks go.
SCORES_FOLDER = "evaluation"
#: Below it an interval of an ICC is about as wide as what it can be.
FEW_PERSONS = 10
#: What stands in a table of the page where there is no number.
NO_NUMBER = "\N{EN DASH}"
#: What a volume is called on a page.
TITLES = {"total_ml": "total", "lean_ml": "lean", "fat_ml": "fat"}


@dataclass(frozen=True, eq=False)
class AgreementResult:
    """What an agreement of volumes wrote.

    Parameters
    ----------
    volumes : DataFrame
        As `musclekit.evaluation.pair_volumes` gives it.
    agreement : DataFrame
        As `musclekit.evaluation.volume_agreement` gives it.
    overlap : DataFrame
        Mean and standard deviation over persons of Dice, sensitivity, specificity and accuracy, by set and group.
    folder : Path
        Where everything lies.
    report_path : Path
        The HTML report.
    failures : tuple of Failure
        The cases of which there are no volumes, each with its reason.
    warnings : tuple of str
        What the reader of the numbers should know.
    """

    volumes: pd.DataFrame
    agreement: pd.DataFrame
    overlap: pd.DataFrame
    folder: Path
    report_path: Path
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


def agree_on_volumes(
    manifest: Path,
    out: Path,
    *,
    predictions: Path | None = None,
    method: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
    splits: str = "none",
    training: Path | None = None,
    groups: str = GROUPS,
    by: str | None = None,
    legs: Legs = "mean",
    label_set_name: str | None = None,
    jobs: int = 1,
    progress: OnProgress | None = None,
) -> AgreementResult:
    """Measure functional groups in automatic and in manual label maps, and tell how far the volumes agree.

    Parameters
    ----------
    manifest : Path
        CSV of cases with label maps, the manual ones.
    out : Path
        Folder to write to.
    predictions : Path, optional
        Folder of automatic label maps, as of `musclekit.workflows.evaluate_predictions`.
    method : mapping of str to mapping, optional
        In place of predictions: one method, name to description (`musclekit.workflows.methods_of`), that segments the
        cases first.
    name : str, optional
        What predictions are called; the name of their folder if left out.
    splits, training, jobs
        Of a method, as of `musclekit.workflows.evaluate_methods`.
    groups : str
        Label set of the groups, unsided.
    by : str, optional
        Column of the manifest that parts the cases into sets, as ``split`` or ``domain`` may part internal and
        external ones; each set is told by itself.
    legs : {"mean", "apart"}
        One observation is a person's mean over legs, or left and right are told by themselves.
    label_set_name : str, optional
        What the ids of label maps mean; read from the label tables beside them if left out.
    progress : callable, optional
        Called as work goes on with (done, total, what).

    Returns
    -------
    AgreementResult
        Written: ``volumes.csv``, ``agreement.csv``, ``overlap.csv``, ``report.html``, ``report.json``, ``run.json``
        and, in ``evaluation/``, the scores of the masks in groups. A case without label map is a failed row.

    Raises
    ------
    InputError
        If manifest, predictions, groups or column cannot be used, nothing could be measured, or the folder holds
        another run.
    ParameterError
        If not one of predictions and method is given, or several methods.
    """
    started = datetime.now(UTC)
    if (predictions is None) == (not method) or (method and len(method) > 1):
        raise ParameterError("volumes are compared of one method, or of one folder of predictions")
    target = label_set(groups)
    if target.is_sided:
        raise ParameterError(f"'{groups}' tells sides apart; give it as '{target.unsided().name}': sides are found")
    cases = open_cases(manifest, label_set_name)
    sets = None if by is None else _sets(cases, by)
    parameters = {
        "manifest": str(manifest),
        "predictions": None if predictions is None else str(predictions),
        "method": None if method is None else {title: dict(description) for title, description in method.items()},
        "name": name,
        "splits": splits,
        "training": None if training is None else str(training),
        "groups": groups,
        "by": by,
        "legs": legs,
        "label set": label_set_name,
    }
    check_folder(out, "agree", parameters)

    def move(done: float, what: str) -> None:
        if progress is not None:
            progress(done, 2 * len(cases), what)

    def scored(done: float, total: float, what: str) -> None:
        move(len(cases) * done / total if total else 0, what)

    if predictions is not None:
        evaluation = evaluate_predictions(
            manifest,
            predictions,
            out / SCORES_FOLDER,
            name=name,
            metrics=OVERLAP,
            label_set_name=label_set_name,
            compared_in=groups,
            progress=scored,
        )
    else:
        evaluation = evaluate_methods(
            manifest,
            out / SCORES_FOLDER,
            methods=method or {},
            metrics=OVERLAP,
            splits=splits,
            training=training,
            jobs=jobs,
            label_set_name=label_set_name,
            compared_in=groups,
            keep_labels=True,
            progress=scored,
        )
    title = str(evaluation.scores["method"].iloc[0])
    # A method that segments folds tells of the cases of its folds alone.
    known = set(evaluation.scores["case_id"])
    scores = evaluation.scores
    lost = scores[scores["status"].astype(str).str.startswith("failed")].drop_duplicates("case_id")
    reasons = dict(zip(lost["case_id"], lost["status"].astype(str).str.removeprefix("failed: "), strict=True))
    measured = _measure(
        [rows for rows in cases.rows if rows[0].case_id in known],
        cases,
        target,
        reasons,
        lambda rows: _map_of(rows, predictions, out, title),
        label_set_name,
        lambda done, case_id: move(len(cases) + done, case_id),
    )
    failures = tuple(Failure(f"{case_id}, {title}", message) for case_id, message in measured.reasons.items())
    if not len(measured.reference):
        raise InputError(f"no volume could be measured: {failures[0].name}: {failures[0].message}")
    automatic, reference = (
        table.assign(set=table["case_id"].map(sets or {})) for table in (measured.automatic, measured.reference)
    )
    part = None if by is None else "set"
    volumes = pair_volumes(automatic, reference, by=part)
    agreement = volume_agreement(automatic, reference, by=part, legs=legs)
    overlap = _overlap(evaluation.scores, sets, legs)
    write_table(volumes, out / "volumes.csv")
    write_table(agreement, out / "agreement.csv")
    write_table(overlap, out / "overlap.csv")
    notes = [*measured.notes, *_notes(volumes, agreement, measured.untold, legs)]
    notes += [text for text in evaluation.warnings if "Bland-Altman" not in text and "volume" not in text]
    report = _report(
        volumes, agreement, overlap, evaluation, failures, notes,
        title=title, by=by, legs=legs, date=started.date().isoformat(), parameters=parameters,
    )  # fmt: skip
    write_report(report, out / "report.html")
    inputs = [{"name": "manifest", "path": str(manifest), "sha256": file_hash(manifest)}]
    inputs += [{"name": name, "path": str(path), "sha256": file_hash(path)} for name, path in measured.maps.items()]
    RunRecord("agree", parameters, inputs, "cpu", started).write(out / "run.json")
    return AgreementResult(volumes, agreement, overlap, out, out / "report.html", failures, tuple(notes))


@dataclass(frozen=True)
class _Measured:
    """Volumes of all cases, and what is to be told of them.

    ``automatic`` and ``reference`` are tables of volumes, ``maps`` the label maps that were measured, ``reasons`` why
    there are no volumes of a case, ``untold`` the cases of which lean and fat are not known.
    """

    automatic: pd.DataFrame
    reference: pd.DataFrame
    maps: Mapping[str, Path]
    reasons: Mapping[str, str]
    notes: Sequence[str]
    untold: Sequence[str]


def _map_of(rows: Sequence[ManifestRow], predictions: Path | None, out: Path, title: str) -> Path:
    """Return the automatic label map of a case: the one that was given, or the one that the method made."""
    given = None if predictions is None else prediction_path(predictions, rows)
    return given or labels_path(out / SCORES_FOLDER, title, rows[0].case_id)


def _measure(
    wanted: Sequence[Sequence[ManifestRow]],
    cases: ManifestCases,
    target: LabelSet,
    reasons: Mapping[str, str],
    map_of: Callable[[Sequence[ManifestRow]], Path],
    label_set_name: str | None,
    progress: Callable[[int, str], None],
) -> _Measured:
    """Measure the groups of every case in both label maps; what fails is told."""
    tables: dict[str, list[pd.DataFrame]] = {"automatic": [], "reference": []}
    maps: dict[str, Path] = {}
    why = dict(reasons)
    notes: list[str] = []
    untold: list[str] = []
    for done, rows in enumerate(wanted, start=1):
        case_id = rows[0].case_id
        try:
            if case_id in reasons:
                raise InputError(reasons[case_id])
            case = cases.open(case_id)
            maps[case_id] = map_of(rows)
            found = read_prediction(maps[case_id], label_set_name)
            _say_members(found, case, target, notes)
            both = _volumes(found, case, target.name)
            if both["reference"]["lean_and_fat_from"].eq("").all():
                untold.append(case_id)
        except MusclekitError as problem:
            why[case_id] = str(problem)
            both = {"automatic": _failed(str(problem), target), "reference": pd.DataFrame()}
        for what, table in both.items():
            if len(table):
                tables[what].append(table.assign(case_id=case_id, subject=rows[0].subject))
        progress(done, case_id)
    automatic, reference = (
        pd.concat(tables[what], ignore_index=True) if tables[what] else pd.DataFrame() for what in tables
    )
    return _Measured(automatic, reference, maps, why, notes, untold)


def _sets(cases: ManifestCases, by: str) -> dict[str, str]:
    """Case id to its set, from a column of the manifest."""
    found: dict[str, str] = {}
    for rows in cases.rows:
        first = rows[0]
        columns = {"domain": first.domain, "split": first.split, "modality": first.modality, **first.extra}
        if by not in columns:
            raise unknown_name("column", by, columns)
        found[first.case_id] = str(columns[by] or "")
    if not any(found.values()):
        raise InputError(f"{cases.path}: the column '{by}' is empty: it parts no cases")
    return found


def _volumes(found: LabelMap, case: Case, groups: str) -> dict[str, pd.DataFrame]:
    """Volumes of groups in the automatic labels and in the reference of a case, side by side where sides are known."""
    if case.reference is None:
        raise InputError(f"case '{case.id}' has no reference labels")
    if not found.grid.same_as(case.reference.grid):
        difference = found.grid.difference(case.reference.grid)
        raise GeometryError(f"prediction and reference lie on two grids: {difference}")
    legs = CaseScorer(case).legs
    gathered = [functional_groups(labels, groups=groups) for labels in (found, case.reference)]
    if case.side is None and len(legs) == 2:
        gathered = [labels if labels.label_set.is_sided else label_sides(labels, legs) for labels in gathered]
    if len({labels.label_set for labels in gathered}) > 1:
        # The sides of one alone are known: only the whole can be compared.
        gathered = [labels.mapped(label_mapping(labels.label_set, label_set(groups))) for labels in gathered]
    side = case.side or (legs[0].side or "unknown" if len(legs) == 1 else None)
    image = case.images.get(Contrast.CT)
    dixon = {"fat": case.images.get(Contrast.FAT), "water": case.images.get(Contrast.WATER)}
    if image is not None or None in dixon.values():
        dixon = {}
    tables = (group_volumes(labels, image, **dixon, side=side, groups=groups) for labels in gathered)
    return dict(zip(("automatic", "reference"), tables, strict=True))


def _failed(message: str, groups: LabelSet) -> pd.DataFrame:
    volumes = dict.fromkeys(VOLUMES, np.nan)
    rows = [
        {"group": group, "side": "", **volumes, "lean_and_fat_from": "", "status": f"failed: {message}"}
        for group in groups.names
    ]
    return pd.DataFrame(rows)


def _say_members(found: LabelMap, case: Case, groups: LabelSet, notes: list[str]) -> None:
    """Note groups that are made of other labels in the automatic than in the reference, once for each."""
    if case.reference is None:
        return
    automatic, manual = (_members(labels.label_set, groups) for labels in (found, case.reference))
    for group in groups.names:
        if automatic[group] != manual[group]:
            text = (
                f"{group}: {', '.join(automatic[group]) or 'nothing'} in the automatic labels, "
                f"{', '.join(manual[group]) or 'nothing'} in the reference: their volumes need not be the same"
            )
            if text not in notes:
                notes.append(text)


def _members(source: LabelSet, groups: LabelSet) -> dict[str, tuple[str, ...]]:
    ids = label_mapping(source.unsided(), groups).ids
    return {
        group.name: tuple(label.name for label in source.unsided() if ids.get(label.id) == group.id) for group in groups
    }


def _overlap(scores: pd.DataFrame, sets: Mapping[str, str] | None, legs: Legs) -> pd.DataFrame:
    """Mean and standard deviation over persons of the scores of whole masks, by set, group (side) and metric."""
    whole = scores[scores["slice"].isna() & scores["metric"].isin(OVERLAP) & np.isfinite(scores["value"])]
    part = whole["case_id"].map(sets) if sets is not None else whole["case_id"].map(lambda _: "all")
    side = whole["side"] if legs == "apart" else whole["side"].map(lambda _: "")
    keys = ["set", "label", "side", "metric"]
    persons = whole.assign(set=part, side=side).groupby([*keys, "subject"], sort=False)["value"].mean()
    found: pd.DataFrame = persons.groupby(keys, sort=False).agg(["mean", "std", "count"]).reset_index()
    return found.rename(columns={"label": "group", "std": "sd", "count": "subjects"})


def _notes(volumes: pd.DataFrame, agreement: pd.DataFrame, untold: Sequence[str], legs: Legs) -> list[str]:
    notes = []
    if untold:
        notes.append(
            f"{len(untold)} cases have neither CT nor Dixon images, so that only total volumes are told of them: "
            f"{_some(untold)}"
        )
    for status, text in (
        ("missed", "the automatic labels have none of it, and count as 0 mL"),
        ("extra", "the reference has none of it, and counts as 0 mL"),
    ):
        rows = volumes[volumes["status"] == status]
        if len(rows):
            named = [
                f"{group} {side} of {case_id}".replace("  ", " ")
                for group, side, case_id in zip(rows["group"], rows["side"], rows["case_id"], strict=True)
            ]
            notes.append(f"{_some(named)}: {text}")
    fewest = int(agreement["subjects"].min())
    if fewest < FEW_PERSONS:
        told = "tells nothing, and is not given" if fewest < LEAST_PERSONS else "tells little"
        notes.append(f"few persons, {fewest} where there are fewest: an ICC of so few {told}")
    taken = volumes[volumes["status"].isin(TAKES_PART)]
    both = taken.groupby(["subject", "group"], sort=False)["side"].nunique()
    if legs == "mean" and both.max() > 1 and both.min() < both.max():
        notes.append(
            "of some persons one leg takes part, of others both: means over one and over two legs stand together"
        )
    return notes


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _report(
    volumes: pd.DataFrame,
    agreement: pd.DataFrame,
    overlap: pd.DataFrame,
    evaluation: EvaluationResult,
    failures: Sequence[Failure],
    notes: Sequence[str],
    *,
    title: str,
    by: str | None,
    legs: Legs,
    date: str,
    parameters: Mapping[str, Any],
) -> Report:
    observed = {
        "mean": "One observation is a person: the mean over all legs and cases of that person.",
        "apart": "One observation is a person; left and right are told by themselves.",
    }[legs]
    n_cases, n_subjects = volumes["case_id"].nunique(), volumes["subject"].nunique()
    tables = [
        Table(
            "Agreement of volumes",
            _shown_agreement(agreement, by, legs),
            "Automatic minus reference, with 95 % intervals; ICC(2,1): absolute agreement, ICC(3,1): consistency; p: F "
            "test of no correlation; limits: 95 % limits of agreement, whose own intervals stand in agreement.csv. "
            f"{observed}",
        ),
        Table(
            "Overlap of the masks",
            _shown_overlap(overlap, by, legs),
            "Mean (standard deviation) over persons. Specificity and accuracy are those of the body, not of the whole "
            "field of view; both are high for anything small.",
        ),
        Table(
            "Every volume",
            volumes if by is not None else volumes.drop(columns="set"),
            "In mL. A group that one of the two lacks counts as 0; cases that failed have a row, too.",
            folded=True,
        ),
    ]
    return Report(
        "Agreement of volumes",
        subtitle=f"{title} with the reference, {n_cases} cases of {n_subjects} subjects",
        date=date,
        tiles={"Cases": n_cases, "Subjects": n_subjects, "Failed": len(failures), "Warnings": len(notes)},
        failures=failures,
        tables=tables,
        figures=_figures(volumes, title, by, legs, observed),
        warnings=notes,
        parameters={**parameters, "scores": str(evaluation.scores_path), "versions": versions()},
    )


def _number(value: float, digits: int) -> str:
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # adding zero turns -0.0 into 0.0
    return text.replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else NO_NUMBER


def _interval(row: pd.Series[Any], value: str, ends: str, digits: int) -> str:
    numbers = [_number(row[name], digits) for name in (value, f"{ends}_low", f"{ends}_high")]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})" if numbers[1] != NO_NUMBER else numbers[0]


def _shown_agreement(agreement: pd.DataFrame, by: str | None, legs: Legs) -> pd.DataFrame:
    rows = []
    for _, row in agreement.iterrows():
        about = {} if by is None else {by: row["set"] or "(none)"}
        about |= {"group": row["group"]} | ({"side": row["side"]} if legs == "apart" else {})
        rows.append(
            about
            | {
                "volume": TITLES[row["quantity"]],
                "persons": row["subjects"],
                "reference, mL": _number(row["reference_mean_ml"], 1),
                "ICC(2,1)": _interval(row, "icc_2_1", "icc_2_1", 3),
                "ICC(3,1)": _interval(row, "icc_3_1", "icc_3_1", 3),
                "p": row["icc_p"],
                "bias, mL": _interval(row, "bias_ml", "bias", 1),
                "limits, mL": f"{_number(row['lower_ml'], 1)} to {_number(row['upper_ml'], 1)}"
                if np.isfinite(row["sd_ml"])
                else _number(np.nan, 1),
                "left out": row["left_out"],
            }
        )
    table = pd.DataFrame(rows)
    return table if table["left out"].any() else table.drop(columns="left out")


def _shown_overlap(overlap: pd.DataFrame, by: str | None, legs: Legs) -> pd.DataFrame:
    rows = []
    for (which, group, side), found in overlap.groupby(["set", "group", "side"], sort=False):
        about = {} if by is None else {by: which or "(none)"}
        about |= {"group": group} | ({"side": side} if legs == "apart" else {})
        about |= {"persons": int(found["subjects"].max())}
        for row in found.to_dict("records"):
            spread = f" ({row['sd']:.3f})" if np.isfinite(row["sd"]) else ""
            about[METRIC_TITLES[row["metric"]][0]] = f"{row['mean']:.3f}{spread}"
        rows.append(about)
    return pd.DataFrame(rows)


def _figures(volumes: pd.DataFrame, title: str, by: str | None, legs: Legs, observed: str) -> list[Figure]:
    """Bland-Altman figures, a panel a set (and side), of every group and volume that is told."""
    figures = []
    for quantity, called in TITLES.items():
        found = observations(volumes, quantity, legs=legs)
        which = found["set"].replace("", "(none)") if by is not None else found["set"].map(lambda _: title)
        if legs == "apart":
            which = (which + " " + found["side"]).str.strip()
        found = found.assign(method=which).rename(columns={"automatic": "prediction"})
        panels = list(dict.fromkeys(found["method"]))
        for group, everyone in found.groupby("group", sort=False):
            many = everyone.groupby("method")["subject"].transform("size") >= LEAST_PERSONS
            rows, few = everyone[many], ", ".join(dict.fromkeys(everyone.loc[~many, "method"]))
            if rows.empty:
                continue
            missing = f" Not drawn, for fewer than {LEAST_PERSONS} persons: {few}." if few else ""
            figure = bland_altman(
                rows,
                what=f"{called} volume of the {group}",
                title=f"{called.capitalize()} volume: {group}",
                methods=panels,
            )
            figures.append(replace(figure, caption=f"{figure.caption} {observed}{missing}"))
    return figures
