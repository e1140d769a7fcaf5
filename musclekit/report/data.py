"""The report as data: what stands on the page, for programs (``report.json``, schema ``report``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from musclekit.report.drawing import Figure
    from musclekit.report.html import Report, ScanSection

__all__ = ["is_missing", "plain", "report_data"]


def report_data(report: Report) -> dict[str, Any]:
    """Return what a report says, as plain data that follows ``data_schemas/report.schema.json``.

    Parameters
    ----------
    report : Report
        What it says. Pictures and drawings are left to the page: their titles and words are here.

    Returns
    -------
    dict
        ``title``, ``subtitle``, ``date``, ``failures``, ``warnings``, ``tables`` (whole, however long), ``figures``,
        ``scans`` and ``parameters``. What JSON has no number for is written as null (not a number) or as the text
        ``"inf"`` or ``"-inf"``.
    """
    return {
        "kind": "report",
        "title": report.title,
        "subtitle": report.subtitle,
        "date": report.date,
        "failures": [{"name": failure.name, "message": failure.message} for failure in report.failures],
        "warnings": list(report.warnings),
        "tables": [_table(table.title, table.frame, table.caption) for table in report.tables],
        "figures": [_figure(figure) for figure in report.figures],
        "scans": [_scan(scan) for scan in report.scans],
        "parameters": plain(dict(report.parameters)),
    }


def _scan(scan: ScanSection) -> dict[str, Any]:
    tables = {"structures": scan.structures, "slices": scan.slices, "asymmetry": scan.asymmetry}
    return {
        "name": scan.name,
        "warnings": list(scan.warnings),
        "details": dict(scan.details),
        "tables": [_table(name, frame, "") for name, frame in tables.items() if frame is not None]
        + [_table(table.title, table.frame, table.caption) for table in scan.tables],
        "figures": [_figure(figure) for figure in scan.figures],
    }


def _figure(figure: Figure) -> dict[str, str]:
    return {"title": figure.title, "alt": figure.alt, "caption": figure.caption}


def _table(title: str, frame: pd.DataFrame, caption: str) -> dict[str, Any]:
    return {
        "title": title,
        "caption": caption,
        "columns": [str(name) for name in frame.columns],
        "rows": [[plain(value) for value in row] for row in frame.itertuples(index=False, name=None)],
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: no number is null, an infinite one a text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else (None if math.isnan(value) else str(value))
    if isinstance(value, (bool, int, str)):
        return value
    return None if is_missing(value) else str(value)


def is_missing(value: Any) -> bool:
    """Whether there is no value: None, a float that is no number, or pandas' NA."""
    import pandas as pd

    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))
