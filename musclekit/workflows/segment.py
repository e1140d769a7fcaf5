"""Segment scans: label maps, tables, pictures, one report and one record of the run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from musclekit import registry
from musclekit.compose import for_side
from musclekit.errors import InputError, ParameterError, SegmentationError, UnsafeError, unknown_name
from musclekit.image import Contrast
from musclekit.io import open_scan, write_label_table, write_labels
from musclekit.labels import LabelSet, Side, label_mapping, label_set
from musclekit.memory import remembering
from musclekit.protocols import AssessedSegmenter, Segmenter
from musclekit.report import scan_figures
from musclekit.uncertainty import DiceCalibration
from musclekit.workflows.batch import Batch, Job, naming_fates, scan_records
from musclekit.workflows.cases import open_cases
from musclekit.workflows.numbers import assessed_measures, scan_details, sided_measures, write_measures, write_table
from musclekit.workflows.outcome import BatchOutcome, OnProgress, ScanOutcome
from musclekit.workflows.pages import write_picture, write_scan_report
from musclekit.workflows.record import RunRecord, file_hash
from musclekit.workflows.staging import together
from musclekit.workflows.translation import check_translation, device_of, translated_by, translator_in
from musclekit.workflows.trust import check_calibration, trust_in, uncertain

__all__ = ["compose_method", "noted_warnings", "segment_scans", "write_all_measures"]


def compose_method(method: str, translator: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain description of a segmenter, behind a translator if one is named.

    Parameters
    ----------
    method : str
        Name of a segmenter.
    translator : str, optional
        Name of a translator to put before it.
    settings : mapping
        Parameters of the segmenter; with a translator, those that begin with ``translator__`` are the translator's.

    Returns
    -------
    dict
        For `musclekit.registry.build`.

    Raises
    ------
    UnknownNameError, ParameterError
        If a name or a parameter does not exist; the message lists those that do.
    """
    if method not in registry.names():
        raise unknown_name("segmenter", method, registry.names("segmenter"))
    if registry.entry(method).kind != "segmenter":
        raise ParameterError(f"'{method}' is a {registry.entry(method).kind}, not a segmenter")
    if "name" in settings:
        raise ParameterError(f"method '{method}' has no parameter 'name'; choose the method with --method")
    if translator is None:
        built = registry.build(method, **settings)
    else:
        if translator not in registry.names():
            raise unknown_name("translator", translator, registry.names("translator"))
        if registry.entry(translator).kind != "translator":
            raise ParameterError(f"'{translator}' is a {registry.entry(translator).kind}, not a translator")
        mine = {key.removeprefix("translator__"): v for key, v in settings.items() if key.startswith("translator__")}
        rest = {key.removeprefix("segmenter__"): v for key, v in settings.items() if not key.startswith("translator__")}
        built = registry.build(
            "translated", translator={"name": translator, **mine}, segmenter={"name": method, **rest}
        )
    return registry.describe(built)


def segment_scans(
    scans: Sequence[Path],
    out: Path,
    *,
    method: Mapping[str, Any] | None = None,
    contrast: Contrast | None = None,
    series: str | None = None,
    side: Side | None = None,
    cases: Path | None = None,
    cases_label_set: str | None = None,
    label_set_name: str | None = None,
    strict: bool = False,
    calibration: Path | None = None,
    jobs: int = 1,
    progress: OnProgress | None = None,
) -> BatchOutcome:
    """Segment scans and write what a colleague would want to see.

    Parameters
    ----------
    scans : sequence of Path
        Files and folders, as `musclekit.workflows.inputs.find_scans` takes them.
    out : Path
        Folder to write to. One scan is written straight into it; several get a subfolder each.
    method : mapping, optional
        Description of a segmenter, as `musclekit.registry.describe` gives it; ``thigh`` with its defaults if left out.
    contrast : Contrast, optional
        What the scans are; read from DICOM tags, else guessed from HU content, if left out.
    series : str, optional
        DICOM series to take where a folder holds several.
    side : {"left", "right"}, optional
        Which leg, for scans that show one.
    cases : Path, optional
        Manifest of annotated cases, for a method that learns from them.
    cases_label_set : str, optional
        What the ids of their label maps mean; read from the label tables beside them if left out.
    label_set_name : str, optional
        Label set to write the labels in, one that the method's leads to; the method's own if left out.
    strict : bool
        Whether a scan whose translation does not pass its checks is refused.
    calibration : Path, optional
        ``calibration.json`` of a cross-validation: what the variance of a network that is sampled tells of the Dice to
        be expected.
    jobs : int
        Scans worked on at the same time, each in a process of its own.
    progress : callable, optional
        Called after each scan with (done, total, name).

    Returns
    -------
    BatchOutcome
        What became of each scan. Written for each: ``<name>_dseg.nii.gz`` on the scan's own grid, its label table
        ``_dseg.tsv``, ``_measures.csv`` and ``.json``, ``_qc.png``, and ``_safety.csv`` where it was translated; of a
        method that answers several times ``_uncertainty.csv``, ``_areas.csv``, ``_variance.nii.gz``,
        ``_entropy.nii.gz`` and ``_variance.png`` too; for the run: ``report.html`` and ``run.json``.

    Raises
    ------
    InputError
        If there is a single scan and it cannot be used; in a batch it becomes a failed outcome and the others finish.
        If the method learns from annotated cases and none are given.
    UnsafeError
        If there is a single scan, and `strict` refuses it.
    """
    batch = Batch.find(scans, out)
    description = dict(method) if method is not None else registry.describe(registry.build("thigh"))
    with noted_warnings() as notes:
        fitted = _fitted(description, cases, cases_label_set)
    wanted = None if label_set_name is None else label_set(label_set_name)
    if wanted is not None:
        # Refused before the first scan where no way leads there.
        label_mapping(fitted.label_set, wanted)
    translator = translator_in(fitted)
    if strict and translator is None:
        raise ParameterError("strict is about translations, and no translator is named")
    device = device_of(fitted)
    expected = None
    if calibration is not None:
        expected = DiceCalibration.load(calibration)
        check_calibration(expected, fitted)
    started = datetime.now(UTC)
    work = partial(_segment, method=fitted, contrast=contrast, series=series, side=side, strict=strict,
                   calibration=expected, wanted=wanted)  # fmt: skip
    outcomes = batch.run(work, processes=jobs, progress=progress)
    parameters = {
        "method": description,
        "contrast": None if contrast is None else str(contrast),
        "series": series,
        "side": side,
        "cases": None if cases is None else str(cases),
        "label_set": label_set_name,
        "strict": strict,
        "calibration": None if calibration is None else str(calibration),
        "jobs": jobs,
    }
    with naming_fates(outcomes):
        report = write_scan_report(
            outcomes,
            out / "report.html",
            title="Thigh segmentation",
            date=started.date().isoformat(),
            parameters=parameters,
            warnings=notes,
        )
        write_all_measures(outcomes, out / "measures.csv")
        RunRecord("segment", parameters, scan_records(outcomes), device, started).write(out / "run.json")
    return BatchOutcome(tuple(outcomes), report, tuple(notes))


def _fitted(description: Mapping[str, Any], cases: Path | None, label_set_name: str | None) -> Segmenter:
    """Build the method and fit it on the annotated cases, or on none if it learns nothing."""
    method: Segmenter = registry.build(**description)
    if cases is not None:
        return method.fit(open_cases(cases, label_set_name).all())
    try:
        return method.fit([])
    except InputError as problem:
        if "annotated cases" in str(problem):
            raise type(problem)(f"{problem}; give a manifest of them with --cases") from problem
        raise


def write_all_measures(outcomes: Sequence[ScanOutcome], path: Path) -> None:
    """Write the structures of every scan into one table, a column ``scan`` in front; a failed scan is a row too."""
    import pandas as pd

    tables = []
    for outcome in outcomes:
        if outcome.measures is None:
            tables.append(pd.DataFrame({"scan": [outcome.name], "status": ["failed"]}))
        else:
            table = outcome.measures.structures.copy()
            table.insert(0, "scan", outcome.name)
            tables.append(table)
    write_table(pd.concat(tables, ignore_index=True), path)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect what a method warns of, so that it stands in the report instead of passing by on the screen."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    for warning in caught:
        text = str(warning.message)
        if issubclass(warning.category, UserWarning) and text not in notes:
            notes.append(text)
        elif not issubclass(warning.category, UserWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _segment(
    job: Job,
    *,
    method: Segmenter,
    contrast: Contrast | None,
    series: str | None,
    side: Side | None,
    strict: bool,
    calibration: DiceCalibration | None,
    wanted: LabelSet | None,
) -> ScanOutcome:
    began = time.perf_counter()
    scan = open_scan(job.path, contrast=contrast, series=series)
    translator = translator_in(method)
    checked = None
    method = for_side(method, side)
    try:
        # What is checked is what is segmented: it is translated once.
        with noted_warnings() as notes, remembering() if translator is not None else nullcontext():
            if translator is not None:
                checked = check_translation(scan.image, translated_by(method, scan.image), translator, strict=strict)
            sampled = uncertain(method)
            trust = assessment = None
            if isinstance(method, AssessedSegmenter):
                assessment = method.assess(scan.image)
                labels = assessment.labels
            elif sampled is None:
                labels = method.segment(scan.image)
            else:
                prediction = sampled.predict(scan.image)
                labels = prediction.labels
                trust = trust_in(prediction, scan.image, side=side, calibration=calibration)
    except (InputError, SegmentationError, UnsafeError) as problem:
        raise type(problem)(f"{job.path}: {problem}") from problem
    if wanted is not None:
        labels = labels.mapped(label_mapping(labels.label_set, wanted))
    if side is None and assessment is not None and len(assessment.sides) == 1:
        (side,) = assessment.sides
    measures = sided_measures(labels, scan.image, side=side)
    if assessment is not None:
        measures = assessed_measures(measures, assessment)
    with together(job.folder) as folder:
        write_labels(labels, folder / f"{job.name}_dseg.nii.gz", like=scan)
        write_label_table(labels.label_set, folder / f"{job.name}_dseg.tsv")
        write_measures(measures, folder, job.name)
        picture = write_picture(scan.image, labels, folder / f"{job.name}_qc.png")
        if checked is not None:
            write_table(checked.frame, folder / f"{job.name}_safety.csv")
        if trust is not None:
            trust.write(folder, job.name, scan)
    outcome = ScanOutcome(
        job.name,
        job.path,
        "done",
        folder=job.folder,
        warnings=(*scan.warnings, *notes, *(assessment.notes if assessment else ()), *measures.warnings),
        seconds=time.perf_counter() - began,
        input_hash=file_hash(job.path),
        measures=measures,
        picture=picture,
        details=scan_details(scan),
        figures=tuple(scan_figures(measures, labels, scan.image)),
    )
    if checked is not None:
        outcome = checked.added_to(outcome)
    return outcome if trust is None else trust.added_to(outcome)
