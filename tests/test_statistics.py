from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from musclekit import statistics
from musclekit.errors import InputError, ParameterError
from musclekit.statistics import (
    adjusted_p,
    bland_altman,
    bootstrap_by_subject,
    confidence_ellipse,
    intraclass_correlation,
    mann_whitney_of_bins,
    paired_t,
    partial_correlation,
    pearson,
    wilcoxon_signed_rank,
)

#: Shrout and Fleiss (1979), table 2: six targets, four judges.
SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def two_methods(n: int = 14, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    second = rng.uniform(0.5, 0.9, n)
    return second + rng.normal(0.03, 0.05, n), second


# Paired tests


def test_the_signed_rank_test_is_exact_for_a_small_study() -> None:
    # Five differences of one sign: 2 of 32 orders are as extreme.
    found = wilcoxon_signed_rank([1.1, 1.2, 1.3, 1.4, 1.5], np.ones(5))
    assert found.p == pytest.approx(2 / 32)
    assert found.statistic == 0
    assert found.estimate == pytest.approx(0.3)
    assert found.test == "Wilcoxon signed-rank, exact"
    assert (found.n, found.n_subjects, found.left_out) == (5, 5, {})


@pytest.mark.parametrize("n", [6, 20, 60])
def test_the_signed_rank_test_is_scipys(n: int) -> None:
    a, b = two_methods(n)
    expected = stats.wilcoxon(a, b, method="exact" if n <= 50 else "approx")
    found = wilcoxon_signed_rank(a, b)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert ("normal" in found.test) == (n > 50)


def test_ties_take_the_normal_approximation() -> None:
    a, b = np.array([3.0, 2, 5, 4, 7, 1, 6]), np.array([1.0, 4, 3, 1, 2, 1, 1])  # differences 2 -2 2 3 5 0 5
    found = wilcoxon_signed_rank(a, b)
    expected = stats.wilcoxon(a - b, zero_method="wilcox", method="approx")
    assert found.p == pytest.approx(expected.pvalue)
    assert found.test == "Wilcoxon signed-rank, normal approximation"
    assert found.left_out == {"zero difference": 1}
    assert found.estimate == 2.0  # the zero counts in the median


def test_no_difference_at_all_has_p_1() -> None:
    found = wilcoxon_signed_rank([0.8, 0.9, 0.7], [0.8, 0.9, 0.7])
    assert (found.p, found.estimate, found.left_out) == (1.0, 0.0, {"zero difference": 3})


def test_the_median_has_the_bootstrap_interval_of_scipy() -> None:
    a, b = two_methods(15)
    found = wilcoxon_signed_rank(a, b, level=0.9)
    expected = stats.bootstrap(
        (a - b,), np.median, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), abs=0.006)
    assert found.interval.level == 0.9
    assert found.interval.method == "percentile bootstrap by subject"
    assert found.interval == wilcoxon_signed_rank(a, b, level=0.9).interval
    assert found.interval != wilcoxon_signed_rank(a, b, level=0.5).interval


@pytest.mark.parametrize("test", [wilcoxon_signed_rank, paired_t])
def test_two_thighs_of_a_person_are_one_observation(test: Any) -> None:
    a, b = two_methods(16)
    subjects = [f"s{k // 2}" for k in range(16)]
    found = test(a, b, subjects=subjects)
    means = test(a.reshape(8, 2).mean(axis=1), b.reshape(8, 2).mean(axis=1))
    assert (found.n, found.n_subjects) == (16, 8)
    assert (found.estimate, found.p, found.interval.low) == pytest.approx((means.estimate, means.p, means.interval.low))


def test_the_t_test_is_scipys() -> None:
    a, b = two_methods()
    found, expected = paired_t(a, b, level=0.99), stats.ttest_rel(a, b)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    ends = expected.confidence_interval(0.99)
    assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))
    assert found.estimate == pytest.approx((a - b).mean())
    assert not found.left_out


def test_the_t_test_of_student() -> None:
    # Student (1908): hours of sleep gained by ten patients from two drugs; t = 4.0621, p = .00283.
    first = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    second = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    found = paired_t(first, second)
    assert (found.statistic, found.p) == pytest.approx((4.0621, 0.002833), abs=1e-4)
    assert (found.estimate, found.interval.low, found.interval.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=1e-4)


@pytest.mark.parametrize("test", [wilcoxon_signed_rank, paired_t])
def test_pairs_without_a_number_are_counted(test: Any) -> None:
    a, b = two_methods()
    lost_a, lost_b = np.append(a, [np.nan, 1, np.inf, np.nan]), np.append(b, [1, np.nan, 1, np.inf])
    found = test(lost_a, lost_b)
    assert found.left_out == {"nan": 3, "infinite": 1}
    assert (found.n, found.p) == (len(a), test(a, b).p)


@pytest.mark.parametrize("test", [wilcoxon_signed_rank, paired_t])
def test_pairs_that_cannot_be_tested(test: Any) -> None:
    with pytest.raises(InputError, match="takes pairs: the lists have 3 and 2 values"):
        test([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match=r"needs 2 or more finite pairs, not 1 \(1 nan left out\)"):
        test([1, np.nan], [1, 2])
    with pytest.raises(InputError, match="needs 2 or more finite pairs, not 0"):
        test([], [])
    with pytest.raises(InputError, match="needs 2 or more finite subjects, not 1"):
        test([1, 2], [3, 5], subjects=["a", "a"])
    with pytest.raises(InputError, match="takes one subject a value: 1 subjects for 2 values"):
        test([1, 2], [3, 5], subjects=["a"])
    with pytest.raises(InputError, match=r"takes plain lists of numbers, not arrays of shape \(2, 2\)"):
        test(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ParameterError, match="level of an interval lies between 0 and 1, not at 95"):
        test([1, 2, 3], [2, 2, 5], level=95)


def test_a_t_test_needs_differences_that_vary() -> None:
    with pytest.raises(InputError, match="a paired t test needs differences that vary; all 3 are 1"):
        paired_t([2, 3, 4], [1, 2, 3])
    with pytest.raises(InputError, match=r"needs differences that vary; all 3 are 0\.1"):
        paired_t([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])


# Correction


@pytest.mark.parametrize(
    ("correction", "expected"),
    [("bonferroni", [0.04, 0.16, 0.12, 0.02]), ("holm", [0.03, 0.06, 0.06, 0.02])],
)
def test_corrections_worked_by_hand(correction: Any, expected: list[float]) -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(adjusted_p(p, correction=correction), expected)
    with_gap = adjusted_p([0.01, np.nan, 0.04, 0.03, 0.005], correction=correction)
    np.testing.assert_allclose(with_gap, [expected[0], np.nan, *expected[1:]])


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1)))
def test_holm_never_asks_for_more_than_bonferroni(p: NDArray[np.float64]) -> None:
    holm, bonferroni = adjusted_p(p), adjusted_p(p, correction="bonferroni")
    assert (holm <= bonferroni + 1e-15).all()
    assert (holm >= p).all()
    np.testing.assert_allclose(holm, multipletests(p, method="holm")[1])


def test_corrections_refuse_what_is_no_p() -> None:
    assert np.isnan(adjusted_p([np.nan])).all()
    assert not len(adjusted_p([]))
    with pytest.raises(ParameterError, match="the correction is one of holm, bonferroni, not 'fdr'"):
        adjusted_p([0.1], correction="fdr")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="p values are a list of numbers between 0 and 1"):
        adjusted_p([0.1, 1.2])


# Bootstrap


def test_a_subject_is_drawn_with_all_its_values() -> None:
    # Within a subject the values are alike: the interval must be as wide as if each had one value.
    rng = np.random.default_rng(1)
    level = rng.normal(0, 1, 12)
    repeated, subjects = np.repeat(level, 20), np.array([f"s{k:02}" for k in range(12) for _ in range(20)])
    for statistic in ("mean", "median"):
        clustered = bootstrap_by_subject(repeated, subjects.tolist(), statistic=statistic, resamples=2000)
        single = bootstrap_by_subject(level, statistic=statistic, resamples=2000)
        naive = bootstrap_by_subject(repeated, statistic=statistic, resamples=2000)
        assert (clustered.n, clustered.n_subjects) == (240, 12)
        assert clustered.estimate == pytest.approx(single.estimate)
        assert clustered.interval.low == pytest.approx(single.interval.low)
        assert clustered.interval.high == pytest.approx(single.interval.high)
        width, naive_width = (found.interval.high - found.interval.low for found in (clustered, naive))
        assert width > 1.5 * naive_width


def test_unequal_subjects_are_pooled_value_by_value() -> None:
    # Two subjects: a draw is a a, a b, b a or b b, with chances 1/4, 1/2, 1/4.
    values, subjects = [0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"]
    found = bootstrap_by_subject(values, subjects, statistic="mean", level=0.4)
    assert found.estimate == 1.0
    assert (found.interval.low, found.interval.high) == (1.0, 1.0)
    wide = bootstrap_by_subject(values, subjects, statistic="mean")
    assert (wide.interval.low, wide.interval.high) == (0.0, 4.0)


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        subject_means = np.repeat(rng.normal(0, 1, 25), 2)
        values = subject_means + rng.normal(0, 0.3, 50)
        found = bootstrap_by_subject(values, np.repeat(np.arange(25), 2).tolist(), statistic="mean", resamples=600)
        hits += found.interval.low <= 0 <= found.interval.high
    assert 0.87 <= hits / 300 <= 0.98


def test_the_order_of_values_does_not_matter_to_the_bootstrap() -> None:
    values, subjects = np.arange(12.0), np.repeat(["c", "a", "b", "d"], 3)
    order = np.random.default_rng(0).permutation(12)
    first = bootstrap_by_subject(values, subjects.tolist())
    assert first == bootstrap_by_subject(values[order], subjects[order].tolist())
    assert first.interval != bootstrap_by_subject(values, subjects.tolist(), seed=1, resamples=50).interval


def test_a_bootstrap_says_what_it_cannot_do() -> None:
    assert bootstrap_by_subject([1, 2, np.nan], ["a", "b", "b"]).left_out == {"nan": 1}
    with pytest.raises(ParameterError, match="the statistic is one of mean, median, not 'mode'"):
        bootstrap_by_subject([1, 2], statistic="mode")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="resamples must be 1 or more, not 0"):
        bootstrap_by_subject([1, 2], resamples=0)
    with pytest.raises(InputError, match=r"needs 2 or more finite subjects, not 1 \(1 infinite left out\)"):
        bootstrap_by_subject([1, 2, np.inf], ["a", "a", "b"])
    for nobody in (None, np.nan, pd.NA):
        with pytest.raises(InputError, match="a bootstrap by subject: value 2 has no subject"):
            bootstrap_by_subject([1, 2, 3], ["a", nobody, "b"])
    with pytest.raises(InputError, match="needs 2 or more finite values, not 0"):
        bootstrap_by_subject([])


# Bins


def test_neighbouring_bins_are_compared_by_mann_whitney() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, 200)
    x[:2] = 0, 1
    y = 1 - 0.5 * x + rng.normal(0, 0.1, 200)
    found = mann_whitney_of_bins(x, y, n_bins=4)
    assert len(found) == 3
    for k, one in enumerate(found):
        assert (one.low, one.middle, one.high) == pytest.approx((k / 4, (k + 1) / 4, (k + 2) / 4))
        first = y[(x >= one.low) & (x < one.middle)]
        second = y[(x >= one.middle) & ((x < one.high) | (k == 2))]
        assert (one.n_first, one.n_second) == (len(first), len(second))
        assert one.comparison.estimate == pytest.approx(np.median(second) - np.median(first))
        expected = stats.mannwhitneyu(second, first)
        assert (one.comparison.statistic, one.comparison.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert one.comparison.interval.low < one.comparison.estimate < one.comparison.interval.high
    np.testing.assert_allclose([one.p_corrected for one in found], adjusted_p([one.comparison.p for one in found]))
    assert sum(one.n_first for one in found) + found[-1].n_second == 200


def test_an_empty_bin_has_no_p_and_is_not_corrected_for() -> None:
    found = mann_whitney_of_bins([0, 0.1, 0.2, 1, 1.1, 2.9, 3], [1, 2, 3, 4, 5, 6, 7.0], n_bins=3)
    assert [one.n_first for one in found] == [3, 2]
    empty = mann_whitney_of_bins([0, 0.1, 2.9, 3, np.nan], [1, 2, 6, 7.0, 1], n_bins=3)
    assert [(one.n_first, one.n_second) for one in empty] == [(2, 0), (0, 2)]
    assert all(math.isnan(one.comparison.p) and math.isnan(one.p_corrected) for one in empty)
    assert all(one.comparison.left_out == {"nan": 1} for one in empty)


def test_bins_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match="n_bins must be 2 or more, not 1"):
        mann_whitney_of_bins([1, 2, 3], [1, 2, 3], n_bins=1)
    with pytest.raises(InputError, match="a comparison of bins needs x that vary; all 3 are 2"):
        mann_whitney_of_bins([2, 2, 2], [1, 2, 3])
    with pytest.raises(InputError, match="needs 2 or more finite pairs, not 0"):
        mann_whitney_of_bins([np.nan], [1.0])


# Intraclass correlation


@pytest.mark.parametrize(
    ("model", "icc", "low", "high"), [("2,1", 0.2898, 0.0188, 0.7611), ("3,1", 0.7148, 0.3425, 0.9459)]
)
def test_the_example_of_shrout_and_fleiss(model: Any, icc: float, low: float, high: float) -> None:
    found = intraclass_correlation(SHROUT_FLEISS, model=model)
    assert found.estimate == pytest.approx(icc, abs=5e-5)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=5e-5)
    assert found.statistic == pytest.approx(11.027, abs=1e-3)
    assert found.p == pytest.approx(0.000135, abs=1e-6)
    assert (found.n, found.interval.method) == (6, "F")


@pytest.mark.filterwarnings("ignore")  # pingouin's, on import and on its own data frames
@pytest.mark.parametrize("shape", [(6, 4), (20, 2), (5, 3)])
def test_pingouin_agrees(shape: tuple[int, int]) -> None:
    pingouin = pytest.importorskip("pingouin")
    rng = np.random.default_rng(shape[0])
    table = rng.normal(10, 2, (shape[0], 1)) + rng.normal(0, 1, (1, shape[1])) + rng.normal(0, 1, shape)
    long = pd.DataFrame(table).reset_index(names="s").melt(id_vars="s", var_name="r", value_name="v")
    peer = pingouin.intraclass_corr(long, targets="s", raters="r", ratings="v")
    peer = peer.set_index(peer["Type"].str.replace(r"[^0-9A-Z]", "", regex=True))
    for model, name in (("2,1", "ICCA1"), ("3,1", "ICCC1")):
        row = peer.loc[name] if name in peer.index else peer.loc["ICC" + model[0]]
        found = intraclass_correlation(table, model=model)
        assert found.estimate == pytest.approx(row["ICC"], abs=1e-6)
        ends = row[next(column for column in peer.columns if column.startswith("CI95"))]
        assert (found.interval.low, found.interval.high) == pytest.approx(tuple(ends), abs=0.0051)  # it rounds
        assert found.statistic == pytest.approx(row["F"], rel=1e-6)


def test_absolute_agreement_sees_a_rater_who_reads_too_high() -> None:
    truth = np.arange(10.0)
    assert intraclass_correlation(np.stack([truth, truth + 3], axis=1), model="3,1").estimate == pytest.approx(1.0)
    shifted = intraclass_correlation(np.stack([truth, truth + 3], axis=1), model="2,1")
    assert shifted.estimate < 0.7
    assert shifted.interval.low <= shifted.estimate <= shifted.interval.high
    perfect = intraclass_correlation(np.stack([truth, truth], axis=1), model="2,1")
    assert (perfect.estimate, perfect.interval.low, perfect.interval.high, perfect.p) == (1.0, 1.0, 1.0, 0.0)


def test_a_row_with_a_gap_is_counted() -> None:
    found = intraclass_correlation([*SHROUT_FLEISS, [1, 2, np.nan, 3], [1, np.inf, 2, 2]])
    assert found.left_out == {"nan": 1, "infinite": 1}
    assert found.estimate == intraclass_correlation(SHROUT_FLEISS).estimate


def test_correlations_that_cannot_be() -> None:
    with pytest.raises(ParameterError, match="the model is one of 2,1; 3,1, not '1,1'"):
        intraclass_correlation(SHROUT_FLEISS, model="1,1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a table of subjects by two or more raters, not of shape \(3,\)"):
        intraclass_correlation([1, 2, 3])
    with pytest.raises(InputError, match=r"needs 2 or more finite subjects, not 1 \(1 nan left out\)"):
        intraclass_correlation([[1, 2], [np.nan, 3]])
    with pytest.raises(InputError, match="needs subjects that differ; every rater gave all 3 the same"):
        intraclass_correlation([[1, 2], [1, 2], [1, 2]])
    with pytest.raises(InputError, match="of absolute agreement cannot be told: two raters swap the values of two"):
        intraclass_correlation([[1, 2], [2, 1]])


def test_raters_who_contradict_each_other() -> None:
    swapped = intraclass_correlation([[1, 2], [2, 1]], model="3,1")
    assert (swapped.estimate, swapped.p) == (-1.0, 1.0)
    turned = intraclass_correlation([[1, 2, 3], [2, 3, 1], [3, 1, 2]], model="2,1")
    assert turned.estimate == pytest.approx(-1.0)
    assert math.isnan(turned.interval.low)


# Bland and Altman


def test_limits_of_agreement_worked_by_hand() -> None:
    found = bland_altman([1.0, 2, 3, 6], [0.0, 2, 4, 2])  # differences 1 0 -1 4, mean 1, variance 14 / 3
    sd = math.sqrt(14 / 3)
    assert found.bias.estimate == pytest.approx(1.0)
    assert found.sd == pytest.approx(sd)
    assert (found.lower.estimate, found.upper.estimate) == pytest.approx((1 - 1.959964 * sd, 1 + 1.959964 * sd))
    half = stats.t.ppf(0.975, 3) * sd * math.sqrt(1 / 4 + 1.959964**2 / 6)
    assert found.upper.interval.high - found.upper.estimate == pytest.approx(half)
    assert found.lower.estimate - found.lower.interval.low == pytest.approx(half)


def test_the_bias_is_that_of_the_paired_t_test() -> None:
    a, b = two_methods()
    found, expected = bland_altman(a, b).bias, paired_t(a, b)
    assert (found.p, found.statistic) == pytest.approx((expected.p, expected.statistic))
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.interval.low, expected.interval.high))


def test_limits_hold_the_part_of_differences_they_promise() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(2, 3, 20_000)
    for level in (0.8, 0.95):
        found = bland_altman(difference, np.zeros(20_000), level=level)
        inside = (difference > found.lower.estimate) & (difference < found.upper.estimate)
        assert inside.mean() == pytest.approx(level, abs=0.01)


def test_proportional_bias_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(100, 300, 30)
    grows = bland_altman(1.2 * truth + rng.normal(0, 2, 30), truth)
    assert grows.slope.estimate == pytest.approx(0.2 / 1.1, abs=0.02)
    assert grows.slope.p < 1e-6
    assert grows.slope.interval.low < 0.2 / 1.1 < grows.slope.interval.high
    even = bland_altman(truth + 5 + rng.normal(0, 2, 30), truth)
    assert even.slope.interval.low < 0 < even.slope.interval.high


def test_agreement_at_the_edges() -> None:
    same = bland_altman([1, 2, 3, np.nan], [1, 2, 3, 4])
    assert (same.bias.estimate, same.sd, same.lower.estimate) == (0, 0, 0)
    assert math.isnan(same.bias.p)
    assert same.bias.left_out == same.upper.left_out == same.slope.left_out == {"nan": 1}
    mirrored = bland_altman([1, 2, 3], [3, 2, 1])
    assert math.isnan(mirrored.slope.estimate)
    with pytest.raises(InputError, match="a Bland-Altman analysis needs 3 or more finite pairs, not 2"):
        bland_altman([1, 2], [1, 3])
    with pytest.raises(InputError, match="the lists have 2 and 3 values"):
        bland_altman([1, 2], [1, 3, 4])


# Correlation


@pytest.mark.parametrize("n", [4, 30])
def test_pearson_is_scipys(n: int) -> None:
    a, b = two_methods(n)
    found, expected = pearson(a, b, level=0.9), stats.pearsonr(a, b)
    ends = expected.confidence_interval(0.9)
    assert (found.estimate, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))
    assert 2 * stats.t.sf(abs(found.statistic), n - 2) == pytest.approx(found.p)


def test_pearson_at_the_edges() -> None:
    straight = pearson([1, 2, 3, 4, np.inf], [2, 4, 6, 8, 1])
    assert straight.estimate == pytest.approx(1.0)
    assert straight.interval.low == pytest.approx(1.0)
    assert straight.left_out == {"infinite": 1}
    three = pearson([1, 2, 3], [1, 2, 2.5])
    assert math.isnan(three.interval.low)
    with pytest.raises(InputError, match="a correlation needs y that vary; all 3 are 5"):
        pearson([1, 2, 3], [5, 5, 5])
    with pytest.raises(InputError, match="a correlation needs 3 or more finite pairs, not 2"):
        pearson([1, 2], [5, 6])


def test_an_ellipse_along_a_known_axis() -> None:
    # Points at +-2 along 30 degrees and +-1 across: the covariance has these directions.
    long, across = np.array([math.cos(math.pi / 6), 0.5]), np.array([-0.5, math.cos(math.pi / 6)])
    points = np.add([5, 7], [2 * long, -2 * long, across, -across])
    found = confidence_ellipse(*points.T)
    scale = math.sqrt(stats.chi2.ppf(0.95, 2))
    assert found.centre == pytest.approx((5, 7))
    assert found.angle == pytest.approx(30)
    assert found.semi_axes == pytest.approx((scale * math.sqrt(8 / 3), scale * math.sqrt(2 / 3)))
    mirrored = confidence_ellipse(-points[:, 0], points[:, 1])
    assert mirrored.angle == pytest.approx(-30)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_an_ellipse_holds_its_part_of_the_points(level: float) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.multivariate_normal([1, -2], [[4, 1.5], [1.5, 1]], 20_000).T
    found = confidence_ellipse(x, y, level=level)
    turn = math.radians(found.angle)
    along = (x - found.centre[0]) * math.cos(turn) + (y - found.centre[1]) * math.sin(turn)
    up = -(x - found.centre[0]) * math.sin(turn) + (y - found.centre[1]) * math.cos(turn)
    inside = (along / found.semi_axes[0]) ** 2 + (up / found.semi_axes[1]) ** 2 <= 1
    assert inside.mean() == pytest.approx(level, abs=0.01)


def test_an_ellipse_at_the_edges() -> None:
    line = confidence_ellipse([0, 1, 2, np.nan], [0, 1, 2, 3])
    assert line.angle == pytest.approx(45)
    assert line.semi_axes[1] == pytest.approx(0, abs=1e-7)
    assert (line.n, line.left_out) == (3, {"nan": 1})
    with pytest.raises(InputError, match="an ellipse needs x that vary; all 3 are 1"):
        confidence_ellipse([1, 1, 1], [1, 2, 3])


def test_a_level_is_checked_everywhere() -> None:
    pairs = ([1.0, 2, 3, 5], [2.0, 2, 4, 1])
    for name in ("wilcoxon_signed_rank", "paired_t", "bland_altman", "pearson", "confidence_ellipse"):
        with pytest.raises(ParameterError, match="level of an interval lies between 0 and 1, not at 1"):
            getattr(statistics, name)(*pairs, level=1)
    for call in (bootstrap_by_subject, intraclass_correlation):
        with pytest.raises(ParameterError, match="level of an interval"):
            call(SHROUT_FLEISS, level=0)
    with pytest.raises(ParameterError, match="level of an interval"):
        mann_whitney_of_bins(*pairs, level=-1)


# Partial correlation


@pytest.mark.filterwarnings("ignore")  # pingouin's, on import
@pytest.mark.parametrize("n", [5, 40])
def test_a_partial_correlation_is_pingouins(n: int) -> None:
    pingouin = pytest.importorskip("pingouin")

    a, b = two_methods(n)
    size = a + 3 * b + np.random.default_rng(2).normal(0, 0.5, n)
    found = partial_correlation(a, b, size)
    frame = pd.DataFrame({"a": a, "b": b, "size": size})
    expected = pingouin.partial_corr(frame, "a", "b", "size").iloc[0]
    assert (found.estimate, found.p) == pytest.approx((expected["r"], expected["p_val"]))
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected["CI95"]), abs=0.00501)  # rounded
    ends = pingouin.compute_esci(expected["r"], n - 1, n - 1, eftype="r", decimals=9)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(ends), abs=1e-8)
    assert (found.n, found.n_subjects, found.name, found.interval.method) == (n, n, "partial r", "Fisher z")
    assert 2 * stats.t.sf(abs(found.statistic), n - 3) == pytest.approx(found.p)


def test_a_common_cause_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(0, 10, 400)
    x, y = size + rng.normal(0, 1, 400), -size + rng.normal(0, 1, 400)
    assert pearson(x, y).estimate < -0.8
    found = partial_correlation(x, y, size)
    assert found.interval.low < 0 < found.interval.high
    # Of residuals, far from 0 and on any scale.
    far = partial_correlation(x * 1e-9, 1e6 + y, 1e6 + 1e3 * size)
    assert far.estimate == pytest.approx(found.estimate, abs=1e-6)


def test_a_partial_correlation_at_the_edges() -> None:
    straight = partial_correlation([1, 2, 4, 3, np.nan], [2, 4, 8, 6, 1], [1, 1, 2, 5, 1])
    assert straight.estimate == pytest.approx(1.0)
    assert straight.interval.low == pytest.approx(1.0, abs=1e-6) or math.isnan(straight.interval.low)
    assert straight.left_out == {"nan": 1}
    four = partial_correlation([1, 2, 4, 3], [2, 1, 8, 7], [1, 1, 2, 5])
    assert math.isnan(four.interval.low)
    assert 0 < four.p < 1
    with pytest.raises(InputError, match="a partial correlation needs 4 or more finite triples, not 3"):
        partial_correlation([1, 2, 3], [1, 2, 2], [1, 5, 2])
    with pytest.raises(InputError, match="a partial correlation needs given that vary; all 4 are 7"):
        partial_correlation([1, 2, 3, 4], [1, 2, 2, 5], [7, 7, 7, 7])
    with pytest.raises(InputError, match="needs y that vary beyond given; here given tells y exactly"):
        partial_correlation([1, 2, 3, 5], [0.1, 0.2, 0.4, 0.3], [1.1, 1.2, 1.4, 1.3])
    with pytest.raises(ParameterError, match="level of an interval lies between 0 and 1, not at 2"):
        partial_correlation([1, 2, 3, 5], [1, 2, 2, 5], [7, 1, 2, 7], level=2)
