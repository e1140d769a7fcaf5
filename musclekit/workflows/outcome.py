"""What became of the scans of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from musclekit.quantify import Measures
from musclekit.report import Figure, Picture, Table, plain

__all__ = ["BatchOutcome", "OnProgress", "ScanOutcome"]

#: Called as work goes on: how much is done, of how much (counts or weights), and what was done last.
OnProgress = Callable[[float, float, str], None]


@dataclass(frozen=True)
class ScanOutcome:
    """What became of one scan.

    Parameters
    ----------
    name : str
        Of the scan, unique in its run.
    path : Path
        The scan.
    status : {"done", "failed"}
        Whether its files were written.
    folder : Path, optional
        Where they were written; None when it failed.
    message : str
        Why it failed.
    warnings : tuple of str
        What the reader of the numbers should know.
    seconds : float
        How long it took.
    input_hash : str
        SHA-256 of the scan.
    measures : Measures, optional
        Its numbers.
    picture : bytes, optional
        Its QC montage (PNG).
    details : mapping of str to str
        Facts for the report: size, spacing, contrast and so on.
    figures : tuple of Figure
        Distributions for the report.
    tables : tuple of Table
        Other tables for the report.
    pictures : tuple of Picture
        Other pictures for the report.
    safety : mapping of str to float
        What the checks of a translation found; empty where there was none.
    """

    name: str
    path: Path
    status: Literal["done", "failed"]
    folder: Path | None = None
    message: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    input_hash: str = ""
    measures: Measures | None = None
    picture: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    safety: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchOutcome:
    """What became of a run.

    Parameters
    ----------
    scans : tuple of ScanOutcome
        In the order they were given.
    report : Path
        The HTML report.
    warnings : tuple of str
        Of the whole run: what was noted as the method learnt from annotated cases.
    """

    scans: tuple[ScanOutcome, ...]
    report: Path
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[ScanOutcome, ...]:
        """The scans that failed."""
        return tuple(scan for scan in self.scans if scan.status == "failed")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data: one entry a scan with its measures, and the report's path."""
        return {
            "report": str(self.report),
            "warnings": list(self.warnings),
            "scans": [
                {
                    "name": scan.name,
                    "path": str(scan.path),
                    "status": scan.status,
                    "folder": None if scan.folder is None else str(scan.folder),
                    "message": scan.message,
                    "warnings": list(scan.warnings),
                    "measures": None if scan.measures is None else scan.measures.as_dict(),
                    "safety": plain(dict(scan.safety)),
                }
                for scan in self.scans
            ],
        }
