"""Segment scans: label maps, tables, pictures, one report and one record of the run."""

from __future__ import annotations

import logging
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musclekit import registry
from musclekit.errors import InputError, MusclekitError, OutputError, ParameterError, SegmentationError, unknown_name
from musclekit.image import Contrast
from musclekit.io import open_scan, write_label_table, write_labels
from musclekit.labels import Side
from musclekit.protocols import Segmenter
from musclekit.report import scan_figures
from musclekit.workflows.cases import open_cases
from musclekit.workflows.inputs import find_scans, scan_names
from musclekit.workflows.numbers import scan_details, sided_measures, write_measures, write_table
from musclekit.workflows.outcome import BatchOutcome, OnProgress, ScanOutcome
from musclekit.workflows.pages import write_picture, write_scan_report
from musclekit.workflows.record import RunRecord, file_hash
from musclekit.workflows.staging import together

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


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """One scan to segment: everything a worker process needs."""

    path: Path
    name: str
    folder: Path
    method: Segmenter
    contrast: Contrast | None
    series: str | None
    side: Side | None


def segment_scans(
    scans: Sequence[Path],
    out: Path,
    *,
    method: Mapping[str, Any] | None = None,
    contrast: Contrast | None = None,
    series: str | None = None,
    side: Side | None = None,
    cases: Path | None = None,
    label_set_name: str | None = None,
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
        Description of a segmenter, as `musclekit.registry.describe` gives it; ``tissue`` with its defaults if left out.
    contrast : Contrast, optional
        What the scans are; read from DICOM tags, else guessed from HU content, if left out.
    series : str, optional
        DICOM series to take where a folder holds several.
    side : {"left", "right"}, optional
        Which leg, for scans that show one.
    cases : Path, optional
        Manifest of annotated cases, for a method that learns from them.
    label_set_name : str, optional
        What the ids of their label maps mean; read from the label tables beside them if left out.
    jobs : int
        Scans worked on at the same time, each in a process of its own.
    progress : callable, optional
        Called after each scan with (done, total, name).

    Returns
    -------
    BatchOutcome
        What became of each scan. Written for each: ``<name>_dseg.nii.gz`` on the scan's own grid, its label table
        ``_dseg.tsv``, ``_measures.csv`` and ``.json``, ``_qc.png``; for the run: ``report.html`` and ``run.json``.

    Raises
    ------
    InputError
        If there is a single scan and it cannot be used; in a batch it becomes a failed outcome and the others finish.
        If the method learns from annotated cases and none are given.
    """
    paths, refused = _find(scans)
    if jobs < 1:
        raise ParameterError(f"jobs must be 1 or more, not {jobs}")
    description = dict(method) if method is not None else registry.describe(registry.build("tissue"))
    with noted_warnings() as notes:
        fitted = _fitted(description, cases, label_set_name)
    started = datetime.now(UTC)
    alone = len(paths) == 1 and not refused
    work = [
        _Job(path, name, out if alone else out / name, fitted, contrast, series, side)
        for path, name in zip(paths, scan_names(paths), strict=True)
    ]
    if alone:
        outcomes = [_segment(work[0])]
        if progress is not None:
            progress(1, 1, work[0].name)
    else:
        outcomes = []
        for outcome in _outcomes(work, jobs):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(work), outcome.name)
        order = {item.name: position for position, item in enumerate(work)}
        outcomes = sorted(outcomes, key=lambda outcome: order[outcome.name]) + refused
    parameters = {
        "method": description,
        "contrast": None if contrast is None else str(contrast),
        "series": series,
        "side": side,
        "cases": None if cases is None else str(cases),
        "jobs": jobs,
    }
    try:
        report = write_scan_report(
            outcomes,
            out / "report.html",
            title="Thigh segmentation",
            date=started.date().isoformat(),
            parameters=parameters,
            warnings=notes,
        )
        write_all_measures(outcomes, out / "measures.csv")
        _write_record(outcomes, parameters, started, out / "run.json")
    except OutputError as problem:
        # The scans themselves may have been done: what became of each must not be lost with the report.
        fates = "; ".join(f"{item.name} {item.status}{f' ({item.message})' * bool(item.message)}" for item in outcomes)
        raise OutputError(f"{problem}. Scans: {fates}") from problem
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


def _write_record(
    outcomes: Sequence[ScanOutcome], parameters: Mapping[str, Any], started: datetime, path: Path
) -> None:
    inputs = [
        {
            "name": outcome.name,
            "path": str(outcome.path),
            "sha256": outcome.input_hash,
            "status": outcome.status,
            "message": outcome.message,
            "warnings": list(outcome.warnings),
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in outcomes
    ]
    RunRecord("segment", parameters, inputs, "cpu", started).write(path)


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


def _find(scans: Sequence[Path]) -> tuple[list[Path], list[ScanOutcome]]:
    """Return the scans meant, and of several paths given those that lead to none, as failures."""
    if not scans:
        raise InputError("no scan was given")
    found: list[Path] = []
    refused: list[ScanOutcome] = []
    for given in scans:
        try:
            found += find_scans([given])
        except InputError as problem:
            if len(scans) == 1:
                raise
            refused.append(ScanOutcome(given.name or str(given), given, "failed", message=str(problem)))
    if not found:
        raise InputError("; ".join(outcome.message for outcome in refused))
    return list(dict.fromkeys(found)), refused


def _outcomes(work: Sequence[_Job], jobs: int) -> Iterator[ScanOutcome]:
    """Yield the outcome of each scan as it comes; a fault in one leaves the others alone."""
    if jobs == 1:
        yield from map(_segment_or_fail, work)
        return
    from joblib import Parallel, delayed, parallel_config

    given = {item.name: item for item in work}
    # A worker may be one of an earlier call, made in another working directory.
    absolute = [replace(item, path=item.path.absolute(), folder=item.folder.absolute()) for item in work]
    # One thread a worker: the processes are what runs in parallel.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        outcomes = Parallel(n_jobs=min(jobs, len(work)), return_as="generator_unordered")(
            delayed(_segment_or_fail)(item, one_thread=True) for item in absolute
        )
        for outcome in outcomes:
            item = given[outcome.name]
            yield replace(outcome, path=item.path, folder=None if outcome.folder is None else item.folder)


def _segment_or_fail(job: _Job, *, one_thread: bool = False) -> ScanOutcome:
    if one_thread:
        import cv2
        import SimpleITK as sitk

        cv2.setNumThreads(1)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    began = time.perf_counter()
    try:
        return _segment(job)
    except MusclekitError as problem:
        message = str(problem)
    except Exception as problem:  # a fault of ours in one scan must not take the night's batch with it
        where = traceback.extract_tb(problem.__traceback__)[-1]
        message = f"unexpected {type(problem).__name__} in {Path(where.filename).name}:{where.lineno}: {problem}"
        logger.debug("%s", job.path, exc_info=True)
    return ScanOutcome(
        job.name,
        job.path,
        "failed",
        message=message,
        seconds=time.perf_counter() - began,
        input_hash=file_hash(job.path) if os.access(job.path, os.R_OK) else "",
    )


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


def _segment(job: _Job) -> ScanOutcome:
    began = time.perf_counter()
    scan = open_scan(job.path, contrast=job.contrast, series=job.series)
    try:
        with noted_warnings() as notes:
            labels = job.method.segment(scan.image)
    except (InputError, SegmentationError) as problem:
        raise type(problem)(f"{job.path}: {problem}") from problem
    measures = sided_measures(labels, scan.image, side=job.side)
    with together(job.folder) as folder:
        write_labels(labels, folder / f"{job.name}_dseg.nii.gz", like=scan)
        write_label_table(labels.label_set, folder / f"{job.name}_dseg.tsv")
        write_measures(measures, folder, job.name)
        picture = write_picture(scan.image, labels, folder / f"{job.name}_qc.png")
    return ScanOutcome(
        job.name,
        job.path,
        "done",
        folder=job.folder,
        warnings=(*scan.warnings, *notes, *measures.warnings),
        seconds=time.perf_counter() - began,
        input_hash=file_hash(job.path),
        measures=measures,
        picture=picture,
        details=scan_details(scan),
        figures=tuple(scan_figures(measures, labels, scan.image)),
    )
