"""Search the parameters of a method over the cases of a manifest; report what was chosen and what it matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from musclekit.evaluation.search import LOWER_IS_BETTER, Mode, Plan, SearchResult, read_plan, search
from musclekit.io import files_of
from musclekit.report import Failure, Figure, Report, Table, paper_table, sensitivity_map, summary_table, write_report
from musclekit.workflows.cases import open_cases
from musclekit.workflows.evaluate import METRICS, method_title
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
from musclekit.workflows.segment import noted_warnings

__all__ = ["OPTIMISTIC", "SearchOutcome", "search_parameters"]

OPTIMISTIC = (
    "These scores are optimistic. The parameters were chosen on all left-out scores together (mode paper, as Gadermayr "
    "et al. did), and the scores shown are among those they were chosen on: on new subjects expect less. Nested mode "
    "(--mode nested) chooses without the subject that is scored."
)


@dataclass(frozen=True, eq=False)
class SearchOutcome:
    """What a search wrote.

    Parameters
    ----------
    result : SearchResult
        Tables and summary.
    report : Path
        The HTML report.
    failures : tuple of Failure
        The cases on which the chosen method failed, each with its reason.
    warnings : tuple of str
        What the reader of the scores should know.
    """

    result: SearchResult
    report: Path
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


def search_parameters(
    plan: Path,
    manifest: Path,
    out: Path,
    *,
    mode: Mode = "nested",
    jobs: int = 1,
    scheduler: str | None = None,
    label_set_name: str | None = None,
    progress: OnProgress | None = None,
) -> SearchOutcome:
    """Search a grid of parameters by leave-one-subject-out and write the report.

    Parameters
    ----------
    plan : Path
        TOML: the method, the grid, and the metric to choose by.
    manifest : Path
        CSV of annotated cases.
    out : Path
        Folder to write to. What an interrupted call has done there is used again; a folder of another plan is
        refused.
    mode : {"nested", "paper"}
        Whether each fold chooses without the subject it is scored on, or all choose together, which is optimistic.
    jobs : int
        Units of work at the same time, each in a process of its own.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:port``, whose workers do the work.
    label_set_name : str, optional
        What the ids of the label maps mean; read from the label tables beside them if left out.
    progress : callable, optional
        Called as work goes on with (work done, all the work, best so far).

    Returns
    -------
    SearchOutcome
        Written beside what `musclekit.evaluation.search.search` writes: ``report.html``, ``report.json`` and
        ``run.json``.

    Raises
    ------
    InputError
        As `musclekit.evaluation.search.search` does, or if a case of the manifest cannot be opened.
    """
    started = datetime.now(UTC)
    what = read_plan(plan)
    cases = open_cases(manifest, label_set_name)
    check_folder(out, "search", {})
    with noted_warnings() as notes:
        result = search(what, cases.all(), out, mode=mode, jobs=jobs, scheduler=scheduler, progress=progress)
    parameters = {
        "plan": str(plan),
        "manifest": str(manifest),
        "mode": mode,
        "method": dict(what.method),
        "metric": what.metric,
        "label": what.label,
        "points of the grid": len(what.points),
        "label set": label_set_name,
    }
    failures = failures_of(result.scores)
    warnings = [OPTIMISTIC] * (mode == "paper") + list(notes)
    report = _report(what, result, parameters, failures, warnings, started)
    write_report(report, out / "report.html")
    inputs: list[dict[str, Any]] = [
        {"name": name, "path": str(path), "sha256": file_hash(path)}
        for name, path in (("plan", plan), ("manifest", manifest))
    ]
    for rows in cases.rows:
        inputs += [{"name": rows[0].case_id, "path": str(path), "sha256": file_hash(path)} for path in files_of(rows)]
    where = {"jobs": jobs, "scheduler": scheduler}
    RunRecord("search", parameters | where, inputs, "cpu", started).write(out / "run.json")
    return SearchOutcome(result, out / "report.html", tuple(failures), tuple(report.warnings))


def _report(
    plan: Plan,
    result: SearchResult,
    parameters: Mapping[str, Any],
    failures: Sequence[Failure],
    warnings: Sequence[str],
    started: datetime,
) -> Report:
    scores, folds = result.scores, result.folds
    title, unit = metric_title(plan.metric)
    summary = summary_table(scores)
    # The table holds every metric there is; these are drawn.
    drawn = {plan.metric, *METRICS, ""}
    figures, undrawn = score_figures(scores[scores["metric"].isin(drawn)])
    warnings = [*warnings, *undrawn]
    nested = parameters["mode"] == "nested"
    of_grid = {name for point in plan.points for name in point}
    how = "chosen in each fold without the subject it is scored on" if nested else "chosen once, on all left-out scores"
    tables = [
        Table(
            "Chosen parameters",
            folds.assign(**{name: folds[name].map(_as_given) for name in folds.columns if name in of_grid}),
            f"One row a fold: the subject left out; what the choice went by (inner: mean {title} over "
            f"{'the other' if nested else 'all'} subjects) and what it came to on the subject left out (outer).",
        ),
        Table(
            f"{title}: median (quartiles)",
            paper_table(summary, plan.metric if plan.metric in metrics_of(scores) else metrics_of(scores)[0]),
            lost_scores(scores, plan.metric),
        ),
        *volume_tables(scores),
        every_metric(summary),
        *_optimism(result.summary, title),
    ]
    return Report(
        "Search of parameters",
        subtitle=f"{method_title(plan.method)}: {len(plan.points)} points of the grid, {how}",
        date=started.date().isoformat(),
        tiles={
            "Subjects": scores["subject"].nunique(),
            "Points": len(plan.points),
            "Failed": len(failures),
            "Warnings": len(warnings),
        },
        failures=failures,
        tables=tables,
        figures=[*_sensitivity(plan, result.points, title, unit), *figures.values()],
        warnings=warnings,
        parameters={**parameters, "versions": versions()},
    )


def _as_given(value: Any) -> str:
    """Write the value of a parameter in full: 0.0005 is not 0.001."""
    if value is None or pd.isna(value):
        return ""  # the point has no such parameter
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sensitivity(plan: Plan, points: pd.DataFrame, title: str, unit: str) -> list[Figure]:
    """Map of the mean score over pairs of parameters, where there is more than one point to compare."""
    names = [name for name in dict.fromkeys(name for point in plan.points for name in point) if name in points.columns]
    varied = [name for name in names if points[name].nunique() > 1]
    if not varied or not points["score"].notna().any():
        return []
    shown = f"{title}, {unit}" if unit else title
    lower = plan.metric in LOWER_IS_BETTER
    return [sensitivity_map(points.rename(columns={"score": shown}), names, score=shown, smaller_is_better=lower)]


def _optimism(summary: Mapping[str, Any], title: str) -> list[Table]:
    """Return what a choice on the scores themselves would claim, beside what the nested search found."""
    if summary["mode"] != "nested":
        return []
    frame = pd.DataFrame(
        {
            "mode": ["nested", "paper", "optimism of paper"],
            f"mean {title}": [summary["value"], summary["paper_value"], summary["optimism"]],
        }
    )
    caption = (
        "Mean over subjects. Nested: chosen without the subject that is scored. Paper: the best point of the grid on "
        "all left-out scores, reported on those same scores."
    )
    return [Table("What a choice on the test scores would claim", frame, caption)]
