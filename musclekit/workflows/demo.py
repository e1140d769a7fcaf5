"""The demonstration: phantoms, methods with and without translation, scores against the exact truth, a report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from musclekit import registry
from musclekit.errors import ParameterError
from musclekit.evaluation.harness import evaluate
from musclekit.evaluation.scores import params_id, params_table, write_scores
from musclekit.image import Case, Contrast, Image
from musclekit.labels import label_set
from musclekit.phantom import GENERATOR_VERSION, Grade, make_case
from musclekit.protocols import Segmenter
from musclekit.report import Failure, Report, ScanSection, Table, montage, scan_figures, score_strips, write_report
from musclekit.workflows.numbers import sided_measures, write_table
from musclekit.workflows.outcome import OnProgress
from musclekit.workflows.record import RunRecord, versions
from musclekit.workflows.segment import noted_warnings

__all__ = ["DemoResult", "run_demo"]

CAPTION = (
    "Median Dice of muscle over whole volumes. The truth counts the fat inside a muscle as muscle; on CT the method "
    "tissue goes by Hounsfield units and calls it intermuscular fat, so that its compartment is what agrees."
)
GRADES: tuple[Grade, ...] = ("healthy", "moderate", "severe")
CONTRASTS = (Contrast.T1W, Contrast.CT)
SHAPE = (8, 192, 192)


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration wrote.

    Parameters
    ----------
    scores : DataFrame
        Score table, with a column ``group`` (contrast and grade).
    scores_path, report_path : Path
        Where score table and report lie.
    """

    scores: pd.DataFrame
    scores_path: Path
    report_path: Path


def _methods(contrast: Contrast, template: Image) -> dict[str, Segmenter]:
    """Segmenters alone, and behind the translators that need no training."""

    def behind(translator: str, segmenter: str, **settings: Any) -> Segmenter:
        built: Segmenter = registry.build(
            "translated", translator=registry.build(translator, **settings), segmenter=registry.build(segmenter)
        )
        return built

    alone = {name: registry.build(name) for name in ("threshold", "gmm", "tissue")}
    if contrast is Contrast.CT:
        return alone | {"histogram-match + gmm": behind("histogram-match", "gmm", template=template)}
    return alone | {
        "histogram-match + gmm": behind("histogram-match", "gmm", template=template),
        "n4 + gmm": behind("n4", "gmm"),
        "n4 + tissue": behind("n4", "tissue"),
    }


def run_demo(
    out: Path,
    *,
    subjects: int = 1,
    seed: int = 1,
    shape: tuple[int, int, int] = SHAPE,
    progress: OnProgress | None = None,
) -> DemoResult:
    """Build a small phantom cohort, run methods with and without translation, and report.

    Parameters
    ----------
    out : Path
        Folder to write to.
    subjects : int
        People of each grade.
    seed : int
        The same seed gives the same scores.
    shape : tuple of int
        (planes, rows, columns) of each phantom.
    progress : callable, optional
        Called after each case with (done, total, what).

    Returns
    -------
    DemoResult
        Written: ``scores.csv``, ``params.csv``, ``report.html`` and ``run.json``.

    Raises
    ------
    ParameterError
        If there is nobody.
    """
    if subjects < 1:
        raise ParameterError(f"a demonstration needs 1 or more subjects a grade, not {subjects}")
    started = datetime.now(UTC)
    muscle = label_set("muscle")
    total = len(CONTRASTS) * len(GRADES) * subjects
    tables, sections, descriptions = [], [], {}
    warnings: list[str] = []
    done = 0
    for contrast in CONTRASTS:
        template = make_case(_seed(seed, -1, 0), contrasts=(contrast,), shape=shape).image
        methods = _methods(contrast, template)
        for grade in GRADES:
            for person in range(subjects):
                case = make_case(
                    _seed(seed, GRADES.index(grade), person),
                    contrasts=(contrast,),
                    grade=grade,
                    shape=shape,
                    reference="tissue",
                    id=f"{grade}-{person + 1}-{contrast}",
                    subject=f"{grade}-{person + 1}",
                )
                with noted_warnings() as notes:
                    table = evaluate(methods, [case], label_set=muscle)
                warnings += [f"{case.id}: {note}" for note in notes]
                tables.append(table.assign(group=f"{contrast} {grade}"))
                if person == 0:
                    sections.append(_section(case, methods["tissue"]))
                done += 1
                if progress is not None:
                    progress(done, total, case.id)
        for method in methods.values():
            # A template held in memory cannot be written down: such a method has no params_id in the scores either.
            with suppress(ParameterError):
                described = registry.describe(method)
                descriptions[params_id(described)] = described
    scores = pd.concat(tables, ignore_index=True)
    write_scores(scores, out / "scores.csv")
    write_table(params_table(list(descriptions.values())), out / "params.csv")
    parameters = {
        "subjects a grade": subjects,
        "seed": seed,
        "phantom generator version": GENERATOR_VERSION,
        "slices, rows, columns": list(shape),
    }
    report = out / "report.html"
    write_report(_report(scores, sections, warnings, parameters, started), report)
    inputs = [{"name": section.name, "status": "done", "warnings": list(section.warnings)} for section in sections]
    RunRecord("demo", parameters, inputs, "cpu", started).write(out / "run.json")
    return DemoResult(scores, out / "scores.csv", report)


def _seed(seed: int, grade: int, person: int) -> int:
    """Return a seed of its own for each person; grade -1 is the template's."""
    return int(np.random.SeedSequence([seed, grade + 1, person]).generate_state(1)[0])


def _section(case: Case, method: Segmenter) -> ScanSection:
    labels = method.segment(case.image)
    measures = sided_measures(labels, case.image)
    return ScanSection(
        case.id,
        montage(case.image, labels, max_slices=4),
        measures.structures,
        measures.slices,
        measures.asymmetry,
        measures.warnings,
        {"method": "tissue", "grade": str(case.meta["grade"]), "contrast": str(case.image.contrast)},
        scan_figures(measures, labels, case.image),
    )


def _report(
    scores: pd.DataFrame,
    sections: Sequence[ScanSection],
    warnings: Sequence[str],
    parameters: dict[str, Any],
    started: datetime,
) -> Report:
    groups = dict(zip(scores["case_id"], scores["group"], strict=True))
    whole = scores[scores["slice"].isna() & (scores["status"] == "ok")]
    dice = whole[whole["metric"] == "dice"]
    median = dice.pivot_table(index="method", columns="group", values="value", aggfunc="median", sort=False)
    median = median.reset_index().rename_axis(columns=None)
    failures = scores[~scores["status"].isin(["ok", "undefined"])].drop_duplicates(["case_id", "method"])
    return Report(
        "musclekit demonstration",
        subtitle="Digital thighs with exact truth: methods that need no labels, alone and behind a translator",
        date=started.date().isoformat(),
        scans=sections,
        failures=[Failure(f"{row.case_id}, {row.method}", str(row.status)) for row in failures.itertuples()],
        tables=[Table("Agreement with the truth", median, CAPTION)],
        warnings=warnings,
        figures=[score_strips(scores[scores["slice"].notna()], "dice", group=groups, label="muscle")],
        parameters={**parameters, "versions": versions()},
    )
