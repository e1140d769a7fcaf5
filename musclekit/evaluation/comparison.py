"""Whether one method is better than another: paired statistics between the methods of a score table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from musclekit.errors import InputError, ParameterError, SchemaError, unknown_name
from musclekit.statistics import Correction, adjusted_p, paired_t, wilcoxon_signed_rank

__all__ = ["COMPARISON_COLUMNS", "Test", "compare"]

Test = Literal["wilcoxon", "t"]

#: Columns of a comparison, in order.
COMPARISON_COLUMNS = (
    "label", "metric", "unit", "method", "baseline", "n", "scores", "value", "baseline_value", "difference", "low",
    "high", "level", "mean_difference", "test", "statistic", "p", "p_corrected", "correction", "unpaired", "failed",
    "undefined", "infinite", "left_out",
)  # fmt: skip

#: Why a score takes no part, the first that holds.
_REASONS = ("failed", "unpaired", "undefined", "infinite")

_KEY = ["case_id", "subject", "side", "label"]
_NEEDED = (*_KEY, "slice", "method", "metric", "value", "unit", "status")


def compare(
    scores: pd.DataFrame,
    *,
    metric: str = "dice",
    label: str | None = None,
    by: Literal["subject", "case_id"] = "subject",
    baseline: str | None = None,
    test: Test = "wilcoxon",
    correction: Correction = "holm",
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare methods with each other, paired by subject.

    Scores of whole volumes are paired first: same case, side and structure, a finite number from both methods. What
    is paired is averaged within each subject, whose difference is one observation.

    Parameters
    ----------
    scores : DataFrame
        Score table (`musclekit.evaluation.COLUMNS`), or several put together.
    metric : str
        What is compared.
    label : str, optional
        Which structure; each by itself where not given.
    by : {"subject", "case_id"}
        What counts as one observation. Cases do so only where no person has two.
    baseline : str, optional
        The method that all others are compared with; every pair of methods where not given, the later of the table
        with the earlier.
    test : {"wilcoxon", "t"}
        Wilcoxon's signed-rank test or the paired t test, two-sided; see `musclekit.statistics`.
    correction : {"holm", "bonferroni"}
        For the number of tests in the table that comes back.
    level : float
        Of the interval.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        A row a structure and pair, columns `COMPARISON_COLUMNS`: ``n`` subjects with ``scores`` paired scores;
        ``value`` and ``baseline_value``, the medians of the two methods over these subjects; ``difference``, the median
        of method minus baseline, with its percentile bootstrap interval ``low`` to ``high`` over subjects (10,000
        resamples); ``mean_difference``; ``statistic`` (Wilcoxon: the smaller rank sum), ``p`` and ``p_corrected``, NaN
        where there is nothing to test (fewer than two subjects; for t also where all differences are the same);
        the numbers of scores that took no part because a method ``failed``, only one of the two has the score
        (``unpaired``), or it is ``undefined`` or ``infinite`` with one of them; ``left_out`` names each of them.

    Raises
    ------
    InputError
        If there are fewer than two methods, or a method has two scores of one case, side and structure.
    UnknownNameError
        If there is no such metric, structure or method; the message lists those there are.
    ParameterError
        If the test, the correction, the level or what is paired does not exist.
    SchemaError
        If a column is missing.

    Notes
    -----
    Yang et al. test the mean Dice of each image by Wilcoxon's test with Bonferroni's correction, Hiasa et al. and the
    2.5-D study by the paired t test. Here the subject is the unit: two thighs of a person are not two samples.
    """
    if test not in get_args(Test):
        raise ParameterError(f"the test is one of {', '.join(get_args(Test))}, not '{test}'")
    if correction not in get_args(Correction):
        raise ParameterError(f"the correction is one of {', '.join(get_args(Correction))}, not '{correction}'")
    if by not in ("subject", "case_id"):
        raise ParameterError(f"scores are paired by subject or case_id, not by '{by}'")
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, not at {level:g}")
    missing = [name for name in _NEEDED if name not in scores.columns]
    if missing:
        raise SchemaError(
            f"a comparison needs the columns {', '.join(_NEEDED)} of a score table; {missing[0]} is missing"
        )
    whole = scores[scores["slice"].isna()]
    methods = list(dict.fromkeys(whole["method"]))
    _check_names(whole, metric, label, baseline, methods)
    # A method that failed before its labels were known has a row without structure and metric.
    unlabelled = whole[whole["metric"] == ""]
    nowhere = set(zip(unlabelled["method"].astype(str), unlabelled["case_id"].astype(str), strict=True))
    rows = whole[whole["metric"] == metric]
    twice = rows[rows.duplicated([*_KEY, "method"])]
    if len(twice):
        first = twice.iloc[0]
        raise InputError(
            f"method '{first['method']}' has two scores of case '{first['case_id']}'; give methods of other parameters "
            "other names, and each table once"
        )
    pairs = list(combinations(methods, 2)) if baseline is None else [(baseline, m) for m in methods if m != baseline]
    labels = [label] if label is not None else list(dict.fromkeys(rows["label"]))
    unit = str(rows["unit"].iloc[0])
    found: list[dict[str, float | int | str]] = [
        {"label": name, "metric": metric, "unit": unit, "method": method, "baseline": other}
        | _paired(rows[rows["label"] == name], method, other, nowhere, by, test, level, seed)
        for name in labels
        for other, method in pairs
    ]
    table = pd.DataFrame(found).assign(level=level, test=test, correction=correction)
    corrected = adjusted_p(table["p"].to_numpy(), correction=correction)
    return table.assign(p_corrected=corrected)[list(COMPARISON_COLUMNS)]


def _check_names(
    scores: pd.DataFrame, metric: str, label: str | None, baseline: str | None, methods: Sequence[str]
) -> None:
    if len(methods) < 2:
        raise InputError(f"a comparison needs two or more methods, the scores are of {', '.join(methods) or 'none'}")
    if metric not in set(scores["metric"]) - {""}:
        raise unknown_name("metric", metric, set(scores["metric"]) - {""})
    if label is not None and label not in set(scores["label"]) - {""}:
        raise unknown_name("structure", label, set(scores["label"]) - {""})
    if baseline is not None and baseline not in methods:
        raise unknown_name("method", baseline, methods)


def _paired(
    rows: pd.DataFrame,
    method: str,
    baseline: str,
    nowhere: set[tuple[str, str]],
    by: str,
    test: Test,
    level: float,
    seed: int,
) -> dict[str, float | int | str]:
    """Statistics of one structure and one pair."""
    sides = {}
    for name, prefix in ((method, "a"), (baseline, "b")):
        mine = rows.loc[rows["method"] == name, [*_KEY, "value", "status"]]
        sides[prefix] = mine.rename(columns={"value": f"{prefix}_value", "status": f"{prefix}_status"})
    both = sides["a"].merge(sides["b"], on=_KEY, how="outer", sort=True)
    names = (method, baseline)
    values, status = both[["a_value", "b_value"]].to_numpy(), both[["a_status", "b_status"]].to_numpy()
    both["reason"] = [
        _reason(zip(names, v, s, strict=True), case_id, nowhere)
        for v, s, case_id in zip(values, status, both["case_id"], strict=True)
    ]
    used = both[both["reason"] == ""]
    of_subjects = used.groupby(by)[["a_value", "b_value"]].mean()
    lost = both[both["reason"] != ""]
    # Where both methods failed so early there is no row at all.
    silent = sorted({case_id for name, case_id in nowhere if name in names} - set(both["case_id"]))
    named = [f"{row.case_id}{' ' * bool(row.side)}{row.side}: {row.reason}" for row in lost.itertuples()]
    named += [f"{case_id}: failed" for case_id in silent]
    counts = {reason: int((lost["reason"] == reason).sum()) for reason in _REASONS}
    counts["failed"] += len(silent)
    return {
        "n": len(of_subjects),
        "scores": len(used),
        "value": float(of_subjects["a_value"].median()),
        "baseline_value": float(of_subjects["b_value"].median()),
        **_estimates(used, by, test, level, seed),
        **counts,
        "left_out": "; ".join(named),
    }


def _reason(scores: Iterable[tuple[str, float, Any]], case_id: str, nowhere: set[tuple[str, str]]) -> str:
    """Why a pair of (method, value, status) takes no part; empty if it does."""
    found = set()
    for method, value, status in scores:
        if not isinstance(status, str):  # the merge left a gap
            found.add("failed" if (method, case_id) in nowhere else "unpaired")
        elif status.startswith("failed"):
            found.add("failed")
        elif np.isnan(value):
            found.add("undefined")
        elif np.isinf(value):
            found.add("infinite")
    return next((reason for reason in _REASONS if reason in found), "")


def _estimates(rows: pd.DataFrame, by: str, test: Test, level: float, seed: int) -> dict[str, float]:
    """Difference, interval and test of paired scores."""
    names = ("difference", "low", "high", "mean_difference", "statistic", "p")
    found = dict.fromkeys(names, np.nan)
    differences = (rows["a_value"] - rows["b_value"]).groupby(rows[by]).mean()
    if not len(differences):
        return found
    found |= {"difference": float(differences.median()), "mean_difference": float(differences.mean())}
    if len(differences) == 1:
        return found
    pairs = rows["a_value"].to_numpy(), rows["b_value"].to_numpy()
    subjects = list(rows[by])
    ranks = wilcoxon_signed_rank(*pairs, subjects=subjects, level=level, seed=seed)
    found |= {"low": ranks.interval.low, "high": ranks.interval.high}
    if test == "wilcoxon":
        found |= {"statistic": ranks.statistic, "p": ranks.p}
    elif np.ptp(differences.to_numpy()) > 0:
        t = paired_t(*pairs, subjects=subjects, level=level)
        found |= {"statistic": t.statistic, "p": t.p}
    return found
