"""Pictures of a scan and the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musclekit.image import Image, LabelMap
from musclekit.io import replacing
from musclekit.report import Failure, Report, ScanSection, montage, write_report
from musclekit.workflows.outcome import ScanOutcome
from musclekit.workflows.record import versions

__all__ = ["scan_section", "write_picture", "write_scan_report"]


def write_picture(image: Image, labels: LabelMap, path: Path) -> bytes:
    """Write the QC montage of a scan and return it, as PNG."""
    picture = montage(image, labels)
    with replacing(path) as temporary:
        temporary.write_bytes(picture)
    return picture


def scan_section(outcome: ScanOutcome) -> ScanSection:
    """Return what the report says of a scan that was done."""
    measures = outcome.measures
    return ScanSection(
        outcome.name,
        outcome.picture,
        None if measures is None else measures.structures,
        None if measures is None else measures.slices,
        None if measures is None else measures.asymmetry,
        outcome.warnings,
        outcome.details,
        outcome.figures,
        outcome.tables,
        outcome.pictures,
    )


def write_scan_report(
    outcomes: Sequence[ScanOutcome],
    path: Path,
    *,
    title: str,
    date: str,
    parameters: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> Path:
    """Write the report of a run over scans and return its path.

    Parameters
    ----------
    outcomes : sequence of ScanOutcome
        Done and failed ones.
    path : Path
        ``report.html``.
    title, date : str
        As they shall be printed.
    parameters : mapping
        Of the run, as plain data; the versions are added.
    warnings : sequence of str
        Of the whole run.
    """
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    scans = f"{len(outcomes)} scan{'s' * (len(outcomes) != 1)}"
    write_report(
        Report(
            title,
            subtitle=scans + (f", {len(failed)} failed" if failed else ""),
            date=date,
            scans=[scan_section(outcome) for outcome in done],
            failures=[Failure(outcome.name, outcome.message) for outcome in failed],
            warnings=warnings,
            parameters={**parameters, "versions": versions()},
        ),
        path,
    )
    return path
