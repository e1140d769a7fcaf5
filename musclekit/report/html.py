"""The report of a run: one HTML file that holds all it needs, to be opened anywhere and sent to a colleague.

Pictures are inside it, nothing is fetched, no script runs. What stands in it comes from the caller, the date too: the
same report is the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from musclekit.errors import FormatError
from musclekit.io import replacing
from musclekit.report.columns import COLUMNS, Column, known_columns
from musclekit.report.data import is_missing, report_data
from musclekit.report.drawing import FAINT, GRID, INK, Figure

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

__all__ = ["Failure", "Picture", "Report", "ScanSection", "Table", "render_report", "write_report"]

#: A longer table would make the page slow; the rest is in the CSV file and the page says so.
MAX_ROWS = 400
#: Where there is no number.
NOTHING = "\N{EN DASH}"
#: Slices of these statuses are not listed.
NOT_LISTED = ("absent", "not a thigh")
#: How a status looks; one that is not named here calls for attention.
CHIPS = {"ok": "ok", "absent": "absent", "not a thigh": "absent", "failed": "bad"}
#: Flags of a structure that is cut, in words.
CUT_AT = {"touches_border": "border", "in_first_slice": "first slice", "in_last_slice": "last slice"}


@dataclass(frozen=True)
class Table:
    """A table of results.

    Parameters
    ----------
    title : str
        What it holds.
    frame : DataFrame
        Columns known to `musclekit.report.columns` are shown with their headings and units, others under their own
        name.
    caption : str
        How to read it.
    folded : bool
        Whether the page shows its title alone until the reader opens it: for long tables that few need.
    """

    title: str
    frame: pd.DataFrame
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of pixels.

    Parameters
    ----------
    title : str
        What it shows.
    png : bytes
        The picture.
    alt : str
        What a reader who cannot see it needs to know.
    caption : str
        How to read it.
    """

    title: str
    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Failure:
    """A scan that could not be done, and why: ``message`` says what to do about it."""

    name: str
    message: str


@dataclass(frozen=True)
class ScanSection:
    """What the report says of one scan.

    Parameters
    ----------
    name : str
        Of the scan.
    picture_png : bytes, optional
        QC montage.
    structures, slices, asymmetry : DataFrame, optional
        Tables of `musclekit.quantify.measure`. Columns the report does not know are left out.
    warnings : sequence of str
        What the reader of the numbers should know, and what to do about it.
    details : mapping of str to str
        Facts: size, spacing, contrast ...
    figures : sequence of Figure
        Distributions of this scan.
    tables : sequence of Table
        Other tables of this scan; they come first.
    pictures : sequence of Picture
        Other pictures of it.
    """

    name: str
    picture_png: bytes | None = None
    structures: pd.DataFrame | None = None
    slices: pd.DataFrame | None = None
    asymmetry: pd.DataFrame | None = None
    warnings: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Parameters
    ----------
    title, subtitle : str
        What was done, and to what.
    date : str
        As it shall be printed. It is given, never taken from the clock.
    scans : sequence of ScanSection
        Those that were done.
    failures : sequence of Failure
        Those that were not.
    tables, figures : sequence
        Of the whole run; they come before the scans.
    warnings : sequence of str
        Of the whole run.
    parameters : mapping
        Everything needed to run it again, versions included: plain data, nested as it is.
    tiles : mapping of str to int
        The counts at the head of the page; those of the scans where not given.
    """

    title: str
    subtitle: str = ""
    date: str = ""
    scans: Sequence[ScanSection] = ()
    failures: Sequence[Failure] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    warnings: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tiles: Mapping[str, int] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """Return the report as one HTML document.

    Parameters
    ----------
    report : Report
        What it says. Every text is escaped.

    Returns
    -------
    str
        The document; the same text for the same report.
    """
    warning_count = len(report.warnings) + sum(len(scan.warnings) for scan in report.scans)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            scans=[_scan_view(scan, number) for number, scan in enumerate(report.scans, start=1)],
            tables=[_report_table(table) for table in report.tables],
            glossary=_glossary(report),
            parameters=_flatten(report.parameters),
            tiles=report.tiles or _scan_tiles(report, warning_count),
        )
    )


def write_report(report: Report, path: Path) -> None:
    """Write the report as a page, and its data beside it: ``report.html`` and ``report.json``.

    Parameters
    ----------
    report : Report
        What it says.
    path : Path
        ``report.html``.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    text = render_report(report)
    data = json.dumps(report_data(report), indent=1, ensure_ascii=False, allow_nan=False)
    for where, content in ((path, text), (path.with_suffix(".json"), data + "\n")):
        with replacing(where) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _scan_tiles(report: Report, warnings: int) -> dict[str, int]:
    done, failed = len(report.scans), len(report.failures)
    if not done and not failed:
        return {}
    return {"Scans": done + failed, "Done": done, "Failed": failed, "Warnings": warnings}


@dataclass(frozen=True)
class _Cell:
    text: str
    chip: str = ""
    note: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class _TableView:
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[_Cell]]
    left_out: int
    folded: bool = False


def _scan_view(scan: ScanSection, number: int) -> dict[str, Any]:
    present = scan.slices
    if present is not None and "status" in present:
        present = present[~present["status"].isin(NOT_LISTED)]
    views = {
        "structures": _table_view(scan.structures, "Measures"),
        "asymmetry": _asymmetry_view(scan.asymmetry, "Left and right"),
        "slices": _table_view(present, "Slice by slice", "Slices without the structure are not listed."),
        "tables": [view for view in map(_report_table, scan.tables) if view is not None],
    }
    return {"scan": scan, "anchor": f"scan-{number}"} | views


def _table_view(
    frame: pd.DataFrame | None, title: str, caption: str = "", *, others: bool = False
) -> _TableView | None:
    if frame is None or frame.empty:
        return None
    columns = _shown(frame, others=others)
    head = frame.head(MAX_ROWS)
    rows = [
        [_cell(column, value) for column, value in zip(columns, values, strict=True)]
        for values in head[[column.name for column in columns]].itertuples(index=False, name=None)
    ]
    at = next((n for n, column in enumerate(columns) if column.kind == "status"), None)
    if at is not None:
        for row, reason in zip(rows, _reasons(head), strict=True):
            row[at] = replace(row[at], note=reason)
    return _TableView(title, caption, columns, rows, max(0, len(frame) - MAX_ROWS))


def _report_table(table: Table) -> _TableView | None:
    view = _table_view(table.frame, table.title, table.caption, others=True)
    return None if view is None else replace(view, folded=table.folded)


def _asymmetry_view(frame: pd.DataFrame | None, title: str) -> _TableView | None:
    """Table of asymmetry, a row a structure, a column a quantity; left and right themselves stand in the measures."""
    if frame is None or frame.empty or not {"structure", "quantity", "index_percent"} <= set(frame.columns):
        return None
    known = {column.name: column for column in COLUMNS}
    quantities = [str(name) for name in dict.fromkeys(frame["quantity"])]
    index = {
        (structure, quantity): _cell(known["index_percent"], value)
        for structure, quantity, value in zip(
            frame["structure"], frame["quantity"], frame["index_percent"], strict=True
        )
    }
    statuses = frame["status"] if "status" in frame else [""] * len(frame)
    status = {s: worst for s, worst in zip(frame["structure"], statuses, strict=True) if worst != "ok"}
    rows = [
        [
            _Cell(str(structure)),
            _cell(known["status"], status.get(structure, "ok")),
            *(index.get((structure, quantity), _Cell(NOTHING, numeric=True)) for quantity in quantities),
        ]
        for structure in dict.fromkeys(frame["structure"])
    ]
    headings = [known[name].heading if name in known else name.replace("_", " ") for name in quantities]
    columns = [known["structure"], known["status"], *(Column(h, h, "%") for h in headings)]
    return _TableView(title, known["index_percent"].meaning, columns, rows, 0)


def _reasons(frame: pd.DataFrame) -> list[str]:
    """Where each structure is cut, in a few words."""
    reasons: list[list[str]] = [[] for _ in range(len(frame))]
    for name, words in CUT_AT.items():
        for reason, cut in zip(reasons, frame.get(name, ()), strict=False):
            if cut:
                reason.append(words)
    return [", ".join(reason).replace("first slice, last slice", "both ends") for reason in reasons]


def _shown(frame: pd.DataFrame, *, others: bool = False) -> list[Column]:
    """Columns of a table that have something to say: without Hounsfield units for an MR scan, say."""
    columns = known_columns(frame, others=others)
    return [column for column in columns if (frame[column.name].notna() & (frame[column.name] != "")).any()]


def _cell(column: Column, value: Any) -> _Cell:
    if is_missing(value) or value == "":
        return _Cell(NOTHING, numeric=column.kind == "number")
    if column.kind == "number":
        return _Cell(column.format(float(value)), numeric=True)
    text = str(value)
    if column.kind == "status":
        return _Cell(text, chip=CHIPS.get(text, "attention"))
    return _Cell(text)


def _glossary(report: Report) -> list[tuple[str, str]]:
    """Heading and meaning of every column that some table shows."""
    frames = [table.frame for table in report.tables]
    for scan in report.scans:
        frames += [frame for frame in (scan.structures, scan.slices, scan.asymmetry) if frame is not None]
        frames += [table.frame for table in scan.tables]
    shown = {column for frame in frames for column in _shown(frame)}
    return [(column.heading, column.meaning) for column in COLUMNS if column in shown and column.meaning]


def _flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested plain data as (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{name}.")
        else:
            rows.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)))
    return rows


def _picture_uri(png: bytes) -> str:
    """Encode a picture as JPEG, a third of the PNG's size, with colour at full resolution for the contours."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise FormatError("the picture of a report must be a PNG, as musclekit.report.montage gives it")
    quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, encoded = cv2.imencode(".jpg", picture, quality)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height from the header, so that the page does not jump as it loads."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


_THEME = (
    "<style>svg{--ink:#1d2329;--faint:#5b6570;--grid:#d5dae0}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e6e9ec;--faint:#a3acb6;--grid:#3a424b}}"
    "@media print{svg{--ink:#1d2329;--faint:#5b6570;--grid:#d5dae0}}</style>"
)


def _svg_uri(svg: str) -> str:
    """Encode a drawing, its lettering following the colour scheme of the page.

    It is shown as a picture, not set into the page: its identifiers stay its own, and it gets an alternative text.
    """
    for color, name in ((INK, "ink"), (FAINT, "faint"), (GRID, "grid")):
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r"(<svg[^>]*>)", lambda tag: tag.group(1) + _THEME, svg, count=1)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _svg_width(svg: str) -> int:
    """Width in CSS pixels."""
    found = re.search(r'<svg[^>]*\bwidth="([\d.]+)pt"', svg)
    return round(float(found.group(1)) * 96 / 72) if found else 640


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("musclekit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture_uri": _picture_uri,
        "png_size": _png_size,
        "svg_uri": _svg_uri,
        "svg_width": _svg_width,
    }
    return environment
