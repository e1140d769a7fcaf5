"""Search of a grid of parameters by leave-one-subject-out, with the choice made inside each fold.

For each subject the parameters are chosen on all others, and the method, fitted on those others, is scored on it.
What the subject itself says has no part in the choice (Varma and Simon 2006, "Bias in error estimation when using
cross-validation for model selection"). Gadermayr et al. (section 3) choose one point on all left-out scores: that is
``mode="paper"``, and optimistic.

A training set is all subjects but one or two. All points are tried on it together, so that what does not depend on a
parameter is worked out once (`musclekit.memory`); and what the choice in fold `a` learns from testing on `b` belongs to
the same training set as what fold `b` learns from testing on `a`: twelve subjects need 12 + 66 training sets.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit import registry
from musclekit.compose import for_side
from musclekit.errors import (
    FormatError,
    InputError,
    LabelError,
    LeakError,
    ModalityError,
    ParameterError,
    SegmentationError,
    unknown_name,
)
from musclekit.evaluation.case_scores import CaseScorer, reason
from musclekit.evaluation.files import file_digests
from musclekit.evaluation.harness import image_for, labels_name, noting, training_subjects
from musclekit.evaluation.scores import (
    METRICS,
    common_label_set,
    known_metrics,
    params_id,
    params_table,
    write_scores,
)
from musclekit.evaluation.units import Finished, Unit, UnitResult, Workers
from musclekit.image import Case, LabelMap
from musclekit.io import read_toml, replacing, write_label_table, write_labels
from musclekit.labels import LabelSet
from musclekit.memory import Memory, fingerprint, remembering
from musclekit.protocols import Segmenter
from musclekit.schemas import check_schema

__all__ = ["LOWER_IS_BETTER", "NAMED_GRIDS", "Mode", "Plan", "SearchResult", "check_plan", "read_plan", "search"]

Mode = Literal["nested", "paper"]

#: Metrics a choice can go by. Differences of volume have a sign, and volumes say nothing of agreement.
_HIGHER_IS_BETTER = frozenset({"dice", "jaccard", "sensitivity", "specificity", "accuracy", "ppv", "surface_dice_2mm"})
LOWER_IS_BETTER = frozenset({"asd", "hd", "hd95", "hd95_max"})

#: Digits of a table that people read; the tables a choice can be checked with hold every digit.
SUMMARY_DIGITS = 6


#: The grid of Gadermayr et al. (section 3); ``fixed`` adds the two weights that their 1-2-5 steps leave out.
NAMED_GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "paper": {
        "smoothness": (0.001, 0.002, 0.05, 0.1, 0.2, 0.5),
        "sigma": (1.0, 2.0),
        "prior_weight": (0.1, 0.2, 0.5, 0.7, 1.0),
        "neutral_probability": (0.2, 0.3, 0.4, 0.5),
    },
    "fixed": {
        "smoothness": (0.001, 0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
        "sigma": (1.0, 2.0),
        "prior_weight": (0.1, 0.2, 0.5, 0.7, 1.0),
        "neutral_probability": (0.2, 0.3, 0.4, 0.5),
    },
}


@dataclass(frozen=True)
class Plan:
    """What to search.

    Parameters
    ----------
    method : mapping
        Name and parameters of the method, nested, as `musclekit.registry.build` takes them.
    grid : mapping of str to sequence, sequence of such, or {"paper", "fixed"}
        Values to try of each parameter (nested as ``a__b``); of several grids, one after the other. The order of the
        points is that of scikit-learn's ``ParameterGrid``. Empty: the method as it is, one point. A name stands for
        the values of `NAMED_GRIDS` of those parameters that the method has, wherever it has them.
    metric : str
        What the choice goes by.
    label : str, optional
        Label it goes by; the mean over all labels that are there if left out.
    """

    method: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]] | str
    metric: str = "dice"
    label: str | None = None

    @cached_property
    def points(self) -> tuple[dict[str, Any], ...]:
        """The points of the grid, in order: parameter to value.

        Raises
        ------
        ParameterError
            If a value is not a list, a list is empty, a point is named twice, or there is no grid of a name.
        """
        from sklearn.model_selection import ParameterGrid  # takes a second

        grid = self._named_grid(self.grid) if isinstance(self.grid, str) else self.grid
        grids = [grid] if isinstance(grid, Mapping) else list(grid)
        for name, values in itertools.chain.from_iterable(part.items() for part in grids):
            if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
                raise ParameterError(f"the grid gives {name} = {values!r}: give a list of the values to try")
            if len(values) == 0:
                raise ParameterError(f"the grid gives no values of {name}: leave it out, or name some")
        points = tuple(ParameterGrid([dict(part) for part in grids] or [{}]))
        written = [json.dumps(point, sort_keys=True, default=str) for point in points]
        for text in written:
            if written.count(text) > 1:
                raise ParameterError(f"the grid names a point twice: {text}")
        return points

    def _named_grid(self, name: str) -> dict[str, tuple[float, ...]]:
        if name not in NAMED_GRIDS:
            raise unknown_name("grid", name, NAMED_GRIDS)
        known = registry.build(**self.method).get_params()
        grid = {
            parameter: values
            for end, values in NAMED_GRIDS[name].items()
            for parameter in sorted(known)
            if parameter == end or parameter.endswith(f"__{end}")
        }
        if not grid:
            raise ParameterError(f"grid '{name}': the method has none of {', '.join(NAMED_GRIDS[name])}")
        return grid


def read_plan(path: Path) -> Plan:
    """Read a plan of a search.

    Parameters
    ----------
    path : Path
        TOML; see ``data_schemas/plan.schema.json``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    SchemaError
        If it breaks the schema.
    InputError
        If it cannot be searched: see `check_plan`.
    """
    data = read_toml(path)
    check_schema(data, "plan", f"plan {path.name}")
    plan = Plan(data["method"], data.get("grid", {}), data.get("metric", "dice"), data.get("label"))
    check_plan(plan)
    return plan


def check_plan(plan: Plan) -> None:
    """Check a plan as far as that goes without cases.

    Raises
    ------
    UnknownNameError
        If there is no such method or metric; the message lists those there are.
    ParameterError
        If the grid or the method names a parameter that does not exist (the message lists those that do), a list of
        values is none or is empty, the metric is none that a choice can go by, or the method is no segmenter.
    ModalityError
        If the method cannot take what its translator gives.
    LabelError
        If the label does not exist.
    """
    metric = known_metrics([plan.metric])[0]
    if metric not in _HIGHER_IS_BETTER | LOWER_IS_BETTER:
        known = ", ".join(name for name in METRICS if name in _HIGHER_IS_BETTER | LOWER_IS_BETTER)
        raise ParameterError(f"a choice cannot go by {metric}, of which neither more nor less is better; use {known}")
    for point in plan.points:
        method = _built(plan.method, point)
        if not isinstance(method, Segmenter):
            raise ParameterError(f"'{plan.method['name']}' is no segmenter; a search needs one of: "
                                 f"{', '.join(registry.names('segmenter'))}")  # fmt: skip
        if not method.contrasts:
            raise ModalityError(
                f"method '{plan.method['name']}' takes no image at all: its segmenter cannot take what its translator "
                "gives; choose a translator into a contrast of the segmenter"
            )


def _built(method: Mapping[str, Any], point: Mapping[str, Any]) -> Any:
    return registry.build(**{**method, **point})


@dataclass(frozen=True)
class SearchResult:
    """What a search found; each table is also a file of its folder.

    Parameters
    ----------
    scores : DataFrame
        Score table of the chosen points (``scores.csv``): of each fold, the subject that was left out.
    folds : DataFrame
        ``folds.csv``: a row a fold, with the chosen point, what the choice went by (``inner``), what it came to on the
        subject left out (``outer``), how many points did equally well (``ties``), and the values of the parameters.
    points : DataFrame
        ``points.csv``: a row a point in grid order: its parameters and ``score``, the mean over subjects when each is
        left out alone.
    grid : DataFrame
        ``grid.csv``: ``params_id, fold, subject, value, n_cases, n_failed``: the metric of each point, fitted on all
        subjects but ``fold`` and ``subject``, on ``subject``.
    params : DataFrame
        ``params.csv``: what the ids stand for.
    summary : dict
        ``summary.json``: plain data.
    folder : Path
        Where all of this is, and the label maps (``labels/<case_id>_dseg.nii.gz``).
    """

    scores: pd.DataFrame
    folds: pd.DataFrame
    points: pd.DataFrame
    grid: pd.DataFrame
    params: pd.DataFrame
    summary: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class _Study:
    """What every unit works on; sent to each worker once."""

    method: Mapping[str, Any]
    points: tuple[dict[str, Any], ...]
    params_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    cases: tuple[tuple[Case, ...], ...]
    metric: str
    label: str | None
    label_set: LabelSet

    def without(self, left_out: Sequence[int]) -> list[Case]:
        """Return the cases of all subjects but some."""
        return [case for n, cases in enumerate(self.cases) if n not in left_out for case in cases]


def search(
    plan: Plan,
    cases: Sequence[Case],
    folder: Path,
    *,
    mode: Mode = "nested",
    jobs: int = 1,
    scheduler: str | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> SearchResult:
    """Search a grid of parameters by leave-one-subject-out.

    Parameters
    ----------
    plan : Plan
        Method and grid.
    cases : sequence of Case
        With references, of at least three subjects (two for ``mode="paper"``). Their order does not matter.
    folder : Path
        Where results go. A folder of the same plan and cases is gone on with, and so is one of another mode: what is
        there is not done again.
    mode : {"nested", "paper"}
        ``nested``: each fold chooses its point without the subject it is scored on. ``paper``: one point is chosen on
        all left-out scores; what is said of it is optimistic, and the summary says so.
    jobs : int
        Worker processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler whose workers work instead (``tcp://host:port``).
    progress : callable, optional
        Called with the work done, all the work, and a line of text (the best point so far).

    Returns
    -------
    SearchResult
        The same, to the last byte of every file, whatever the number of workers and however often it was interrupted.

    Raises
    ------
    InputError
        Before any work: if the plan cannot be searched (`check_plan`), there are too few subjects, a case has no
        reference or no image the method takes, the folder holds the results of another plan or other cases, or the
        scheduler cannot be reached.
    LeakError
        If a network of the plan has learnt from one of the subjects.
    ParameterError
        If a parameter lies outside its range.
    SegmentationError
        If nothing works on the first two subjects; the message says why.
    WorkerError
        If workers keep dying. What was done is kept.

    Warns
    -----
    UserWarning
        What methods warned of, wherever they ran; each text once.

    Notes
    -----
    A point on which a case failed is ranked behind all on which fewer failed; then by the mean over subjects of the
    mean over their cases. Cases in which the label is absent from both maps are not counted. Among points that do
    equally well the first of the grid is taken.
    """
    if mode not in ("nested", "paper"):
        raise ParameterError(f"mode must be nested or paper, not {mode!r}")
    check_plan(plan)
    study = _study(plan, cases, least=3 if mode == "nested" else 2)
    workers = Workers(study, jobs=jobs, scheduler=scheduler, folder=folder / "units")
    workers.identity = _claim(folder, plan, study)
    n = len(study.subjects)
    weights = [float(len(study.points) * len(cases)) for cases in study.cases]
    left_out: list[tuple[int, ...]] = [(s,) for s in range(n)]
    if mode == "nested":
        left_out += itertools.combinations(range(n), 2)
    units = [Unit(_key("without", *out), (out,), sum(weights[s] for s in out)) for out in left_out]
    # The chosen point is fitted once more, and measured in every way.
    total = sum(unit.weight for unit in units) + sum(float(len(cases)) for cases in study.cases)
    told = _Progress(progress, total, study)
    with workers:
        tried = {}
        notes: set[str] = set()
        for done in workers.run(_try_all, units):
            tried[done.unit.arguments[0]] = done.result.tables["values"]
            notes |= set(done.result.tables["warnings"]["text"])
            _stop_if_nothing_works(tried, folder)
            told.add(done)
        grid = pd.concat([tried[out] for out in left_out], ignore_index=True)
        values = _of_subjects(grid, study)
        chosen = _choose(values, study, mode)
        final = [
            Unit(_key("final", s, study.params_ids[choice.point]), (s, choice.point), float(len(study.cases[s])))
            for s, choice in enumerate(chosen)
            if choice.point is not None
        ]
        scored: dict[int, UnitResult] = {}
        for done in workers.run(_score_chosen, final):
            scored[done.unit.arguments[0]] = done.result
            notes |= set(done.result.tables["warnings"]["text"])
            told.add(done)
    for text in sorted(notes):
        warnings.warn(text, UserWarning, stacklevel=2)
    return _written(study, mode, chosen, scored, values, folder)


def _key(kind: str, *parts: int | str) -> str:
    return "-".join([kind, *(part if isinstance(part, str) else f"{part:03d}" for part in parts)])


# --- before the work -------------------------------------------------------------------------------------------------


def _study(plan: Plan, cases: Sequence[Case], least: int) -> _Study:
    """Check the cases and gather them by subject; of each, the one image that the method takes."""
    method: Segmenter = _built(plan.method, plan.points[0])
    learnt_from = {subject for point in plan.points for subject in training_subjects(_built(plan.method, point))}
    by_subject: dict[str, list[Case]] = {}
    seen: set[str] = set()
    for case in sorted(cases, key=lambda case: (case.subject, case.id)):
        if case.id in seen:
            raise InputError(f"two cases are called '{case.id}'")
        seen.add(case.id)
        if case.reference is None:
            raise InputError(f"case '{case.id}' has no reference; a search needs annotated cases")
        if case.subject in learnt_from:
            raise LeakError(
                f"case '{case.id}': a network of the plan has learnt from subject '{case.subject}', whose score would"
                " say nothing; leave the subject out"
            )
        labels = common_label_set(method.label_set, case.reference.label_set)
        if plan.label is not None and plan.label not in {label.name for label in labels}:
            known = ", ".join(dict.fromkeys(label.name for label in labels))
            raise LabelError(f"case '{case.id}': there is no label '{plan.label}' to choose by; there are: {known}")
        image = image_for(method, case)
        by_subject.setdefault(case.subject, []).append(replace(case, images={image.contrast: image}))
    if len(by_subject) < least:
        why = "one to score, one to choose on, and one to learn from" if least > 2 else "one to score and one to learn"
        raise InputError(
            f"leave-one-subject-out needs at least {least} subjects ({why}), not {len(by_subject)}"
            + ("; with mode 'paper' two are enough" if least > 2 and len(by_subject) == 2 else "")
        )
    ids = tuple(params_id(registry.describe(_built(plan.method, point))) for point in plan.points)
    subjects = tuple(by_subject)
    gathered = tuple(tuple(of_subject) for of_subject in by_subject.values())
    return _Study(dict(plan.method), plan.points, ids, subjects, gathered, plan.metric, plan.label, method.label_set)


def _claim(folder: Path, plan: Plan, study: _Study) -> str:
    """Return the digest of all that results depend on; refuse a folder that holds others."""
    described = registry.describe(_built(plan.method, plan.points[0]))
    about = {
        "method": dict(plan.method),
        "points": list(study.points),
        "metric": plan.metric,
        "label": plan.label,
        "cases": {case.id: fingerprint(case) for of_subject in study.cases for case in of_subject},
        "files": file_digests([described, *study.points]),
        "musclekit": version("musclekit"),
    }
    # As it is read back: lists for tuples.
    about = json.loads(json.dumps(about, sort_keys=True, default=str))
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = folder / "plan.json"
    if any((folder / "units").glob("[!.]*.zip")):
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            differing = [name for name in about if before[name] != about[name]]
        except (OSError, ValueError, KeyError, TypeError):
            raise FormatError(
                f"{path}: missing or damaged, though there are results beside it; choose another folder"
            ) from None
        if differing:
            raise InputError(
                f"{folder} holds the results of another search ({', '.join(differing)} differ): results are never "
                "mixed, choose another folder"
            )
    else:
        _check_ranges(study)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return digest


def _check_ranges(study: _Study) -> None:
    """Fit the method with each value of the grid once, so that a value outside its range is found before the work."""
    first: dict[str, int] = {}
    for n, point in enumerate(study.points):
        for name, value in point.items():
            first.setdefault(json.dumps([name, value], default=str), n)
    training = study.without((0,))
    # The units warn of the same.
    with remembering(Memory()), noting([], ""):
        for n in sorted(set(first.values()) or {0}):
            _fitted(study, study.points[n], training)


# --- units -----------------------------------------------------------------------------------------------------------


def _try_all(study: _Study, left_out: tuple[int, ...]) -> UnitResult:
    """Fit every point on all subjects but some, and score it on these."""
    notes: list[str] = []
    with noting(notes, study.method["name"]):
        rows = _tried_rows(study, left_out)
    return UnitResult({"values": pd.DataFrame(rows, columns=_VALUES), "warnings": _table_of(notes)})


def _tried_rows(study: _Study, left_out: tuple[int, ...]) -> list[tuple[Any, ...]]:
    training = study.without(left_out)
    fitted = [_fitted(study, point, training) for point in study.points]
    rows = []
    for s in left_out:
        fold = next((other for other in left_out if other != s), s)
        for case in study.cases[s]:
            scorer = CaseScorer(case, (study.metric,), slices=False)
            # All points on one case after the other: what they share is then at hand.
            for n, method in enumerate(fitted):
                if isinstance(method, str):
                    value, status = math.nan, method
                else:
                    value, status = _tried(method, study.points[n], scorer, study.label)
                rows.append((n, fold, s, case.id, value, status))
    return rows


_VALUES = ["point", "fold", "subject", "case_id", "value", "status"]


def _table_of(notes: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(list(dict.fromkeys(notes)), dtype=object)})


def _fitted(study: _Study, point: Mapping[str, Any], training: Sequence[Case]) -> Segmenter | str:
    """Return the method at a point, fitted; or why that failed."""
    try:
        method: Segmenter = _built(study.method, point).fit(training)
    except ParameterError as problem:
        raise ParameterError(f"{problem} ({_text(point)})") from problem
    except Exception as problem:  # a fault at one point must not take the others with it; its rows name it
        return _why(problem)
    return method


def _tried(method: Segmenter, point: Mapping[str, Any], scorer: CaseScorer, label: str | None) -> tuple[float, str]:
    """Return the value of the metric that the choice goes by, and its status."""
    try:
        value = _value(scorer, for_side(method, scorer.case.side).segment(scorer.case.image), label)
    except ParameterError as problem:
        raise ParameterError(f"{problem} ({_text(point)})") from problem
    except Exception as problem:
        return math.nan, _why(problem)
    return value, "undefined" if math.isnan(value) else "ok"


def _value(scorer: CaseScorer, labels: LabelMap, label: str | None) -> float:
    """Mean of the scorer's metric over the labels that are there, or over the sides of one."""
    found = [row.value for row in scorer.scores(labels) if row.status == "ok" and label in (None, row.label)]
    return math.fsum(found) / len(found) if found else math.nan


def _score_chosen(study: _Study, s: int, point: int) -> UnitResult:
    """Fit the chosen point on all subjects but one, and measure it on this one in every way."""
    notes: list[str] = []
    with noting(notes, study.method["name"]):
        scores, arrays = _scored(study, s, point)
    return UnitResult({"scores": scores, "warnings": _table_of(notes)}, arrays)


def _scored(study: _Study, s: int, point: int) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
    method = _fitted(study, study.points[point], study.without((s,)))
    tables, arrays = [], {}
    for n, case in enumerate(study.cases[s]):
        scorer = CaseScorer(case, tuple(METRICS))
        try:
            if isinstance(method, str):
                raise SegmentationError(method.removeprefix(_FAILED))
            labels = for_side(method, case.side).segment(case.image)
            tables.append(scorer.table(labels, **_keys(study, s, point)))
            arrays[f"labels-{n:03d}"] = labels.voxels
        except Exception as problem:
            tables.append(scorer.failed(reason(problem), study.label_set, **_keys(study, s, point)))
    return pd.concat(tables, ignore_index=True), arrays


def _keys(study: _Study, s: int, point: int | None) -> dict[str, str]:
    """Return the key of the rows of a fold."""
    id_ = "" if point is None else study.params_ids[point]
    return {"method": study.method["name"], "params_id": id_, "fold": study.subjects[s]}


_FAILED = "failed: "


def _why(problem: Exception) -> str:
    """Return the status of what failed."""
    return _FAILED + (" ".join(reason(problem).split()) or "no reason given")


# --- the choice ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Values:
    """The metric at each point; arrays of shape (points, folds, subjects), where `fold` and `subject` were left out.

    ``value`` is the mean over the subject's cases (NaN where none counts), ``n_cases`` how many count.
    """

    value: NDArray[np.float64]
    n_cases: NDArray[np.int64]
    n_failed: NDArray[np.int64]

    def outer(self) -> NDArray[np.float64]:
        """Values with a subject left out alone; shape (points, subjects)."""
        alone: NDArray[np.float64] = np.diagonal(self.value, axis1=1, axis2=2)
        return alone


@dataclass(frozen=True)
class _Choice:
    """The point that a fold takes (None: none works), what it went by, and how many points did equally well."""

    point: int | None
    value: float
    n_failed: int
    ties: int


def _of_subjects(tried: pd.DataFrame, study: _Study) -> _Values:
    shape = (len(study.points), len(study.subjects), len(study.subjects))
    total, n_cases, n_failed = np.zeros(shape), np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    where = tuple(tried[name].to_numpy() for name in ("point", "fold", "subject"))
    counts = tried["value"].notna().to_numpy()
    np.add.at(total, where, np.where(counts, tried["value"], 0.0))
    np.add.at(n_cases, where, counts)
    np.add.at(n_failed, where, tried["status"].str.startswith(_FAILED).to_numpy())
    value = np.divide(total, n_cases, out=np.full(shape, np.nan), where=n_cases > 0)
    return _Values(value, n_cases, n_failed)


def _choose(values: _Values, study: _Study, mode: Mode) -> list[_Choice]:
    """Choose a point for each fold."""
    n = len(study.subjects)
    if mode == "paper":
        return [_best(values.outer(), np.diagonal(values.n_failed, axis1=1, axis2=2), study.metric)] * n
    others = [[i for i in range(n) if i != s] for s in range(n)]
    return [_best(values.value[:, s, others[s]], values.n_failed[:, s, others[s]], study.metric) for s in range(n)]


def _best(value: NDArray[np.float64], n_failed: NDArray[np.int64], metric: str) -> _Choice:
    """Choose among points by their values on some subjects; arrays of shape (points, subjects)."""
    mean = _mean(value)
    # The fewest failures first, then the best mean, then the order of the grid.
    rank = [(int(k), _sign(metric) * -m) for k, m in zip(n_failed.sum(axis=1), mean, strict=True)]
    possible = [n for n in range(len(mean)) if not math.isnan(mean[n])]
    if not possible:
        return _Choice(None, math.nan, int(n_failed.sum(axis=1).min()), 0)
    best = min(possible, key=lambda n: rank[n])
    return _Choice(best, float(mean[best]), rank[best][0], sum(rank[n] == rank[best] for n in possible))


def _mean(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over subjects that count, NaN where none does."""
    counts = ~np.isnan(value)
    total = np.where(counts, value, 0.0).sum(axis=-1)
    n = counts.sum(axis=-1)
    mean: NDArray[np.float64] = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return mean


def _sign(metric: str) -> float:
    return 1.0 if metric in _HIGHER_IS_BETTER else -1.0


def _stop_if_nothing_works(tried: Mapping[tuple[int, ...], pd.DataFrame], folder: Path) -> None:
    """Stop when no point works on either of the first two subjects: the mistake is hardly in the cases."""
    first = ((0,), (1,))
    if not all(out in tried for out in first):
        return
    status = pd.concat([tried[out]["status"] for out in first])
    if status.str.startswith(_FAILED).all():
        for out in first:  # another call is to try again
            (folder / "units" / f"{_key('without', *out)}.zip").unlink(missing_ok=True)
        raise SegmentationError(f"nothing works on the first two subjects: {status.iloc[0].removeprefix(_FAILED)}")


class _Progress:
    """Adds up the work done and says which point is the best so far."""

    def __init__(self, tell: Callable[[float, float, str], None] | None, total: float, study: _Study) -> None:
        self._tell = tell
        self._total = total
        self._study = study
        self._done = 0.0
        self._values: list[pd.DataFrame] = []
        if tell is not None:
            tell(0.0, total, "")

    def add(self, done: Finished) -> None:
        self._done += done.unit.weight
        if self._tell is None:
            return
        if "values" in done.result.tables:
            self._values.append(done.result.tables["values"])
        self._tell(self._done, self._total, self._best())

    def _best(self) -> str:
        study = self._study
        values = _of_subjects(pd.concat(self._values, ignore_index=True), study)
        # Every score so far, so that there is an answer early; the choice itself keeps subjects apart.
        n = len(study.points)
        best = _best(values.value.reshape(n, -1), values.n_failed.reshape(n, -1), study.metric)
        if best.point is None:
            return "nothing works so far"
        return f"best so far: {study.metric} {best.value:.4f} with {_text(study.points[best.point])}"


def _text(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in point.items()) or "the method as it is"


# --- results ---------------------------------------------------------------------------------------------------------


def _written(
    study: _Study,
    mode: Mode,
    chosen: Sequence[_Choice],
    scored: Mapping[int, UnitResult],
    values: _Values,
    folder: Path,
) -> SearchResult:
    """Gather the results and write them."""
    tables = []
    for s, of_subject in enumerate(study.cases):
        if s in scored:
            tables.append(scored[s].tables["scores"])
        for n, case in enumerate(of_subject):
            path = folder / "labels" / labels_name(case.id)
            if s not in scored:
                why = "no point of the grid works on the other subjects"
                tables.append(CaseScorer(case, tuple(METRICS)).failed(why, study.label_set, **_keys(study, s, None)))
            elif f"labels-{n:03d}" in scored[s].arrays:
                write_labels(LabelMap(scored[s].arrays[f"labels-{n:03d}"], case.image.grid, study.label_set), path)
                write_label_table(study.label_set, path.with_name(path.name.replace(".nii.gz", ".tsv")))
                continue
            path.unlink(missing_ok=True)  # of another mode
    scores = pd.concat(tables, ignore_index=True)
    described = [registry.describe(_built(study.method, point)) for point in study.points]
    result = SearchResult(
        scores=scores,
        folds=_folds(study, chosen, values),
        points=_points(study, values),
        grid=_grid(study, values),
        params=params_table(described),
        summary=_summary(study, mode, chosen, values, scores),
        folder=folder,
    )
    write_scores(scores, folder / "scores.csv")
    for name in ("folds", "points", "grid", "params"):
        with replacing(folder / f"{name}.csv") as temporary:
            getattr(result, name).to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    with replacing(folder / "summary.json") as temporary:
        text = json.dumps(result.summary, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return result


def _parameter_columns(study: _Study, points: Sequence[int | None]) -> dict[str, list[Any]]:
    """Return a column for each parameter of the grid; a list of values becomes text."""
    names = dict.fromkeys(name for point in study.points for name in point)
    return {name: [None if n is None else _cell(study.points[n].get(name)) for n in points] for name in names}


def _cell(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) or value is None else json.dumps(value, default=str)


def _folds(study: _Study, chosen: Sequence[_Choice], values: _Values) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "fold": study.subjects,
            "params_id": ["" if choice.point is None else study.params_ids[choice.point] for choice in chosen],
            "inner": [choice.value for choice in chosen],
            "outer": _left_out(chosen, values),
            "n_failed": [choice.n_failed for choice in chosen],
            "ties": [choice.ties for choice in chosen],
            **_parameter_columns(study, [choice.point for choice in chosen]),
        }
    )


def _left_out(chosen: Sequence[_Choice], values: _Values) -> list[float]:
    """Value of each fold's chosen point on the subject left out."""
    outer = values.outer()
    return [math.nan if choice.point is None else float(outer[choice.point, s]) for s, choice in enumerate(chosen)]


def _points(study: _Study, values: _Values) -> pd.DataFrame:
    n_failed = np.diagonal(values.n_failed, axis1=1, axis2=2)
    return pd.DataFrame(
        {
            "params_id": study.params_ids,
            **_parameter_columns(study, range(len(study.points))),
            "score": _mean(values.outer()),
            "n_failed": n_failed.sum(axis=1),
        }
    )


def _grid(study: _Study, values: _Values) -> pd.DataFrame:
    point, fold, subject = np.nonzero(values.n_cases + values.n_failed > 0)
    order = np.lexsort((point, subject, fold, fold != subject))
    at = (point[order], fold[order], subject[order])
    names = np.array(study.subjects, dtype=object)
    return pd.DataFrame(
        {
            "params_id": np.array(study.params_ids, dtype=object)[at[0]],
            "fold": names[at[1]],
            "subject": names[at[2]],
            "value": values.value[at],
            "n_cases": values.n_cases[at],
            "n_failed": values.n_failed[at],
        }
    )


def _summary(
    study: _Study, mode: Mode, chosen: Sequence[_Choice], values: _Values, scores: pd.DataFrame
) -> dict[str, Any]:
    n = len(study.subjects)
    left_out = np.array(_left_out(chosen, values))
    counting = left_out[~np.isnan(left_out)]
    paper = _choose(values, study, "paper")[0]
    value = _number(counting.mean()) if counting.size else None
    said = _number(paper.value)
    folds: dict[int, int] = {}
    for choice in chosen:
        if choice.point is not None:
            folds[choice.point] = folds.get(choice.point, 0) + 1
    whole = scores[scores["slice"].isna()]
    lost = whole[whole["status"].str.startswith(_FAILED)]
    return {
        "method": study.method["name"],
        "mode": mode,
        "optimistic": mode == "paper",
        "metric": study.metric,
        "label": study.label,
        "choice": "fewest failed cases, then the best mean over subjects, then the first in grid order",
        "subjects": n,
        "cases": sum(len(cases) for cases in study.cases),
        "points": len(study.points),
        "training_sets": {"outer": n, "inner": n * (n - 1) // 2 if mode == "nested" else 0},
        "value": value,
        "median": _number(np.median(counting)) if counting.size else None,
        "paper_value": said,
        # How much better the method looks when the point is chosen on the very scores it is judged by.
        "optimism": None if value is None or said is None else _number(_sign(study.metric) * (said - value)),
        "chosen": [
            {"params_id": study.params_ids[point], "parameters": study.points[point], "folds": count}
            for point, count in sorted(folds.items(), key=lambda item: (-item[1], item[0]))
        ],
        "failed_cases": sorted(set(lost["case_id"])),
        "points_with_failures": int((values.n_failed.sum(axis=(1, 2)) > 0).sum()),
        "musclekit": version("musclekit"),
    }


def _number(value: float) -> float | None:
    """Round for people; None where there is nothing to say, for JSON knows neither NaN nor infinity."""
    return round(float(value), SUMMARY_DIGITS) if math.isfinite(value) else None
