"""The tidy score table: one row a score, and a row that says why wherever there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.errors import FormatError, GeometryError, LabelError, MissingFileError, SchemaError
from musclekit.image import LabelMap
from musclekit.io.atomic import replacing
from musclekit.labels import LabelSet, label_mapping, label_set_names
from musclekit.labels import label_set as named_label_set
from musclekit.metrics import (
    average_surface_distance,
    dice_of_counts,
    hausdorff95,
    surface_distances,
    volume_error_of_counts,
)
from musclekit.schemas import read_json

__all__ = [
    "COLUMNS",
    "METRICS",
    "common_label_set",
    "failed",
    "params_id",
    "params_table",
    "read_scores",
    "score",
    "write_scores",
]

#: Columns of the table, in order.
COLUMNS = (
    "case_id", "subject", "side", "slice", "fold", "method", "params_id", "label", "metric", "value", "unit", "status",
)  # fmt: skip

#: What is measured of every label of a volume, and in which unit.
METRICS: Mapping[str, str] = {"dice": "", "volume_error": "ml", "relative_volume_error": "%", "asd": "mm", "hd95": "mm"}

#: Enough to compare and to plot; the digits behind them depend on the processor that added them up.
FLOAT_FORMAT = "%.6g"


def params_id(description: Mapping[str, Any]) -> str:
    """Return a short name for a method and its parameters: the same for the same, another for others.

    Parameters
    ----------
    description : mapping
        Plain, nested data: name and parameters, as `musclekit.registry.describe` gives them.

    Returns
    -------
    str
        Ten hexadecimal digits; the order of the parameters does not matter.
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def params_table(descriptions: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return what the ids of a score table stand for (``params.csv``).

    Parameters
    ----------
    descriptions : sequence of mapping
        As `params_id` takes them.

    Returns
    -------
    DataFrame
        One row a parameter: ``params_id``, ``parameter`` (``name``, ``segmenter__name``, ``segmenter__low`` ...),
        ``value`` as JSON.
    """
    rows = []
    for description in descriptions:
        id_ = params_id(description)
        rows += [(id_, name, json.dumps(value)) for name, value in _flat(description)]
    return pd.DataFrame(rows, columns=["params_id", "parameter", "value"]).drop_duplicates(ignore_index=True)


def _flat(description: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in description.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}__")
        else:
            found.append((prefix + name, value))
    return found


def common_label_set(prediction: LabelSet, reference: LabelSet) -> LabelSet:
    """Return the label set in which two label maps can be compared: that of the reference, if possible.

    Parameters
    ----------
    prediction, reference : LabelSet
        Their sets.

    Returns
    -------
    LabelSet
        The reference's if the prediction maps to it, else the prediction's if the reference maps to it.

    Raises
    ------
    LabelError
        If neither does; the message lists the sets that both map to.
    """
    for target, source in ((reference, prediction), (prediction, reference)):
        if _maps(source, target):
            return target
    shared = [
        name
        for name in label_set_names()
        if _maps(prediction, named_label_set(name)) and _maps(reference, named_label_set(name))
    ]
    hint = f"ask for one that both map to: {', '.join(shared)}" if shared else "no set joins them"
    raise LabelError(f"'{prediction.name}' and '{reference.name}' cannot be compared label by label; {hint}")


def _maps(source: LabelSet, target: LabelSet) -> bool:
    try:
        label_mapping(source, target)
    except LabelError:
        return False
    return True


def score(
    prediction: LabelMap,
    reference: LabelMap,
    *,
    case_id: str,
    subject: str,
    method: str,
    params_id: str = "",
    side: str | None = None,
    fold: str = "",
    label_set: LabelSet | None = None,
) -> pd.DataFrame:
    """Score one label map against its reference.

    Parameters
    ----------
    prediction, reference : LabelMap
        On one grid.
    case_id, subject, method, params_id, fold : str
        Key of the rows.
    side : {"left", "right", "unknown"}, optional
        Which leg, where the label set does not say.
    label_set : LabelSet, optional
        Set to compare in; `common_label_set` if left out. Labels that have no place in it are not scored.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. For every label of the set, each of `METRICS` over the volume, then Dice of each slice that
        either map has the label in. ``status`` is ``undefined`` (value NaN) where both masks are empty, else ``ok``.

    Raises
    ------
    GeometryError
        If the two lie on different grids.
    LabelError
        If they cannot be compared in one set.
    """
    if not prediction.grid.same_as(reference.grid):
        raise GeometryError(f"prediction and reference lie on two grids: {prediction.grid.difference(reference.grid)}")
    target = label_set or common_label_set(prediction.label_set, reference.label_set)
    found, wanted = (
        labels if labels.label_set == target else labels.mapped(label_mapping(labels.label_set, target))
        for labels in (prediction, reference)
    )
    common, n_found, n_wanted = _counts(found, wanted)
    by_slice = dice_of_counts(common, n_found, n_wanted)
    whole = dice_of_counts(common.sum(axis=0), n_found.sum(axis=0), n_wanted.sum(axis=0))
    boxes = _boxes(found, wanted)
    rows: list[tuple[Any, ...]] = []
    for k, label in enumerate(target):
        size_found, size_wanted = int(n_found[:, k].sum()), int(n_wanted[:, k].sum())
        box = boxes[label.id]
        distances = surface_distances(found.voxels[box] == label.id, wanted.voxels[box] == label.id, found.grid.spacing)
        error = volume_error_of_counts(size_found, size_wanted, found.grid.voxel_volume_mm3)
        values = (float(whole[k]), error.ml, error.percent, average_surface_distance(distances), hausdorff95(distances))
        where = (label.side or side or "", label.name)
        empty = size_found == size_wanted == 0
        rows += [
            (*where, None, metric, np.nan if empty else value, unit, "undefined" if empty else "ok")
            for (metric, unit), value in zip(METRICS.items(), values, strict=True)
        ]
        rows += [
            (*where, int(z), "dice", float(by_slice[z, k]), "", "ok")
            for z in np.flatnonzero(np.isfinite(by_slice[:, k]))
        ]
    frame = pd.DataFrame(rows, columns=["side", "label", "slice", "metric", "value", "unit", "status"])
    return _keyed(frame, case_id=case_id, subject=subject, method=method, params_id=params_id, fold=fold)


def failed(
    message: str,
    *,
    case_id: str,
    subject: str,
    method: str,
    params_id: str = "",
    side: str | None = None,
    fold: str = "",
    label_set: LabelSet | None = None,
) -> pd.DataFrame:
    """Return the rows of a case on which a method failed.

    Parameters
    ----------
    message : str
        Why.
    case_id, subject, method, params_id, side, fold : str
        Key of the rows, as in `score`.
    label_set : LabelSet, optional
        Set that would have been compared in: each of its labels gets a row a metric. One row if it is not known.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; every value NaN, every status ``failed: <message>``.
    """
    status = f"failed: {' '.join(message.split()) or 'no reason given'}"
    rows: list[tuple[Any, ...]] = [
        (label.side or side or "", label.name, None, metric, np.nan, unit, status)
        for label in label_set or ()
        for metric, unit in METRICS.items()
    ]
    rows = rows or [(side or "", "", None, "", np.nan, "", status)]
    frame = pd.DataFrame(rows, columns=["side", "label", "slice", "metric", "value", "unit", "status"])
    return _keyed(frame, case_id=case_id, subject=subject, method=method, params_id=params_id, fold=fold)


def _keyed(frame: pd.DataFrame, **keys: str) -> pd.DataFrame:
    return frame.assign(**keys).astype({"slice": "Int64", "value": np.float64})[list(COLUMNS)]


def _counts(found: LabelMap, wanted: LabelMap) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of each label in each slice: in both maps, in the first, in the second; shape (Z, labels)."""
    ids = [label.id for label in found.label_set]
    n = len(ids) + 1
    position = np.zeros(max(ids) + 1, dtype=np.intp)
    position[ids] = np.arange(1, n)
    # One count of pairs of labels a slice holds all three.
    pairs = np.stack(
        [
            np.bincount((position[a] * n + position[b]).reshape(-1), minlength=n * n).reshape(n, n)
            for a, b in zip(found.voxels, wanted.voxels, strict=True)
        ]
    )
    return np.einsum("zkk->zk", pairs)[:, 1:], pairs.sum(axis=2)[:, 1:], pairs.sum(axis=1)[:, 1:]


def _boxes(found: LabelMap, wanted: LabelMap) -> dict[int, tuple[slice, ...]]:
    """Box around each label in both maps and one voxel more: a label of one plane stays a part of its volume."""
    largest = max(found.label_set.ids)
    both = zip(ndimage.find_objects(found.voxels, largest), ndimage.find_objects(wanted.voxels, largest), strict=True)
    boxes = {}
    for id_, pair in enumerate(both, start=1):
        some = [box for box in pair if box]
        boxes[id_] = tuple(
            slice(max(0, min(box[axis].start for box in some) - 1), max(box[axis].stop for box in some) + 1)
            if some
            else slice(0, 2)
            for axis in range(3)
        )
    return boxes


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write a score table: CSV, the same bytes for the same scores.

    Parameters
    ----------
    scores : DataFrame
        Columns `COLUMNS`; others follow them.
    path : Path
        The file; it is written under another name first and then renamed.

    Raises
    ------
    SchemaError
        If the table breaks its schema.
    OutputError
        If it cannot be written.
    """
    _check(scores, "the score table")
    ordered = scores[[*COLUMNS, *(name for name in scores.columns if name not in COLUMNS)]]
    with replacing(path) as temporary:
        ordered.to_csv(temporary, index=False, float_format=FLOAT_FORMAT, lineterminator="\n", encoding="utf-8")


def read_scores(path: Path) -> pd.DataFrame:
    """Read a score table.

    Parameters
    ----------
    path : Path
        CSV, as `write_scores` writes it.

    Returns
    -------
    DataFrame
        ``slice`` as nullable integers, ``value`` as float64 (NaN where empty), the rest as text.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not CSV.
    SchemaError
        If it breaks the schema; the message names line and column.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        # Everything is text at first: a case may be called "NA" or "007".
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as problem:
        raise FormatError(f"{path}: not a CSV table: {' '.join(str(problem).split())}") from None
    _check_columns(frame, str(path))
    for name in ("slice", "value"):
        numbers = pd.to_numeric(frame[name].where(frame[name] != ""), errors="coerce")
        wrong = numbers.isna() & (frame[name] != "")
        if name == "slice":
            wrong |= numbers.notna() & (numbers % 1 != 0)
        if wrong.any():
            where = int(np.flatnonzero(wrong)[0])
            kind = "whole number" if name == "slice" else "number"
            raise SchemaError(f"{path}: line {where + 2}, column '{name}': '{frame[name].iloc[where]}' is no {kind}")
        frame[name] = numbers.astype(np.float64)
    frame["slice"] = frame["slice"].astype("Int64")
    _check(frame, str(path))
    return frame


def _check_columns(frame: pd.DataFrame, what: str) -> None:
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise SchemaError(
            f"{what}: the column{'s' * (len(missing) > 1)} {', '.join(missing)} of a score table is missing"
        )


def _check(frame: pd.DataFrame, what: str) -> None:
    """Check each column against the schema of its values, each value once: rows do not depend on each other."""
    _check_columns(frame, what)
    properties = read_json("scores.schema.json")["items"]["properties"]
    for name in COLUMNS:
        if name == "value" and frame[name].dtype == np.float64:
            continue  # the column's type says that each is a number, and NaN is null
        validator = Draft202012Validator(properties[name])
        for value in frame[name].unique():
            plain = None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value
            problem = next(validator.iter_errors(plain), None)
            if problem is not None:
                same = frame[name].isna() if plain is None else (frame[name] == value).fillna(False)
                first = int(np.flatnonzero(same)[0])
                raise SchemaError(f"{what}: line {first + 2}, column '{name}': {problem.message}")
    lost = np.flatnonzero((frame["status"] == "ok") & frame["value"].isna())
    if lost.size:
        raise SchemaError(f"{what}: line {int(lost[0]) + 2}: the status is ok, but there is no value")
