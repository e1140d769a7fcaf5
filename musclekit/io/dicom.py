"""DICOM folders: from the slices of a series to one volume."""

from __future__ import annotations

from pathlib import Path

from musclekit.errors import FormatError
from musclekit.io.source import Source, Stored

__all__ = ["read_dicom", "read_dicom_source"]


def read_dicom(path: Path, series: str | None = None) -> Stored:
    """Refuse, for now."""
    raise FormatError(f"{path}: DICOM folders cannot be read yet")


def read_dicom_source(path: Path, series: str | None = None) -> Source:
    """Refuse, for now."""
    raise FormatError(f"{path}: DICOM folders cannot be read yet")
