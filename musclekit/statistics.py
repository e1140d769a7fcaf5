"""Statistics of a study: paired tests, intervals by subject, agreement of two measurements.

Every result is a frozen record with the estimate, its interval, the number of observations, p where there is a test,
and what was left out, counted by reason. Values that are not finite take no part and are counted, never dropped in
silence. The functions stand on SciPy and statsmodels; what is written here is what those leave open: the unit that is
resampled, the conventions for ties and zeros, the intervals of intraclass correlations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from musclekit.errors import InputError, ParameterError

__all__ = [
    "Agreement",
    "BinComparison",
    "ConfidenceEllipse",
    "Correction",
    "Estimate",
    "Interval",
    "adjusted_p",
    "bland_altman",
    "bootstrap_by_subject",
    "confidence_ellipse",
    "intraclass_correlation",
    "mann_whitney_of_bins",
    "paired_t",
    "partial_correlation",
    "pearson",
    "wilcoxon_signed_rank",
]

Correction = Literal["holm", "bonferroni"]
Statistic = Literal["mean", "median"]
IccModel = Literal["2,1", "3,1"]
Floats = NDArray[np.float64]

#: Up to so many differences, without ties, the signed-rank test is exact.
EXACT_UP_TO = 50
#: Resamples of a bootstrap.
RESAMPLES = 10_000

_STATISTICS: Mapping[str, Callable[..., Any]] = {"mean": np.mean, "median": np.median}


@dataclass(frozen=True)
class Interval:
    """Confidence interval.

    Parameters
    ----------
    low, high : float
        Its ends; nan where there is none to be had.
    level : float
        Its confidence level, as 0.95.
    method : str
        How it was found: ``"t"``, ``"F"``, ``"Fisher z"``, ``"percentile bootstrap by subject"``.
    """

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class Estimate:
    """What a study says of one number.

    Parameters
    ----------
    name : str
        What was estimated, in words.
    estimate : float
        Its value.
    interval : Interval
        Its confidence interval.
    n : int
        Observations that took part.
    n_subjects : int
        Independent ones among them: the subjects. Equal to ``n`` where none were given.
    test : str
        The test and its variant; empty where there is none.
    statistic, p : float
        Of the test, two-sided but for an intraclass correlation; nan where there is none.
    left_out : mapping of str to int
        Why observations took no part, and how many: ``"nan"``, ``"infinite"``, ``"zero difference"`` (the last are left
        out of the test alone). Reasons without a case are not listed.
    """

    name: str
    estimate: float
    interval: Interval
    n: int
    n_subjects: int
    test: str = ""
    statistic: float = math.nan
    p: float = math.nan
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BinComparison:
    """Two neighbouring bins of one quantity, compared in another.

    Parameters
    ----------
    low, middle, high : float
        Edges: the first bin is [low, middle), the second [middle, high), closed at the very end of the range.
    comparison : Estimate
        Median of the second bin minus that of the first, with its bootstrap interval, and p of the Mann-Whitney test;
        nan where a bin is empty. ``n`` counts both bins.
    n_first, n_second : int
        Values in each bin.
    p_corrected : float
        p, corrected for all pairs of bins that could be tested.
    """

    low: float
    middle: float
    high: float
    comparison: Estimate
    n_first: int
    n_second: int
    p_corrected: float


@dataclass(frozen=True)
class Agreement:
    """Agreement of two measurements of the same things (Bland and Altman).

    Parameters
    ----------
    bias : Estimate
        Mean of first minus second, its t interval, and p of the paired t test.
    lower, upper : Estimate
        Limits of agreement, bias -/+ z sd, between which the ``level`` part of the differences is expected, each with
        its approximate t interval.
    sd : float
        Standard deviation of the differences (n - 1).
    slope : Estimate
        Proportional bias: slope of the difference over the mean of both measurements, by least squares, with its t
        interval and p; nan where all means are the same.
    """

    bias: Estimate
    lower: Estimate
    upper: Estimate
    sd: float
    slope: Estimate


@dataclass(frozen=True)
class ConfidenceEllipse:
    """Ellipse around the points of two quantities.

    Parameters
    ----------
    centre : tuple of float
        Mean of x and of y.
    semi_axes : tuple of float
        Longer and shorter half axis.
    angle : float
        From the x axis to the longer one, counter-clockwise, in degrees, over -90 to 90.
    level : float
        Part of a normal distribution's points that the ellipse holds.
    n : int
        Points that took part.
    left_out : mapping of str to int
        Points that did not, by reason.
    """

    centre: tuple[float, float]
    semi_axes: tuple[float, float]
    angle: float
    level: float
    n: int
    left_out: Mapping[str, int]


def _level(level: float) -> None:
    if not 0 < level < 1:
        raise ParameterError(f"the level of an interval lies between 0 and 1, not at {level:g}")


def _columns(what: str, *columns: ArrayLike) -> tuple[list[Floats], NDArray[np.bool_], dict[str, int]]:
    """Columns of equal length without the rows that have a value that is not finite; which are kept; those left out."""
    values = [np.asarray(column, dtype=np.float64) for column in columns]
    if any(column.ndim != 1 for column in values):
        raise InputError(f"{what} takes plain lists of numbers, not arrays of shape {values[0].shape}")
    if len({len(column) for column in values}) > 1:
        lengths = " and ".join(str(len(column)) for column in values)
        raise InputError(f"{what} takes pairs: the lists have {lengths} values")
    table = np.stack(values, axis=1).reshape(-1, len(values))
    undefined: NDArray[np.bool_] = np.any(np.isnan(table), axis=1)
    kept: NDArray[np.bool_] = np.all(np.isfinite(table), axis=1)
    infinite = ~kept & ~undefined
    return [column[kept] for column in values], kept, _counted(nan=undefined.sum(), infinite=infinite.sum())


def _counted(**reasons: int | np.integer[Any]) -> dict[str, int]:
    return {reason: int(count) for reason, count in reasons.items() if count}


def _enough(what: str, n: int, needed: int, left_out: Mapping[str, int], unit: str = "values") -> None:
    if n < needed:
        lost = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"{what} needs {needed} or more finite {unit}, not {n}" + (f" ({lost} left out)" if lost else "")
        )


def _subjects(what: str, subjects: Sequence[object] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of the subject of each value that is kept; each its own where none are given."""
    if subjects is None:
        return np.arange(int(kept.sum()))
    if len(subjects) != len(kept):
        raise InputError(f"{what} takes one subject a value: {len(subjects)} subjects for {len(kept)} values")
    for place, subject in enumerate(subjects, start=1):
        if subject is None or subject is pd.NA or subject != subject:  # what a table has where it has nothing
            raise InputError(f"{what}: value {place} has no subject")
    names = [str(subject) for subject, keep in zip(subjects, kept, strict=True) if keep]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _subject_means(values: Floats, numbers: NDArray[np.int64]) -> Floats:
    means: Floats = np.bincount(numbers, weights=values) / np.bincount(numbers)
    return means


def wilcoxon_signed_rank(
    first: ArrayLike,
    second: ArrayLike,
    *,
    subjects: Sequence[object] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Compare two paired lists by Wilcoxon's signed-rank test.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        Paired values, as the Dice of two methods on the same cases.
    subjects : sequence, optional, of length n
        Whose values they are. The differences of a subject are averaged first: two thighs of a person are not two
        samples. Every pair is a subject where not given.
    level : float
        Of the interval.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Estimate
        Median over subjects of first minus second, with its percentile bootstrap interval over subjects (10,000
        resamples); the smaller rank sum and two-sided p. ``n`` counts pairs.

    Raises
    ------
    InputError
        If the lengths differ, or fewer than two subjects have a finite pair.
    ParameterError
        If the level is not between 0 and 1.

    Notes
    -----
    Zero differences are left out of the test (Wilcoxon's own way) but not of the median, and counted. Without ties the
    distribution is exact up to 50 differences; otherwise it is the normal approximation with correction for ties,
    without one for continuity, as in SciPy. Where all differences are 0, p is 1.
    """
    what = "a signed-rank test"
    _level(level)
    (a, b), kept, left_out = _columns(what, first, second)
    numbers = _subjects(what, subjects, kept)
    difference = _subject_means(a - b, numbers) if len(a) else a
    _enough(what, len(difference), 2, left_out, "pairs" if subjects is None else "subjects")
    zero = int((difference == 0).sum())
    test, statistic, p = _signed_rank(difference[difference != 0])
    interval = _bootstrap(difference, np.arange(len(difference)), "median", level, seed)
    return Estimate(
        "median difference", float(np.median(difference)), interval, len(a), len(difference), test, statistic, p,
        left_out | ({"zero difference": zero} if zero else {}),
    )  # fmt: skip


def _signed_rank(nonzero: Floats) -> tuple[str, float, float]:
    """Variant, statistic and two-sided p."""
    if not len(nonzero):
        return "Wilcoxon signed-rank, no difference", 0.0, 1.0
    ties = len(np.unique(np.abs(nonzero))) < len(nonzero)
    exact = len(nonzero) <= EXACT_UP_TO and not ties
    found = stats.wilcoxon(nonzero, method="exact" if exact else "approx")
    variant = "exact" if exact else "normal approximation"
    return f"Wilcoxon signed-rank, {variant}", float(found.statistic), float(found.pvalue)


def paired_t(
    first: ArrayLike, second: ArrayLike, *, subjects: Sequence[object] | None = None, level: float = 0.95
) -> Estimate:
    """Compare two paired lists by the paired t test.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        Paired values.
    subjects : sequence, optional, of length n
        Whose values they are; the differences of a subject are averaged first.
    level : float
        Of the interval.

    Returns
    -------
    Estimate
        Mean over subjects of first minus second with its t interval; t and two-sided p. ``n`` counts pairs.

    Raises
    ------
    InputError
        If the lengths differ, fewer than two subjects have a finite pair, or all differences are the same.
    ParameterError
        If the level is not between 0 and 1.
    """
    what = "a paired t test"
    _level(level)
    (a, b), kept, left_out = _columns(what, first, second)
    numbers = _subjects(what, subjects, kept)
    difference = _subject_means(a - b, numbers) if len(a) else a
    _enough(what, len(difference), 2, left_out, "pairs" if subjects is None else "subjects")
    # Differences that are the same but for rounding have no spread: 0.9 - 0.8 is not quite 0.8 - 0.7.
    if np.ptp(difference) <= 8 * np.finfo(np.float64).eps * max(np.abs(a).max(), np.abs(b).max()):
        raise InputError(f"{what} needs differences that vary; all {len(difference)} are {difference[0]:g}")
    found = stats.ttest_1samp(difference, 0.0)
    ends = found.confidence_interval(level)
    interval = Interval(float(ends.low), float(ends.high), level, "t")
    return Estimate(
        "mean difference", float(difference.mean()), interval, len(a), len(difference), "paired t",
        float(found.statistic), float(found.pvalue), left_out,
    )  # fmt: skip


def bootstrap_by_subject(
    values: ArrayLike,
    subjects: Sequence[object] | None = None,
    *,
    statistic: Statistic = "median",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Estimate a mean or median with an interval that respects who the values come from.

    Parameters
    ----------
    values : array_like of float, shape (n,)
        One or more a subject.
    subjects : sequence, optional, of length n
        Whose they are; each its own where not given.
    statistic : {"median", "mean"}
        Of all values.
    level : float
        Of the interval.
    resamples : int
        How often subjects are drawn.
    seed : int
        Of the draws: the same seed, the same interval.

    Returns
    -------
    Estimate
        The statistic over all values, with the percentile interval of the cluster bootstrap: subjects are drawn with
        replacement, each with all of its values together.

    Raises
    ------
    InputError
        If the lengths differ, or fewer than two subjects have a finite value.
    ParameterError
        If the statistic, the level or the number of resamples does not exist.
    """
    what = "a bootstrap by subject"
    _level(level)
    if statistic not in get_args(Statistic):
        raise ParameterError(f"the statistic is one of {', '.join(get_args(Statistic))}, not '{statistic}'")
    if resamples < 1:
        raise ParameterError(f"resamples must be 1 or more, not {resamples}")
    (finite,), kept, left_out = _columns(what, values)
    numbers = _subjects(what, subjects, kept)
    n_subjects = len(np.unique(numbers))
    _enough(what, n_subjects, 2, left_out, "values" if subjects is None else "subjects")
    interval = _bootstrap(finite, numbers, statistic, level, seed, resamples)
    return Estimate(
        statistic, float(_STATISTICS[statistic](finite)), interval, len(finite), n_subjects, left_out=left_out
    )


def _bootstrap(
    values: Floats,
    numbers: NDArray[np.int64],
    statistic: Statistic,
    level: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile interval; `numbers` counts the subjects from 0."""
    n_subjects = int(numbers.max()) + 1
    picks = np.random.default_rng(seed).integers(0, n_subjects, (resamples, n_subjects))
    if statistic == "mean":
        # A mean of clusters is a ratio of sums.
        sums, sizes = np.bincount(numbers, weights=values), np.bincount(numbers)
        found = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    elif n_subjects == len(values):
        found = np.median(_subject_means(values, numbers)[picks], axis=1)
    else:
        groups = [values[numbers == subject] for subject in range(n_subjects)]
        found = np.array([np.median(np.concatenate([groups[subject] for subject in pick])) for pick in picks])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "percentile bootstrap by subject")


def adjusted_p(p: ArrayLike, *, correction: Correction = "holm") -> Floats:
    """Correct p values for their number.

    Parameters
    ----------
    p : array_like of float, shape (n,)
        Of the tests of one family; nan where there was nothing to test: it stays nan and does not count.
    correction : {"holm", "bonferroni"}
        Holm's steps are never less powerful than Bonferroni's.

    Returns
    -------
    ndarray of float64, shape (n,)
        Corrected p, at most 1.

    Raises
    ------
    ParameterError
        If the correction does not exist, or a p lies outside 0 to 1.
    """
    if correction not in get_args(Correction):
        raise ParameterError(f"the correction is one of {', '.join(get_args(Correction))}, not '{correction}'")
    given = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(given)
    if given.ndim != 1 or ((given[tested] < 0) | (given[tested] > 1)).any():
        raise ParameterError("p values are a list of numbers between 0 and 1, or nan")
    corrected = np.full(given.shape, np.nan)
    if tested.any():
        corrected[tested] = multipletests(given[tested], method=correction)[1]
    return corrected


def mann_whitney_of_bins(
    x: ArrayLike,
    y: ArrayLike,
    *,
    n_bins: int = 10,
    correction: Correction = "holm",
    level: float = 0.95,
    seed: int = 0,
) -> tuple[BinComparison, ...]:
    """Compare y between neighbouring bins of x by the Mann-Whitney U test.

    Parameters
    ----------
    x, y : array_like of float, shape (n,)
        As the uncertainty of a structure and its Dice.
    n_bins : int
        Bins of equal width over the range of x, 2 or more.
    correction : {"holm", "bonferroni"}
        Over all neighbours that could be tested.
    level : float
        Of the intervals.
    seed : int
        Of the bootstrap.

    Returns
    -------
    tuple of BinComparison, of length n_bins - 1
        In the order of x. Every record names what was left out of the whole.

    Raises
    ------
    InputError
        If the lengths differ, there are fewer than two finite pairs, or all x are the same.
    ParameterError
        If the number of bins, the correction or the level does not exist.

    Notes
    -----
    Hiasa et al., section III-B: ten bins. p is exact where a bin has 8 values or fewer and there are no ties, else of
    the normal approximation with corrections for ties and continuity (SciPy's rule). Values, not subjects, are
    compared and resampled: a subject's structures fall into several bins, so p is too small where they are alike.
    """
    what = "a comparison of bins"
    _level(level)
    if n_bins < 2:
        raise ParameterError(f"n_bins must be 2 or more, not {n_bins}")
    (across, along), _, left_out = _columns(what, x, y)
    _enough(what, len(across), 2, left_out, "pairs")
    if np.ptp(across) == 0:
        raise InputError(f"{what} needs x that vary; all {len(across)} are {across[0]:g}")
    edges = np.linspace(across.min(), across.max(), n_bins + 1)
    # The largest x belongs to the last bin.
    bins = np.minimum(np.searchsorted(edges, across, side="right") - 1, n_bins - 1)
    groups = [along[bins == k] for k in range(n_bins)]
    rng = np.random.default_rng(seed)
    found = [_two_groups(a, b, level, rng, left_out) for a, b in pairwise(groups)]
    corrected = adjusted_p([one.p for one in found], correction=correction)
    return tuple(
        BinComparison(
            float(edges[k]), float(edges[k + 1]), float(edges[k + 2]), one, len(groups[k]), len(groups[k + 1]), float(p)
        )
        for k, (one, p) in enumerate(zip(found, corrected, strict=True))
    )


def _two_groups(
    first: Floats, second: Floats, level: float, rng: np.random.Generator, left_out: Mapping[str, int]
) -> Estimate:
    name, n = "difference of medians", len(first) + len(second)
    if not len(first) or not len(second):
        nothing = Interval(math.nan, math.nan, level, "percentile bootstrap")
        return Estimate(name, math.nan, nothing, n, n, left_out=left_out)
    medians = [np.median(g[rng.integers(0, len(g), (RESAMPLES, len(g)))], axis=1) for g in (first, second)]
    low, high = np.quantile(medians[1] - medians[0], [(1 - level) / 2, (1 + level) / 2])
    test = stats.mannwhitneyu(second, first, alternative="two-sided", method="auto")
    return Estimate(
        name, float(np.median(second) - np.median(first)),
        Interval(float(low), float(high), level, "percentile bootstrap"), n, n, "Mann-Whitney U",
        float(test.statistic), float(test.pvalue), left_out,
    )  # fmt: skip


def intraclass_correlation(ratings: ArrayLike, *, model: IccModel = "2,1", level: float = 0.95) -> Estimate:
    """Intraclass correlation of single ratings (Shrout and Fleiss).

    Parameters
    ----------
    ratings : array_like of float, shape (subjects, raters)
        Every rater rates every subject; a row with a value that is not finite is left out and counted.
    model : {"2,1", "3,1"}
        ``"2,1"``: raters drawn at random, absolute agreement; ``"3,1"``: these very raters, consistency.
    level : float
        Of the interval.

    Returns
    -------
    Estimate
        The coefficient with its F interval; F of subjects against residuals and its one-sided p (is there any
        correlation?). ``n`` counts subjects.

    Raises
    ------
    InputError
        If there are fewer than two subjects with all ratings or fewer than two raters, or all subjects are rated alike.
    ParameterError
        If the model or the level does not exist.

    Notes
    -----
    Shrout and Fleiss (1979); the interval of ICC(2,1) by Satterthwaite's degrees of freedom (McGraw and Wong, 1996).
    Without any residual the interval is the point itself; where the degrees of freedom vanish, as they may with raters
    who contradict each other, the interval of ICC(2,1) is nan.
    """
    what = "an intraclass correlation"
    _level(level)
    if model not in get_args(IccModel):
        raise ParameterError(f"the model is one of {'; '.join(get_args(IccModel))}, not '{model}'")
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise InputError(f"{what} takes a table of subjects by two or more raters, not of shape {table.shape}")
    columns, _, left_out = _columns(what, *table.T)
    table = np.stack(columns, axis=1)
    n, k = table.shape
    _enough(what, n, 2, left_out, "subjects")
    centre = table.mean()
    rows, cols = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    subjects = k * float(((rows - centre) ** 2).sum()) / (n - 1)
    raters = n * float(((cols - centre) ** 2).sum()) / (k - 1)
    freedom = (n - 1) * (k - 1)
    residual = float(((table - rows - cols + centre) ** 2).sum()) / freedom
    # Rounding leaves some 1e-32 of nothing.
    nothing = 1e-20 * float(np.square(table).mean())
    subjects, raters, residual = (0.0 if square < nothing else square for square in (subjects, raters, residual))
    if not subjects and not residual:
        raise InputError(f"{what} needs subjects that differ; every rater gave all {n} the same")
    f = subjects / residual if residual else math.inf
    if model == "3,1":
        estimate = (subjects - residual) / (subjects + (k - 1) * residual)
        low, high = _icc3_ends(f, n, k, level)
    else:
        total = subjects + (k - 1) * residual + k * (raters - residual) / n
        if not total:
            raise InputError(f"{what} of absolute agreement cannot be told: two raters swap the values of two subjects")
        estimate = (subjects - residual) / total
        low, high = _icc2_ends(subjects, raters, residual, estimate, n, k, level)
    p = float(stats.f.sf(f, n - 1, freedom))
    interval = Interval(low, high, level, "F")
    return Estimate(f"ICC({model})", estimate, interval, n, n, "F, subjects against residuals", f, p, left_out)


def _icc3_ends(f: float, n: int, k: int, level: float) -> tuple[float, float]:
    if math.isinf(f):
        return 1.0, 1.0
    upper, freedom = (1 + level) / 2, (n - 1) * (k - 1)
    f_low = f / float(stats.f.ppf(upper, n - 1, freedom))
    f_high = f * float(stats.f.ppf(upper, freedom, n - 1))
    return (f_low - 1) / (f_low + k - 1), (f_high - 1) / (f_high + k - 1)


def _icc2_ends(
    subjects: float, raters: float, residual: float, icc: float, n: int, k: int, level: float
) -> tuple[float, float]:
    upper = (1 + level) / 2
    if not residual and not raters:
        return 1.0, 1.0
    # McGraw and Wong's a and b, multiplied by n (1 - icc) so that a perfect rater does not divide by nothing.
    a = k * icc
    b = n * (1 - icc) + k * icc * (n - 1)
    spread = (a * raters) ** 2 / (k - 1) + (b * residual) ** 2 / ((n - 1) * (k - 1))
    if not spread:
        return math.nan, math.nan
    freedom = (a * raters + b * residual) ** 2 / spread
    below, above = float(stats.f.ppf(upper, n - 1, freedom)), float(stats.f.ppf(upper, freedom, n - 1))
    rest = k * raters + (k * n - k - n) * residual
    low = n * (subjects - below * residual) / (below * rest + n * subjects)
    high = n * (above * subjects - residual) / (rest + n * above * subjects)
    return low, high


def bland_altman(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Agreement:
    """Agreement of two measurements: bias, limits of agreement and proportional bias.

    Parameters
    ----------
    first, second : array_like of float, shape (n,)
        Two measurements of each thing, as the volume predicted and that of the reference. One pair a subject: pairs of
        one person make the limits look surer than they are.
    level : float
        Of all intervals, and the part of the differences between the limits (0.95: 1.96 standard deviations).

    Returns
    -------
    Agreement
        Differences are first minus second.

    Raises
    ------
    InputError
        If the lengths differ, or there are fewer than three finite pairs.
    ParameterError
        If the level is not between 0 and 1.

    Notes
    -----
    Bland and Altman (1986; 1999): variance of a limit s^2 (1 / n + z^2 / (2 (n - 1))), with t of n - 1 degrees of
    freedom. The slope is that of the ordinary regression on the mean of both.
    """
    what = "a Bland-Altman analysis"
    _level(level)
    (a, b), _, left_out = _columns(what, first, second)
    _enough(what, len(a), 3, left_out, "pairs")
    n, difference, mean = len(a), a - b, (a + b) / 2
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t, z = float(stats.t.ppf((1 + level) / 2, n - 1)), float(stats.norm.ppf((1 + level) / 2))
    error, limit_error = sd / math.sqrt(n), sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))

    def around(name: str, value: float, half: float) -> Estimate:
        return Estimate(name, value, Interval(value - half, value + half, level, "t"), n, n, left_out=left_out)

    statistic = bias / error if sd else math.nan
    p = 2 * float(stats.t.sf(abs(statistic), n - 1)) if sd else math.nan
    half = t * error
    interval = Interval(bias - half, bias + half, level, "t")
    return Agreement(
        Estimate("bias", bias, interval, n, n, "paired t" if sd else "", statistic, p, left_out),
        around("lower limit of agreement", bias - z * sd, t * limit_error),
        around("upper limit of agreement", bias + z * sd, t * limit_error),
        sd,
        _slope(mean, difference, level, left_out),
    )


def _slope(x: Floats, y: Floats, level: float, left_out: Mapping[str, int]) -> Estimate:
    name, n = "slope of the difference over the mean", len(x)
    if np.ptp(x) == 0:
        return Estimate(name, math.nan, Interval(math.nan, math.nan, level, "t"), n, n, left_out=left_out)
    line = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + level) / 2, n - 2)) * float(line.stderr)
    interval = Interval(float(line.slope) - half, float(line.slope) + half, level, "t")
    t = float(line.slope) / float(line.stderr) if line.stderr else math.nan
    return Estimate(name, float(line.slope), interval, n, n, "t of the slope", t, float(line.pvalue), left_out)


def pearson(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Pearson's correlation with Fisher's interval.

    Parameters
    ----------
    x, y : array_like of float, shape (n,)
        Pairs, independent of one another.
    level : float
        Of the interval.

    Returns
    -------
    Estimate
        r, its interval by Fisher's z (nan to nan with three pairs), and the two-sided p of the exact test of r = 0.

    Raises
    ------
    InputError
        If the lengths differ, there are fewer than three finite pairs, or x or y does not vary.
    ParameterError
        If the level is not between 0 and 1.
    """
    (a, b), left_out = _varying("a correlation", x, y, level)
    found = stats.pearsonr(a, b)
    r, n = float(found.statistic), len(a)
    low, high = math.nan, math.nan
    if abs(r) >= 1:
        low = high = r
    elif n > 3:
        half = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(n - 3)
        low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    interval = Interval(low, high, level, "Fisher z")
    return Estimate("Pearson r", r, interval, n, n, "t of r", _t_of_r(r, n), float(found.pvalue), left_out)


def _t_of_r(r: float, n: int) -> float:
    return r * math.sqrt((n - 2) / (1 - r**2)) if abs(r) < 1 else math.copysign(math.inf, r)


def _varying(what: str, x: ArrayLike, y: ArrayLike, level: float) -> tuple[tuple[Floats, Floats], dict[str, int]]:
    _level(level)
    (a, b), _, left_out = _columns(what, x, y)
    _enough(what, len(a), 3, left_out, "pairs")
    for name, values in (("x", a), ("y", b)):
        if np.ptp(values) == 0:
            raise InputError(f"{what} needs {name} that vary; all {len(values)} are {values[0]:g}")
    return (a, b), left_out


def confidence_ellipse(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> ConfidenceEllipse:
    """Ellipse that holds a given part of the points of a bivariate normal distribution with their mean and covariance.

    Parameters
    ----------
    x, y : array_like of float, shape (n,)
        Pairs.
    level : float
        The part it holds.

    Returns
    -------
    ConfidenceEllipse
        Around the points, not around their mean.

    Raises
    ------
    InputError
        If the lengths differ, there are fewer than three finite pairs, or x or y does not vary.
    ParameterError
        If the level is not between 0 and 1.

    Notes
    -----
    As drawn by Hiasa et al.: half axes are the square roots of the eigenvalues of the covariance (n - 1) times the
    chi-squared quantile of two degrees of freedom, which takes mean and covariance as known.
    """
    (a, b), left_out = _varying("an ellipse", x, y, level)
    values, vectors = np.linalg.eigh(np.cov(a, b))
    scale = float(stats.chi2.ppf(level, 2))
    short, long = (math.sqrt(max(0.0, float(value)) * scale) for value in values)
    across, up = (float(part) for part in vectors[:, 1])
    # A line has two directions; the one to the right is told.
    angle = math.degrees(math.atan2(up, across))
    angle = angle - 180 if angle > 90 else angle + 180 if angle <= -90 else angle
    return ConfidenceEllipse((float(a.mean()), float(b.mean())), (long, short), angle, level, len(a), left_out)


def partial_correlation(x: ArrayLike, y: ArrayLike, given: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Pearson's correlation of what a third quantity leaves of two, with Fisher's interval.

    Parameters
    ----------
    x, y : array_like of float, shape (n,)
        Pairs, independent of one another, as PSV and Dice.
    given : array_like of float, shape (n,)
        What both may depend on, as the volume of the structure. Its line is taken out of x and of y.
    level : float
        Of the interval.

    Returns
    -------
    Estimate
        Partial r, its interval by Fisher's z with a standard error of 1 / sqrt(n - 4) (nan to nan with four triples),
        and the two-sided p of the t test with n - 3 degrees of freedom.

    Raises
    ------
    InputError
        If the lengths differ, there are fewer than four finite triples, or x, y or given does not vary, or x or y lies
        on a line over given.
    ParameterError
        If the level is not between 0 and 1.

    Notes
    -----
    Fisher (1924): with one quantity taken out, the correlation is distributed as that of n - 1 pairs.
    """
    what = "a partial correlation"
    _level(level)
    columns, _, left_out = _columns(what, x, y, given)
    n = len(columns[0])
    _enough(what, n, 4, left_out, "triples")
    for name, values in zip(("x", "y", "given"), columns, strict=True):
        if np.ptp(values) == 0:
            raise InputError(f"{what} needs {name} that vary; all {n} are {values[0]:g}")
    a, b, c = (values - values.mean() for values in columns)
    a, b = (values - (values @ c) / (c @ c) * c for values in (a, b))
    for name, rest, values in (("x", a, columns[0]), ("y", b, columns[1])):
        # Rounding leaves some 1e-16 of a line.
        if np.linalg.norm(rest) <= 1e-12 * np.linalg.norm(values):
            raise InputError(f"{what} needs {name} that vary beyond given; here given tells {name} exactly")
    r = float(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1, 1))
    low, high = math.nan, math.nan
    if abs(r) >= 1:
        low = high = r
    elif n > 4:
        half = float(stats.norm.ppf((1 + level) / 2)) / math.sqrt(n - 4)
        low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    t = _t_of_r(r, n - 1)
    interval = Interval(low, high, level, "Fisher z")
    return Estimate("partial r", r, interval, n, n, "t of r", t, 2 * float(stats.t.sf(abs(t), n - 3)), left_out)
