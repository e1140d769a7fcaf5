"""Compare the methods of score tables: paired statistics by subject, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from musclekit.evaluation.comparison import Test, compare
from musclekit.report import Report, Table, differences, paper_table, summary_table, write_report
from musclekit.statistics import Correction
from musclekit.workflows.numbers import write_table
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions
from musclekit.workflows.score_report import failures_of, lost_scores, metric_title, score_figures
from musclekit.workflows.summarise import read_score_tables

__all__ = ["ComparisonResult", "compare_scores"]


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """What a comparison wrote.

    Parameters
    ----------
    table : DataFrame
        As `musclekit.evaluation.compare` gives it.
    table_path, report_path : Path
        Where table and report lie.
    warnings : tuple of str
        What took no part, pair by pair.
    """

    table: pd.DataFrame
    table_path: Path
    report_path: Path
    warnings: tuple[str, ...]


def compare_scores(
    scores: Sequence[Path],
    out: Path,
    *,
    metric: str = "dice",
    label: str | None = None,
    baseline: str | None = None,
    test: Test = "wilcoxon",
    correction: Correction = "holm",
) -> ComparisonResult:
    """Compare the methods of score tables with each other, paired by subject.

    Parameters
    ----------
    scores : sequence of Path
        Score tables, or folders that hold a ``scores.csv``; their methods are put together.
    out : Path
        Folder to write to.
    metric, label, baseline, test, correction
        As in `musclekit.evaluation.compare`.

    Returns
    -------
    ComparisonResult
        Written: ``compare.csv``, ``report.html``, ``report.json`` and ``run.json``.

    Raises
    ------
    InputError
        If a table cannot be used, there are fewer than two methods, a name does not exist (the message lists those
        that do), or the folder holds a run of another command.
    """
    started = datetime.now(UTC)
    check_folder(out, "compare", {})
    table = read_score_tables(scores)
    found = compare(table, metric=metric, label=label, baseline=baseline, test=test, correction=correction)
    write_table(found, out / "compare.csv")
    warnings = [
        f"{row['method']} and {row['baseline']}, {row['label']}: left out {row['left_out']}"
        for row in found.to_dict("records")
        if row["left_out"]
    ]
    rows = table[table["slice"].isna() & table["metric"].isin([metric, ""])]
    if label is not None:
        rows = rows[rows["label"].isin([label, ""])]
    title, unit = metric_title(metric)
    figures, undrawn = score_figures(rows)
    parameters = {
        "scores": [str(path) for path in scores],
        "metric": metric,
        "label": label,
        "baseline": baseline,
        "test": test,
        "correction": correction,
    }
    failures = failures_of(rows)
    shown = found.drop(
        columns=["metric", "unit", "level", "test", "correction", "mean_difference", "statistic", "left_out"]
    )
    how = {"wilcoxon": "Wilcoxon's signed-rank test", "t": "the paired t test"}[test]
    write_report(
        Report(
            "Comparison of methods",
            subtitle=f"{title}, paired by subject: {', '.join(dict.fromkeys(rows['method']))}",
            date=started.date().isoformat(),
            tiles={
                "Cases": rows["case_id"].nunique(),
                "Subjects": rows["subject"].nunique(),
                "Failed": len(failures),
                "Warnings": len(warnings) + len(undrawn),
            },
            failures=failures,
            tables=[
                Table(
                    "Paired differences",
                    shown,
                    f"Method minus baseline; value, baseline value and difference are medians over the n subjects, low "
                    f"and high the bootstrap interval over subjects; p by {how}, corrected after {correction.title()}.",
                ),
                Table(
                    f"{title}: median (quartiles)",
                    paper_table(summary_table(rows), metric),
                    lost_scores(rows, metric),
                ),
            ],
            figures=[differences(found, what=title, unit=unit, title=f"Differences of {title}"), *figures.values()],
            warnings=[*warnings, *undrawn],
            parameters={**parameters, "versions": versions()},
        ),
        out / "report.html",
    )
    inputs = [{"name": path, "path": path, "sha256": file_hash(Path(path))} for path in dict.fromkeys(table["table"])]
    RunRecord("compare", parameters, inputs, "cpu", started).write(out / "run.json")
    return ComparisonResult(found, out / "compare.csv", out / "report.html", (*warnings, *undrawn))
