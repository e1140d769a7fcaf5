"""Manifests: the CSV tables that say which scans make up a study."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from musclekit.errors import InputError, MissingFileError, SchemaError
from musclekit.image import Case, Contrast, Image
from musclekit.io.atomic import replacing
from musclekit.io.source import naming
from musclekit.io.volumes import open_scan, read_labels
from musclekit.labels import LabelSet, Side
from musclekit.schemas import check_schema

__all__ = ["ManifestRow", "files_of", "group_rows", "load_case", "read_manifest", "write_manifest"]

_REQUIRED = ("case_id", "subject")
_COLUMNS = (*_REQUIRED, "image", "labels", "modality", "domain", "side", "split")

#: What all rows of one case must agree on.
_OF_THE_CASE = ("subject", "labels", "domain", "side", "split", "extra")


@dataclass(frozen=True)
class ManifestRow:
    """One image of one case.

    Parameters
    ----------
    case_id : str
        The examination. Rows that share it are its images and differ in modality.
    subject : str
        The person.
    image : Path or None
        Image file or DICOM folder; None where there is a label map alone, to synthesise images from.
    labels : Path, optional
        Label map.
    modality : Contrast, optional
        What the image shows; found out from the file where it is None.
    domain : str, optional
        Population or grade.
    side : {"left", "right"}, optional
        Which leg, where the image shows one.
    split : str, optional
        Part of the study.
    extra : mapping of str to str
        Free columns.
    """

    case_id: str
    subject: str
    image: Path | None
    labels: Path | None = None
    modality: Contrast | None = None
    domain: str | None = None
    side: Side | None = None
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def read_manifest(path: str | os.PathLike[str]) -> list[ManifestRow]:
    """Read a manifest; the scans themselves are not opened.

    Parameters
    ----------
    path : path-like
        CSV with the columns ``case_id``, ``subject``, ``image`` and, where they are known, ``labels``, ``modality``,
        ``domain``, ``side``, ``split``; other columns are free. Paths are relative to the manifest. A case may have
        labels and no image.

    Returns
    -------
    list of ManifestRow
        In the order of the file.

    Raises
    ------
    MissingFileError
        If the manifest, or a path that it names, does not exist; the message names the line.
    SchemaError
        If it is empty or not a CSV text, a column is missing, a case is named twice, a value is not one of those
        allowed, the rows of one case contradict each other, or a subject stands in two splits.
    """
    where = Path(path)
    lines = _read_lines(where)
    check_schema({f"line {n}": cells for n, cells in lines.items()}, "manifest", f"manifest {where}")
    rows = {n: _row(where, n, cells) for n, cells in lines.items()}
    _check_cases(where, rows)
    _check_splits(where, rows)
    return list(rows.values())


def group_rows(rows: Sequence[ManifestRow]) -> list[tuple[ManifestRow, ...]]:
    """Gather the rows of each case, in the order in which the cases first appear."""
    cases: dict[str, list[ManifestRow]] = {}
    for row in rows:
        cases.setdefault(row.case_id, []).append(row)
    return [tuple(case) for case in cases.values()]


def files_of(rows: Sequence[ManifestRow]) -> list[Path]:
    """Return the images of a case, and its label map, as far as there are any."""
    paths = [row.image for row in rows] + [rows[0].labels]
    return [path for path in paths if path is not None]


def load_case(rows: Sequence[ManifestRow], label_set: LabelSet | None = None) -> Case:
    """Open the scans of one case.

    Parameters
    ----------
    rows : sequence of ManifestRow
        The rows of the case, as `group_rows` gives them: one for each image.
    label_set : LabelSet, optional
        What the ids of the label map mean. Left out, the label map is not read.

    Returns
    -------
    Case
        With the free columns, and ``split`` where there is one, as its ``meta``.

    Raises
    ------
    SchemaError
        If the rows are not those of one case.
    InputError
        If a scan cannot be used; the message names case and file.
    """
    if len({row.case_id for row in rows}) != 1:
        raise SchemaError(f"a case is loaded from the rows of one case_id, not of {sorted({r.case_id for r in rows})}")
    first = rows[0]
    with naming(f"case '{first.case_id}'"):
        images: dict[Contrast, Image] = {}
        for row in rows:
            if row.image is None:
                continue
            image = replace(open_scan(row.image, row.modality).image, domain=row.domain)
            if image.contrast in images:
                raise SchemaError(f"two images of contrast {image.contrast}; state the modality of each row")
            images[image.contrast] = image
        if not images:
            raise InputError("it has no image, only a label map, from which images can be synthesised in training")
        reference = None
        if first.labels is not None and label_set is not None:
            reference = read_labels(first.labels, label_set)
    meta = dict(first.extra) | ({"split": first.split} if first.split else {})
    return Case(first.case_id, first.subject, images, reference, first.side, first.domain, meta)


def write_manifest(rows: Sequence[ManifestRow], path: str | os.PathLike[str]) -> None:
    """Write a manifest, with paths relative to it.

    Parameters
    ----------
    rows : sequence of ManifestRow
        What stands in it; the free columns of all rows are written after the known ones.
    path : path-like
        CSV file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    where = Path(path)
    free = list(dict.fromkeys(key for row in rows for key in row.extra))
    with replacing(where) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow((*_COLUMNS, *free))
        for row in rows:
            known = (
                row.case_id,
                row.subject,
                "" if row.image is None else _relative(row.image, where),
                "" if row.labels is None else _relative(row.labels, where),
                row.modality or "",
                row.domain or "",
                row.side or "",
                row.split or "",
            )
            table.writerow((*known, *(row.extra.get(key, "") for key in free)))


def _relative(path: Path, manifest: Path) -> str:
    return Path(os.path.relpath(path, manifest.parent)).as_posix()


def _read_lines(path: Path) -> dict[int, dict[str, str]]:
    """Cells that are not empty, by column, of each line that is not empty, by its number."""
    if not path.is_file():
        raise MissingFileError(f"{path}: no such manifest")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.reader(stream, strict=True)
            lines = [(table.line_num, [cell.strip() for cell in cells]) for cells in table]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise SchemaError(f"manifest {path}: not a CSV text ({problem}); save it as CSV, UTF-8") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise SchemaError(f"manifest {path}: the file is empty; it begins with a line of column names")
    (_, header), *body = lines
    _check_header(path, header)
    if not body:
        raise SchemaError(f"manifest {path}: there is no row below the column names")
    for number, cells in body:
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise SchemaError(f"manifest {path}: line {number} has {len(cells)} cells, there are {len(header)} columns")
    return {
        number: {name: cell for name, cell in zip(header, cells, strict=False) if name and cell}
        for number, cells in body
    }


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in _REQUIRED if name not in header]
    if not {"image", "labels"} & set(header):
        missing.append("image")
    if missing:
        separator = next((s for s in (";", "\t") if len(header) == 1 and s in header[0]), None)
        hint = f" (cells are separated by {separator!r}; save the table with commas)" if separator else ""
        raise SchemaError(
            f"manifest {path}: the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing; there are: {', '.join(filter(None, header))}{hint}"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SchemaError(f"manifest {path}: the column {twice[0]} stands there twice")


def _row(manifest: Path, line: int, cells: Mapping[str, str]) -> ManifestRow:
    def existing(column: str) -> Path:
        path = manifest.parent / cells[column]
        if not path.exists():
            raise MissingFileError(
                f"manifest {manifest}: line {line} (case '{cells['case_id']}'): {column} {path} does not exist"
            )
        return path

    side: Mapping[str, Side] = {"left": "left", "right": "right"}
    return ManifestRow(
        case_id=cells["case_id"],
        subject=cells["subject"],
        image=existing("image") if "image" in cells else None,
        labels=existing("labels") if "labels" in cells else None,
        modality=Contrast(cells["modality"]) if "modality" in cells else None,
        domain=cells.get("domain"),
        side=side[cells["side"]] if "side" in cells else None,
        split=cells.get("split"),
        extra={name: cell for name, cell in cells.items() if name not in _COLUMNS},
    )


def _check_cases(path: Path, rows: Mapping[int, ManifestRow]) -> None:
    seen: dict[str, list[tuple[int, ManifestRow]]] = {}
    for line, row in rows.items():
        for before, other in seen.setdefault(row.case_id, []):
            if row.modality is other.modality:
                same = f"modality {row.modality}" if row.modality else "no modality"
                raise SchemaError(
                    f"manifest {path}: case_id '{row.case_id}' is repeated in lines {before} and {line} with {same}; "
                    "give each case an id of its own, and the images of one case different modalities"
                )
            for name in _OF_THE_CASE:
                if getattr(row, name) != getattr(other, name):
                    raise SchemaError(
                        f"manifest {path}: case '{row.case_id}': lines {before} and {line} differ in "
                        f"{'a free column' if name == 'extra' else name}"
                    )
        seen[row.case_id].append((line, row))


def _check_splits(path: Path, rows: Mapping[int, ManifestRow]) -> None:
    seen: dict[str, tuple[int, str]] = {}
    for line, row in rows.items():
        if row.split is None:
            continue
        before, split = seen.setdefault(row.subject, (line, row.split))
        if split != row.split:
            raise SchemaError(
                f"manifest {path}: subject '{row.subject}' stands in split '{split}' (line {before}) and "
                f"'{row.split}' (line {line}); keep all cases of a person in one"
            )
