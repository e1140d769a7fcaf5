"""The tidy score table: one row a score, and a row that says why wherever there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from scipy import ndimage

from musclekit.anatomy.legs import Leg
from musclekit.anatomy.per_leg import label_sides
from musclekit.errors import (
    FormatError,
    GeometryError,
    LabelError,
    MissingFileError,
    ParameterError,
    SchemaError,
    unknown_name,
)
from musclekit.image import LabelMap
from musclekit.io.atomic import replacing
from musclekit.labels import Label, LabelSet, label_mapping, label_set_names
from musclekit.labels import label_set as named_label_set
from musclekit.metrics import (
    ReferenceSurface,
    SurfaceDistances,
    accuracy_of_counts,
    average_surface_distance,
    dice_of_counts,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    jaccard_of_counts,
    positive_predictive_value_of_counts,
    sensitivity_of_counts,
    specificity_of_counts,
    surface_dice,
    volume_error_of_counts,
)
from musclekit.schemas import read_json

__all__ = [
    "COLUMNS",
    "DEFAULT_METRICS",
    "METRICS",
    "WITHIN_BODY",
    "ReferenceScorer",
    "Score",
    "common_label_set",
    "failed",
    "known_metrics",
    "params_id",
    "params_table",
    "read_scores",
    "score",
    "score_table",
    "write_scores",
]

#: Columns of the table, in order.
COLUMNS = (
    "case_id", "subject", "side", "slice", "fold", "method", "params_id", "label", "metric", "value", "unit", "status",
)  # fmt: skip


@dataclass(frozen=True)
class _Counts:
    """Voxels of each label in both maps, in the prediction and in the reference; shape (Z, labels) or (labels,).

    ``size`` is the number of voxels looked at in each slice, shape (Z, 1), or in the volume, shape (1,).
    """

    common: NDArray[np.int64]
    found: NDArray[np.int64]
    wanted: NDArray[np.int64]
    size: NDArray[np.int64]

    def over_volume(self) -> _Counts:
        return _Counts(*(n.sum(axis=0) for n in (self.common, self.found, self.wanted, self.size)))


#: Measures of overlap, taken of volumes and of slices.
_OVERLAP: Mapping[str, Callable[[_Counts], NDArray[np.float64]]] = {
    "dice": lambda n: dice_of_counts(n.common, n.found, n.wanted),
    "jaccard": lambda n: jaccard_of_counts(n.common, n.found, n.wanted),
    "sensitivity": lambda n: sensitivity_of_counts(n.common, n.wanted),
    "specificity": lambda n: specificity_of_counts(n.common, n.found, n.wanted, n.size),
    "accuracy": lambda n: accuracy_of_counts(n.common, n.found, n.wanted, n.size),
    "ppv": lambda n: positive_predictive_value_of_counts(n.common, n.found),
}
#: Measures of volume, of voxels found and wanted and the volume of a voxel in ml.
_VOLUME: Mapping[str, Callable[[int, int, float], float]] = {
    "volume": lambda found, wanted, ml: found * ml,
    "reference_volume": lambda found, wanted, ml: wanted * ml,
    # A label that neither map has says nothing of a method.
    "volume_error": lambda found, wanted, ml: (found - wanted) * ml if found or wanted else np.nan,
    "relative_volume_error": lambda found, wanted, ml: volume_error_of_counts(found, wanted, 1000.0 * ml).percent,
}
#: Measures of the distances between two surfaces.
_DISTANCE: Mapping[str, Callable[[SurfaceDistances], float]] = {
    "asd": average_surface_distance,
    "hd": hausdorff,
    "hd95": hausdorff95,
    "hd95_max": hausdorff95_max,
    "surface_dice_2mm": lambda distances: surface_dice(distances, 2.0),
}

#: Everything that can be measured, and its unit.
METRICS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_OVERLAP, "")
    | {"volume": "ml", "reference_volume": "ml", "volume_error": "ml", "relative_volume_error": "%"}
    | {name: "" if name.startswith("surface_dice") else "mm" for name in _DISTANCE}
)

#: Measures of overlap that ask for a region, the body: over a whole field of view, air makes any of them 1.
WITHIN_BODY = frozenset({"specificity", "accuracy"})

#: What is measured where nothing else is asked for.
DEFAULT_METRICS = ("dice", "volume_error", "relative_volume_error", "asd", "hd95")

#: Enough to compare and to plot; the digits behind them depend on the processor that added them up.
FLOAT_FORMAT = "%.6g"


def known_metrics(metrics: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return names of metrics, checked; `DEFAULT_METRICS` for None.

    Raises
    ------
    UnknownNameError
        If there is no such metric; the message lists those there are.
    ParameterError
        If there is none, or one stands there twice.
    """
    chosen = DEFAULT_METRICS if metrics is None else tuple(metrics)
    for name in chosen:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ParameterError(f"metrics are one or more names, each once, not {', '.join(chosen) or 'none'}")
    return chosen


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


class Score(NamedTuple):
    """One row of the table, without its keys."""

    side: str
    label: str
    slice: int | None
    metric: str
    value: float
    unit: str
    status: str


class ReferenceScorer:
    """A reference made ready once, to score many predictions against.

    Parameters
    ----------
    reference : LabelMap
        The truth.
    label_set : LabelSet, optional
        Set to compare in; the reference's own if left out. Labels that have no place in it are not scored.
    metrics : sequence of str, optional
        Names among `METRICS`; `DEFAULT_METRICS` if left out.
    slices : bool
        Whether the measures of overlap are taken of each slice too.
    legs : sequence of Leg
        Two legs (`musclekit.anatomy.split_legs`): each side is then scored by itself, though the labels do not tell
        the sides apart, and a leg without any label in the reference counts as not annotated. None: as the label
        set has it.
    body : ndarray of bool, shape (Z, Y, X), optional
        The region of the metrics `WITHIN_BODY`, all of the body that the scan shows, both legs of it where there are
        two; what either map holds beyond it does not count for them.

    Attributes
    ----------
    label_set : LabelSet
        The set compared in, with sides where legs were given.

    Raises
    ------
    UnknownNameError
        If there is no such metric; the message lists those there are.
    ParameterError
        If no metric is given, or one twice, or one of those within the body without a body.
    GeometryError
        If the body has another shape than the reference.
    LabelError
        If the reference does not map to the label set.
    """

    def __init__(
        self,
        reference: LabelMap,
        *,
        label_set: LabelSet | None = None,
        metrics: Sequence[str] | None = None,
        slices: bool = True,
        legs: Sequence[Leg] = (),
        body: NDArray[np.bool_] | None = None,
    ) -> None:
        self.metrics = known_metrics(metrics)
        within = [name for name in self.metrics if name in WITHIN_BODY]
        if within and body is None:
            raise ParameterError(f"{' and '.join(within)} can only be told within the body: give the body mask")
        if body is not None and body.shape != reference.grid.shape:
            raise GeometryError(f"the body mask has shape {body.shape}, the reference {reference.grid.shape} (z, y, x)")
        self._body = body if within else None
        self.slices = slices
        self._legs = tuple(legs)
        self._unsided = label_set or reference.label_set
        self.label_set = self._unsided.sided() if self._legs else self._unsided
        self._wanted = self._in_set(reference)
        self._n = len(self.label_set) + 1
        # Two positions make one number: a table of pairs of labels is one count.
        code = np.uint16 if self._n**2 <= np.iinfo(np.uint16).max else np.int64
        self._positions = np.zeros(max(self.label_set.ids) + 1, dtype=code)
        self._positions[[label.id for label in self.label_set]] = np.arange(1, self._n)
        self._codes = self._positions[self._wanted.voxels]
        self._found_codes: dict[LabelSet, NDArray[Any]] = {}
        self._boxes = _boxes(self._wanted)
        self._surfaces: dict[int, tuple[tuple[slice, ...], ReferenceSurface]] = {}
        # Nobody has a thigh without muscle: where only one leg has labels, the other was not annotated.
        annotated = {label.side for label in self.label_set if label.id in self._boxes}
        self._unknown = {leg.side for leg in self._legs} - annotated if annotated else set()

    def _in_set(self, labels: LabelMap) -> LabelMap:
        """Return labels in the set compared in."""
        if labels.label_set == self.label_set:
            return labels
        if labels.label_set != self._unsided:
            labels = labels.mapped(label_mapping(labels.label_set, self._unsided))
        return label_sides(labels, self._legs) if self._legs else labels

    def scores(self, prediction: LabelMap) -> list[Score]:
        """Score a prediction.

        Parameters
        ----------
        prediction : LabelMap
            On the grid of the reference, in a set that maps to the one compared in.

        Returns
        -------
        list of Score
            For every label of the set, each metric over the volume, then each measure of overlap in each slice that
            either map has the label in. ``status`` is ``undefined`` (value NaN) where there is nothing to divide by,
            as where both masks are empty, and on a leg that is not annotated, else ``ok``.

        Raises
        ------
        GeometryError
            If the two lie on different grids.
        LabelError
            If they cannot be compared in the set.
        """
        if not prediction.grid.same_as(self._wanted.grid):
            difference = prediction.grid.difference(self._wanted.grid)
            raise GeometryError(f"prediction and reference lie on two grids: {difference}")
        found = self._in_set(prediction) if self._legs else prediction
        counts = self._count(found)
        inside = counts if self._body is None else self._count(found, self._body)
        whole = counts.over_volume()
        overlap = {name: measure for name, measure in _OVERLAP.items() if name in self.metrics}
        planes = {
            name: measure(inside if name in WITHIN_BODY else counts) for name, measure in overlap.items() if self.slices
        }
        volume = {
            name: measure(inside.over_volume() if name in WITHIN_BODY else whole) for name, measure in overlap.items()
        }
        in_slice = (counts.found + counts.wanted) > 0
        distances = self._distances(prediction) if any(name in _DISTANCE for name in self.metrics) else None
        ml = self._wanted.grid.voxel_volume_mm3 / 1000.0
        rows: list[Score] = []
        for k, label in enumerate(self.label_set):
            sizes = int(whole.found[k]), int(whole.wanted[k])
            for metric in self.metrics:
                if metric in _OVERLAP:
                    value = float(volume[metric][k])
                elif distances is not None and metric in _DISTANCE:
                    value = _DISTANCE[metric](distances[k])
                else:
                    value = _VOLUME[metric](*sizes, ml)
                if label.side in self._unknown and metric != "volume":
                    value = np.nan
                rows.append(_row(label, None, metric, value))
            if label.side in self._unknown:
                continue
            for metric, values in planes.items():
                rows += [
                    _row(label, int(z), metric, float(values[z, k])) for z in np.flatnonzero(in_slice[:, k]).tolist()
                ]
        return rows

    def _count(self, prediction: LabelMap, body: NDArray[np.bool_] | None = None) -> _Counts:
        """Count voxels of each label in each slice, all of them or those of the body."""
        source = prediction.label_set
        if source not in self._found_codes:
            # The way to the set compared in and to the position in it is one table.
            ids = np.arange(max(source.ids) + 1)
            table = ids if source == self.label_set else label_mapping(source, self.label_set).table()
            self._found_codes[source] = self._positions[table] * self._n
        table, n = self._found_codes[source], self._n
        planes = zip(prediction.voxels, self._codes, strict=True)
        both = [(table[a] + b).reshape(-1) for a, b in planes]
        if body is not None:
            both = [plane[inside.reshape(-1)] for plane, inside in zip(both, body, strict=True)]
        pairs = np.stack([np.bincount(plane, minlength=n * n).reshape(n, n) for plane in both])
        size = np.array([[plane.size] for plane in both])
        return _Counts(np.einsum("zkk->zk", pairs)[:, 1:], pairs.sum(axis=2)[:, 1:], pairs.sum(axis=1)[:, 1:], size)

    def _distances(self, prediction: LabelMap) -> list[SurfaceDistances]:
        """Distances between the surfaces of each label, within a window around both masks."""
        found = self._in_set(prediction)
        boxes = _boxes(found)
        measured = []
        for label in self.label_set:
            window, surface = self._surface(label.id, boxes.get(label.id))
            measured.append(surface.distances(found.voxels[window] == label.id))
        return measured

    def _surface(self, id_: int, box: tuple[slice, ...] | None) -> tuple[tuple[slice, ...], ReferenceSurface]:
        """Surface of a label of the reference, and a window that holds it and a box; kept while boxes fit into it."""
        known = self._surfaces.get(id_)
        if known is None or not _within(box, known[0]):
            window = _around(self._boxes.get(id_), box, None if known is None else known[0])
            surface = ReferenceSurface(self._wanted.voxels[window] == id_, self._wanted.grid.spacing)
            known = self._surfaces[id_] = window, surface
        return known


def _row(label: Label, plane: int | None, metric: str, value: float) -> Score:
    status = "undefined" if np.isnan(value) else "ok"
    return Score(label.side or "", label.name, plane, metric, value, METRICS[metric], status)


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
    metrics: Sequence[str] | None = None,
    slices: bool = True,
    body: NDArray[np.bool_] | None = None,
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
    metrics : sequence of str, optional
        Names among `METRICS`; `DEFAULT_METRICS` if left out.
    slices : bool
        Whether the measures of overlap are taken of each slice too.
    body : ndarray of bool, shape (Z, Y, X), optional
        Needed for specificity and accuracy, which are those of the body (`ReferenceScorer`).

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; the rows are those of `ReferenceScorer.scores`, which scores many predictions faster.

    Raises
    ------
    GeometryError
        If the two lie on different grids.
    LabelError
        If they cannot be compared in one set.
    UnknownNameError
        If there is no such metric; the message lists those there are.
    """
    target = label_set or common_label_set(prediction.label_set, reference.label_set)
    scorer = ReferenceScorer(reference, label_set=target, metrics=metrics, slices=slices, body=body)
    return score_table(
        scorer.scores(prediction),
        case_id=case_id,
        subject=subject,
        method=method,
        params_id=params_id,
        side=side,
        fold=fold,
    )


def score_table(
    scores: Sequence[Score],
    *,
    case_id: str,
    subject: str,
    method: str,
    params_id: str = "",
    side: str | None = None,
    fold: str = "",
) -> pd.DataFrame:
    """Return scores of one label map as rows of the table.

    Parameters
    ----------
    scores : sequence of Score
        As `ReferenceScorer.scores` gives them.
    case_id, subject, method, params_id, side, fold : str
        Key of the rows, as in `score`.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`.
    """
    frame = pd.DataFrame(scores, columns=list(Score._fields))
    if side:
        frame["side"] = frame["side"].where(frame["side"] != "", side)
    keys = {"case_id": case_id, "subject": subject, "method": method, "params_id": params_id, "fold": fold}
    return frame.assign(**keys).astype({"slice": "Int64", "value": np.float64})[list(COLUMNS)]


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
    metrics: Sequence[str] | None = None,
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
    metrics : sequence of str, optional
        As in `score`.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; every value NaN, every status ``failed: <message>``.
    """
    status = f"failed: {' '.join(message.split()) or 'no reason given'}"
    rows = [
        Score(label.side or "", label.name, None, metric, np.nan, METRICS[metric], status)
        for label in label_set or ()
        for metric in known_metrics(metrics)
    ]
    rows = rows or [Score("", "", None, "", np.nan, "", status)]
    return score_table(rows, case_id=case_id, subject=subject, method=method, params_id=params_id, side=side, fold=fold)


def _boxes(labels: LabelMap) -> dict[int, tuple[slice, ...]]:
    """Box around each label that a map has."""
    found = ndimage.find_objects(labels.voxels, max(labels.label_set.ids))
    return {id_: box for id_, box in enumerate(found, start=1) if box}


def _around(*boxes: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """Box around boxes and one voxel more: a label of one plane stays a part of its volume."""
    some = [box for box in boxes if box]
    return tuple(
        slice(max(0, min(box[axis].start for box in some) - 1), max(box[axis].stop for box in some) + 1)
        if some
        else slice(0, 2)
        for axis in range(3)
    )


def _within(box: tuple[slice, ...] | None, window: tuple[slice, ...]) -> bool:
    """Whether a window holds a box and one voxel more."""
    return box is None or all(
        outer.start <= max(0, inner.start - 1) and inner.stop < outer.stop
        for inner, outer in zip(box, window, strict=True)
    )


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
