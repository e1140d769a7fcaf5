"""The table that says what the ids of a label map mean, written beside it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from musclekit.errors import FormatError
from musclekit.io.atomic import replacing
from musclekit.labels import LabelSet

__all__ = ["read_label_table", "write_label_table"]

_COLUMNS = ("index", "name", "abbreviation", "side", "color")


def write_label_table(label_set: LabelSet, path: str | os.PathLike[str]) -> None:
    """Write the label table of a segmentation (``_dseg.tsv``, BIDS derivatives, "discrete segmentations").

    Parameters
    ----------
    label_set : LabelSet
        Whose labels; the background is not a row.
    path : path-like
        Tab-separated file; columns ``index``, ``name`` (with its side, so that it is unique), ``abbreviation``,
        ``side`` (``n/a`` where the set has none) and ``color`` (``#rrggbb``).

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(_COLUMNS)
        for label in label_set:
            table.writerow((label.id, label.full_name, label.abbreviation, label.side or "n/a", label.color))


def read_label_table(path: str | os.PathLike[str]) -> dict[int, str]:
    """Read a label table (``_dseg.tsv``).

    Parameters
    ----------
    path : path-like
        Tab-separated file with the columns ``index`` and ``name``; others are passed over.

    Returns
    -------
    dict of int to str
        Id to name; a row for the background (0) is left out.

    Raises
    ------
    FormatError
        If it is no such table.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = [(row["index"], row["name"]) for row in csv.DictReader(stream, delimiter="\t")]
        return {int(index): name for index, name in rows if int(index) != 0}
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{os.fspath(path)}: not a label table, which has the columns index and name") from None
