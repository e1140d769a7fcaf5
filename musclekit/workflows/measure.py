"""Measure a label map that is already there."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from musclekit.errors import GeometryError, InputError, ParameterError
from musclekit.image import Contrast
from musclekit.io import open_scan, read, read_label_table, read_labels, stem
from musclekit.labels import LabelSet, Side, label_set, label_set_names
from musclekit.report import scan_figures
from musclekit.workflows.numbers import scan_details, sided_measures, write_measures
from musclekit.workflows.outcome import BatchOutcome, ScanOutcome
from musclekit.workflows.pages import write_picture, write_scan_report
from musclekit.workflows.record import RunRecord, file_hash

__all__ = ["label_set_of", "measure_scan"]


def label_set_of(labels: Path) -> LabelSet:
    """Return the label set that the table beside a label map (``_dseg.tsv``) describes.

    ``huashan-11`` and ``thigh-11`` are one anatomy with one table: the first is returned.

    Raises
    ------
    InputError
        If there is no table, or it is that of no known set; the message lists the sets.
    """
    table = labels.with_name(f"{stem(labels)}.tsv")
    known = ", ".join(label_set_names())
    if not table.is_file():
        raise InputError(f"{labels.name}: what the ids mean is not known; give --label-set, one of: {known}")
    meaning = read_label_table(table)
    for name in label_set_names():
        if {label.id: label.full_name for label in label_set(name)} == meaning:
            return label_set(name)
    raise InputError(f"{table.name} describes no label set known here; give --label-set, one of: {known}")


def measure_scan(
    scan: Path,
    labels: Path,
    out: Path,
    *,
    label_set_name: str | None = None,
    fat: Path | None = None,
    water: Path | None = None,
    contrast: Contrast | None = None,
    series: str | None = None,
    side: Side | None = None,
) -> BatchOutcome:
    """Measure a label map on its scan and write tables, picture and report.

    Parameters
    ----------
    scan : Path
        The scan the labels belong to.
    labels : Path
        The label map, on the scan's grid.
    out : Path
        Folder to write to.
    label_set_name : str, optional
        What the ids mean; read from the label table beside the label map if left out.
    fat, water : Path, optional
        Dixon images, both or neither, for the fat fraction.
    contrast, series, side
        As in `musclekit.workflows.segment_scans`.

    Returns
    -------
    BatchOutcome
        One outcome. Written: ``<name>_measures.csv``, ``_slices.csv``, ``_measures.json``, ``_qc.png``,
        ``report.html`` and ``run.json``.

    Raises
    ------
    InputError
        If a file cannot be used, or the labels lie on another grid than the scan.
    """
    if (fat is None) != (water is None):
        raise ParameterError("a fat fraction needs both --fat and --water")
    began, started = time.perf_counter(), datetime.now(UTC)
    meaning = label_set(label_set_name) if label_set_name is not None else label_set_of(labels)
    opened = open_scan(scan, contrast=contrast, series=series)
    found = read_labels(labels, meaning)
    if not found.grid.same_as(opened.image.grid):
        raise GeometryError(
            f"{labels.name} lies on another grid than {scan.name}: {opened.image.grid.difference(found.grid)}"
        )
    measures = sided_measures(
        found,
        opened.image,
        side=side,
        fat=None if fat is None else read(fat, contrast=Contrast.FAT),
        water=None if water is None else read(water, contrast=Contrast.WATER),
    )
    name = stem(scan)
    write_measures(measures, out, name)
    outcome = ScanOutcome(
        name,
        scan,
        "done",
        folder=out,
        warnings=(*opened.warnings, *measures.warnings),
        seconds=time.perf_counter() - began,
        input_hash=file_hash(scan),
        measures=measures,
        picture=write_picture(opened.image, found, out / f"{name}_qc.png"),
        details=scan_details(opened),
        figures=tuple(scan_figures(measures, found, opened.image)),
    )
    parameters = {
        "labels": str(labels),
        "label_set": meaning.name,
        "fat": None if fat is None else str(fat),
        "water": None if water is None else str(water),
        "contrast": None if contrast is None else str(contrast),
        "side": side,
    }
    report = write_scan_report(
        [outcome], out / "report.html", title="Thigh measures", date=started.date().isoformat(), parameters=parameters
    )
    files = {"scan": scan, "labels": labels, "fat": fat, "water": water}
    inputs = [
        {"name": what, "path": str(path), "sha256": file_hash(path)} for what, path in files.items() if path is not None
    ]
    RunRecord("measure", parameters, inputs, "cpu", started).write(out / "run.json")
    return BatchOutcome((outcome,), report)
