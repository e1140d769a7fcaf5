"""From score tables to what a paper prints: tables, box plots, agreement of volumes, the best and the worst case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from musclekit.errors import GeometryError, InputError, MusclekitError, ParameterError, SchemaError, unknown_name
from musclekit.evaluation.harness import labels_name
from musclekit.evaluation.scores import common_label_set, read_scores
from musclekit.image import Case, LabelMap
from musclekit.io import read_labels, replacing
from musclekit.labels import Label, LabelSet, label_mapping
from musclekit.report import (
    Report,
    ScanSection,
    Table,
    montage,
    paper_table,
    summary_table,
    to_latex,
    to_markdown,
    write_report,
)
from musclekit.workflows.cases import ManifestCases, open_cases
from musclekit.workflows.measure import label_set_of
from musclekit.workflows.numbers import write_table
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions
from musclekit.workflows.score_report import (
    VOLUMES,
    every_metric,
    failures_of,
    lost_scores,
    metric_title,
    metrics_of,
    score_figures,
    volume_tables,
)

__all__ = [
    "LABELS_FOLDER",
    "SummaryResult",
    "agreement",
    "kept_labels",
    "read_score_tables",
    "summarise_scores",
]

#: Where label maps are kept, beside the score table.
LABELS_FOLDER = "labels"
#: What agrees and what does not, as a label map to be drawn.
AGREEMENT = LabelSet(
    "agreement",
    (
        Label(1, "in both", "both", "#3fae6b"),
        Label(2, "reference only", "missed", "#3f7fd9"),
        Label(3, "prediction only", "extra", "#e0522f"),
    ),
    {},
)
#: Metrics of which less is better, by what their absolute value is.
SMALLER_IS_BETTER = frozenset({"asd", "hd", "hd95", "hd95_max", "volume_error", "relative_volume_error"})


@dataclass(frozen=True, eq=False)
class SummaryResult:
    """What a summary wrote.

    Parameters
    ----------
    summary : DataFrame
        As `musclekit.report.summary_table` gives it, of all metrics.
    table : DataFrame
        As `musclekit.report.paper_table` gives it, of the metric asked for.
    report : Path
        The HTML report.
    warnings : tuple of str
        What could not be shown, and why.
    """

    summary: pd.DataFrame
    table: pd.DataFrame
    report: Path
    warnings: tuple[str, ...]


def read_score_tables(paths: Sequence[Path]) -> pd.DataFrame:
    """Read several score tables as one.

    Parameters
    ----------
    paths : sequence of Path
        Score tables, or folders that hold a ``scores.csv``.

    Returns
    -------
    DataFrame
        All their rows, and a column ``table`` with the path each comes from. Methods that go by one name in two tables
        but have other parameters are told apart by the name of the folder: ``gmm [second]``.

    Raises
    ------
    InputError
        If there is no table, or one score stands in two of them.
    """
    if not paths:
        raise InputError("no score table was given")
    tables = []
    for given in paths:
        path = given / "scores.csv" if given.is_dir() else given
        tables.append(read_scores(path).assign(table=str(path)))
    scores = pd.concat(tables, ignore_index=True)
    named = scores.groupby("method")["table"].nunique()
    for method in named[named > 1].index:
        mine = scores["method"] == method
        if scores.loc[mine, "params_id"].nunique() > 1:
            folder = scores.loc[mine, "table"].map(lambda path: Path(path).resolve().parent.name)
            scores.loc[mine, "method"] = [f"{method} [{name}]" for name in folder]
    key = ["case_id", "side", "slice", "fold", "method", "params_id", "label", "metric"]
    twice = scores[scores.duplicated(key, keep=False)]
    if len(twice):
        row = twice.iloc[0]
        same = " and ".join(dict.fromkeys(twice.loc[(twice[["case_id", "method"]] == row[["case_id", "method"]])
                                          .all(axis=1), "table"]))  # fmt: skip
        raise InputError(f"case '{row['case_id']}' is scored with '{row['method']}' twice, in {same}; give it once")
    return scores


def agreement(prediction: LabelMap, reference: LabelMap) -> LabelMap:
    """Return where two label maps agree and where they do not, as a label map to be drawn.

    Parameters
    ----------
    prediction, reference : LabelMap
        On one grid, in sets of which one maps to the other.

    Returns
    -------
    LabelMap
        ``in both`` where both have one label, ``reference only`` where the reference has a label that the prediction
        lacks, ``prediction only`` where the prediction has one the reference lacks. Two different labels count as
        the second.

    Raises
    ------
    GeometryError
        If the two lie on different grids.
    LabelError
        If they cannot be compared in one set.
    """
    if not prediction.grid.same_as(reference.grid):
        raise GeometryError(f"prediction and reference lie on two grids: {prediction.grid.difference(reference.grid)}")
    target = common_label_set(prediction.label_set, reference.label_set)
    found, wanted = (
        (m if m.label_set == target else m.mapped(label_mapping(m.label_set, target))).voxels
        for m in (prediction, reference)
    )
    voxels = np.zeros(found.shape, np.uint8)
    voxels[(wanted > 0) & (found != wanted)] = 2
    voxels[(found > 0) & (wanted == 0)] = 3
    voxels[(found > 0) & (found == wanted)] = 1
    return LabelMap(voxels, reference.grid, AGREEMENT)


def kept_labels(table: Path, method: str, case_id: str) -> Path:
    """Return where the label map of a case is kept, beside its score table; it may not be there.

    An evaluation keeps those of each method in a folder, a search has only those of the chosen parameters.
    """
    folder, name = table.parent / LABELS_FOLDER, labels_name(case_id)
    of_search = folder / name
    return of_search if of_search.is_file() else folder / method.replace("/", "_") / name


def summarise_scores(
    scores: Sequence[Path],
    out: Path,
    *,
    metric: str = "dice",
    label: str | None = None,
    manifest: Path | None = None,
    by: str | None = None,
    label_set_name: str | None = None,
    progress: OnProgress | None = None,
) -> SummaryResult:
    """Summarise score tables: tables for a paper, figures, pictures of the best, the middle and the worst case.

    Parameters
    ----------
    scores : sequence of Path
        Score tables, or folders that hold one.
    out : Path
        Folder to write to.
    metric : str
        The metric of the printed tables and of the choice of cases; every metric has its box plot.
    label : str, optional
        Which structure; all of them where not given. The pictures go by the first of each method.
    manifest : Path, optional
        The manifest the scores were made on: its columns can part the cases, and its scans are drawn.
    by : str, optional
        Column that parts the cases: of the score table (``side``, ``fold``) or of the manifest (``domain``, ``split``
        or a free one, as ``grade``).
    label_set_name : str, optional
        What the ids of the manifest's label maps mean, where no label table lies beside them.
    progress : callable, optional
        Called after each step with (done, total, what).

    Returns
    -------
    SummaryResult
        Written: ``summary.csv`` (every metric), ``table.csv``, ``table.md`` and ``table.tex`` (the metric asked for),
        ``figures/*.svg``, ``report.html``, ``report.json`` and ``run.json``.

    Raises
    ------
    InputError
        If a table cannot be used, or has no such metric, structure or column (the message lists what there is), or the
        folder holds a run of another command.
    """
    started = datetime.now(UTC)
    check_folder(out, "summarise", {})
    table = read_score_tables(scores)
    cases = None if manifest is None else open_cases(manifest, label_set_name)
    table = _parted(table, by, cases)
    if label is not None:
        if label not in set(table["label"]):
            raise unknown_name("structure", label, set(table["label"]) - {""})
        table = table[(table["label"] == label) | (table["label"] == "")]
    if metric not in set(table["metric"]):
        raise unknown_name("metric", metric, set(table["metric"]) - {""})
    whole = table[table["slice"].isna()]
    if whole.empty:
        raise InputError("the tables hold scores of single slices alone; a summary is of whole volumes")
    summary = summary_table(whole, by=[] if by is None else [by])
    printed = paper_table(summary, metric, by=by)
    steps = [*metrics_of(whole), "volumes", "pictures", "tables", "report"]

    def begin(what: str) -> None:
        if progress is not None:
            progress(steps.index(what), len(steps), what)

    figures, warnings = score_figures(whole, by=by, begin=begin)
    if not set(VOLUMES) <= set(whole["metric"]):
        warnings.append("the tables have no volumes: there is no Bland-Altman figure")
    begin("pictures")
    sections = _pictures(whole, metric, cases, warnings)
    begin("tables")
    for name, figure in figures.items():
        _write_text(figure.svg, out / "figures" / f"{name}.svg")
    write_table(summary, out / "summary.csv")
    write_table(printed, out / "table.csv")
    _write_text(to_markdown(printed), out / "table.md")
    _write_text(to_latex(printed), out / "table.tex")
    begin("report")
    failures = failures_of(whole)
    parameters = {
        "scores": [str(path) for path in scores],
        "metric": metric,
        "label": label,
        "manifest": None if manifest is None else str(manifest),
        "by": by,
    }
    n_cases, n_subjects = whole["case_id"].nunique(), whole["subject"].nunique()
    report = Report(
        "Summary of scores",
        subtitle=f"{n_cases} cases of {n_subjects} subjects, {whole['method'].nunique()} methods",
        date=started.date().isoformat(),
        tiles={"Cases": n_cases, "Subjects": n_subjects, "Failed": len(failures), "Warnings": len(warnings)},
        scans=sections,
        failures=failures,
        tables=[
            Table(f"{metric_title(metric)[0]}: median (quartiles)", printed, lost_scores(whole, metric)),
            *volume_tables(whole),
            every_metric(summary),
        ],
        figures=list(figures.values()),
        warnings=warnings,
        parameters={**parameters, "versions": versions()},
    )
    write_report(report, out / "report.html")
    inputs = [{"name": path, "path": path, "sha256": file_hash(Path(path))} for path in dict.fromkeys(table["table"])]
    RunRecord("summarise", parameters, inputs, "cpu", started).write(out / "run.json")
    if progress is not None:
        progress(len(steps), len(steps), "report")
    return SummaryResult(summary, printed, out / "report.html", tuple(warnings))


def _parted(scores: pd.DataFrame, by: str | None, cases: ManifestCases | None) -> pd.DataFrame:
    """Return the scores with the column that parts them."""
    if by is None or by in scores.columns:
        return scores
    if cases is None:
        raise ParameterError(
            f"the score table has no column '{by}'; it has {', '.join(scores.columns)}. "
            "A column of the manifest needs the manifest: --manifest"
        )
    found: dict[str, str] = {}
    known: set[str] = set()
    for rows in cases.rows:
        columns = {"domain": rows[0].domain, "split": rows[0].split, "modality": rows[0].modality, **rows[0].extra}
        known |= set(columns)
        found[rows[0].case_id] = str(columns.get(by) or "")
    if by not in known:
        raise unknown_name("column", by, known | set(scores.columns))
    strange = sorted(set(scores["case_id"]) - set(found))
    if strange:
        raise SchemaError(f"{cases.path}: the scores are of other cases too: {', '.join(strange[:5])}")
    return scores.assign(**{by: scores["case_id"].map(found)})


def _pictures(scores: pd.DataFrame, metric: str, cases: ManifestCases | None, warnings: list[str]) -> list[ScanSection]:
    """Best, middle and worst case of each method, where scans and label maps are at hand."""
    if cases is None:
        warnings.append("no pictures of cases: they need the manifest (--manifest)")
        return []
    sections = []
    for method, rows in scores[scores["metric"] == metric].groupby("method", sort=False):
        mine = rows[(rows["label"] == rows["label"].iloc[0]) & np.isfinite(rows["value"])]
        if mine.empty:
            warnings.append(f"{method}: no pictures of cases: no {metric} is a finite number")
            continue
        goodness = -mine["value"].abs() if metric in SMALLER_IS_BETTER else mine["value"]
        order = mine.loc[goodness.sort_values(kind="stable").index]
        chosen = {"worst": order.iloc[0], "median": order.iloc[(len(order) - 1) // 2], "best": order.iloc[-1]}
        missing = []
        for place, row in chosen.items():
            path = kept_labels(Path(row["table"]), str(method).split(" [")[0], row["case_id"])
            if not path.is_file():
                missing.append(row["case_id"])
                continue
            try:
                sections.append(_section(str(method), place, row, cases.open(row["case_id"]), path, metric))
            except MusclekitError as problem:
                warnings.append(f"{method}: no picture of case '{row['case_id']}': {problem}")
        if missing:
            warnings.append(
                f"{method}: no pictures of {', '.join(dict.fromkeys(missing))}: their label maps were not kept "
                "(evaluate with --keep-labels)"
            )
    return sections


def _section(method: str, place: str, row: pd.Series[Any], case: Case, path: Path, metric: str) -> ScanSection:
    if case.reference is None:
        raise InputError("it has no reference")
    found = read_labels(path, label_set_of(path))
    image = next(iter(case.images.values()))
    details: Mapping[str, str] = {
        "case": case.id,
        metric_title(metric)[0]: f"{row['value']:.3f}",
        "structure": str(row["label"]),
    }
    picture = montage(image, agreement(found, case.reference), max_slices=4, columns=4)
    return ScanSection(f"{method}: {place} case", picture, details=details)


def _write_text(text: str, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
