"""Translate scans: images on their own grids, the checks of what was changed, pictures, one report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from musclekit import registry
from musclekit.errors import InputError, ParameterError, SegmentationError, UnsafeError, unknown_name
from musclekit.image import Contrast
from musclekit.io import open_scan, write_image
from musclekit.protocols import Translator
from musclekit.workflows.batch import Batch, Job, naming_fates, scan_records
from musclekit.workflows.numbers import scan_details, write_table
from musclekit.workflows.outcome import BatchOutcome, OnProgress, ScanOutcome
from musclekit.workflows.pages import write_scan_report
from musclekit.workflows.record import RunRecord, file_hash
from musclekit.workflows.segment import noted_warnings
from musclekit.workflows.staging import together
from musclekit.workflows.translation import check_translation, device_of

__all__ = ["compose_translator", "translate_scans"]


def compose_translator(method: str, settings: Mapping[str, Any], device: str | None = None) -> dict[str, Any]:
    """Return the plain description of a translator.

    Parameters
    ----------
    method : str
        Name of a translator.
    settings : mapping
        Its parameters.
    device : str, optional
        Where a trained network runs.

    Returns
    -------
    dict
        For `musclekit.registry.build`.

    Raises
    ------
    UnknownNameError, ParameterError
        If a name or a parameter does not exist, or a method that runs on the processor is given a device.
    """
    if method not in registry.names():
        raise unknown_name("translator", method, registry.names("translator"))
    if registry.entry(method).kind != "translator":
        raise ParameterError(f"'{method}' is a {registry.entry(method).kind}, not a translator")
    if "name" in settings:
        raise ParameterError(f"method '{method}' has no parameter 'name'; choose the method with --method")
    given = dict(settings)
    if device is not None:
        if "device" not in registry.parameters(method):
            raise ParameterError(f"method '{method}' has no device to choose: it runs on the processor")
        if given.setdefault("device", device) != device:
            raise ParameterError(f"two devices are given: '{device}' and '{given['device']}'")
    return registry.describe(registry.build(method, **given))


def translate_scans(
    scans: Sequence[Path],
    out: Path,
    *,
    method: Mapping[str, Any],
    contrast: Contrast | None = None,
    series: str | None = None,
    strict: bool = False,
    jobs: int = 1,
    progress: OnProgress | None = None,
) -> BatchOutcome:
    """Translate scans and say what it changed.

    Parameters
    ----------
    scans : sequence of Path
        Files and folders, as `musclekit.workflows.inputs.find_scans` takes them.
    out : Path
        Folder to write to. One scan is written straight into it; several get a subfolder each.
    method : mapping
        Description of a translator, as `compose_translator` gives it.
    contrast : Contrast, optional
        What the scans are; read from DICOM tags, else guessed from HU content, if left out.
    series : str, optional
        DICOM series to take where a folder holds several.
    strict : bool
        Whether a translation that does not pass its checks is refused: nothing is written of it.
    jobs : int
        Scans worked on at the same time, each in a process of its own.
    progress : callable, optional
        Called after each scan with (done, total, name).

    Returns
    -------
    BatchOutcome
        What became of each scan. Written for each: ``<name>_translated.nii.gz`` (float32, on the scan's own grid) and
        ``<name>_safety.csv``; for the run: ``safety.csv``, ``report.html`` and ``run.json``.

    Raises
    ------
    InputError
        If the translator cannot be used; if there is a single scan and it cannot be used. In a batch that becomes a
        failed outcome and the others finish.
    UnsafeError
        If there is a single scan, and `strict` refuses it.
    """
    batch = Batch.find(scans, out)
    translator: Translator = registry.build(**method)
    # What is wrong with a checkpoint or a device is said once, not for every scan.
    _ = translator.contrasts
    device = device_of(translator)
    started = datetime.now(UTC)
    work = partial(_translate, translator=translator, contrast=contrast, series=series, strict=strict)
    outcomes = batch.run(work, processes=jobs, progress=progress)
    parameters = {
        "method": dict(method),
        "contrast": None if contrast is None else str(contrast),
        "series": series,
        "strict": strict,
        "jobs": jobs,
    }
    with naming_fates(outcomes):
        report = write_scan_report(
            outcomes,
            out / "report.html",
            title="Thigh translation",
            date=started.date().isoformat(),
            parameters=parameters,
        )
        write_table(_all_checks(outcomes), out / "safety.csv")
        RunRecord("translate", parameters, scan_records(outcomes), device, started).write(out / "run.json")
    return BatchOutcome(tuple(outcomes), report)


def _all_checks(outcomes: Sequence[ScanOutcome]) -> pd.DataFrame:
    """Return the checks of every scan, a column each; a failed scan is a row too."""
    rows = [{"scan": outcome.name, "status": outcome.status, **outcome.safety} for outcome in outcomes]
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace(" ", "_"))


def _translate(
    job: Job, *, translator: Translator, contrast: Contrast | None, series: str | None, strict: bool
) -> ScanOutcome:
    began = time.perf_counter()
    scan = open_scan(job.path, contrast=contrast, series=series)
    try:
        with noted_warnings() as notes:
            fake = translator.translate(scan.image)
            checked = check_translation(scan.image, fake, translator, strict=strict)
    except (InputError, SegmentationError, UnsafeError) as problem:
        raise type(problem)(f"{job.path}: {problem}") from problem
    with together(job.folder) as folder:
        write_image(fake, folder / f"{job.name}_translated.nii.gz", like=scan)
        write_table(checked.frame, folder / f"{job.name}_safety.csv")
    outcome = ScanOutcome(
        job.name,
        job.path,
        "done",
        folder=job.folder,
        warnings=(*scan.warnings, *notes),
        seconds=time.perf_counter() - began,
        input_hash=file_hash(job.path),
        details=scan_details(scan),
    )
    return checked.added_to(outcome)
