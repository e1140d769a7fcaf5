from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy import stats

from musclekit.errors import InputError, ParameterError, SchemaError, UnknownNameError
from musclekit.evaluation.comparison import COMPARISON_COLUMNS, compare


def table(values: Mapping[str, Sequence[float]], sides: Sequence[str] = ("",), label: str = "muscle") -> pd.DataFrame:
    """Score table: for each method its Dice, subject after subject and within a subject side after side."""
    rows = []
    for method, given_values in values.items():
        for n, value in enumerate(given_values):
            subject, side = f"s{n // len(sides):02d}", sides[n % len(sides)]
            status = "undefined" if np.isnan(value) else "ok"
            rows.append((f"case {subject}", subject, side, None, method, label, "dice", value, "", status))
    columns = ["case_id", "subject", "side", "slice", "method", "label", "metric", "value", "unit", "status"]
    return pd.DataFrame(rows, columns=columns).astype({"slice": "Int64"})


def only(frame: pd.DataFrame) -> dict[str, object]:
    assert len(frame) == 1
    assert tuple(frame.columns) == COMPARISON_COLUMNS
    return dict(frame.iloc[0])


A = [0.70, 0.75, 0.81, 0.66, 0.90, 0.85, 0.78, 0.62]
B = [0.745, 0.79, 0.80, 0.73, 0.93, 0.87, 0.87, 0.68]


def test_the_numbers_are_those_of_scipy() -> None:
    row = only(compare(table({"gc": A, "spgc": B})))
    difference = np.subtract(B, A)
    oracle = stats.wilcoxon(B, A, method="exact")
    assert (row["method"], row["baseline"], row["n"], row["scores"]) == ("spgc", "gc", 8, 8)
    assert row["difference"] == pytest.approx(np.median(difference)) == pytest.approx(0.0425)
    assert row["mean_difference"] == pytest.approx(difference.mean())
    assert (row["value"], row["baseline_value"]) == (np.median(B), np.median(A))
    assert row["statistic"] == oracle.statistic == 1
    assert row["p"] == pytest.approx(oracle.pvalue) == pytest.approx(4 / 2**8)
    row = only(compare(table({"gc": A, "spgc": B}), test="t"))
    oracle = stats.ttest_rel(B, A)
    assert (row["statistic"], row["p"]) == pytest.approx((oracle.statistic, oracle.pvalue))


def test_ties_and_zeros_go_by_the_normal_approximation() -> None:
    a, b = [0.0] * 8, [0.5, 0.5, 0.25, -0.25, 0.0, 1.0, 0.125, 0.75]
    row = only(compare(table({"a": a, "b": b})))
    assert row["p"] == pytest.approx(stats.wilcoxon(b, a, zero_method="wilcox", method="approx").pvalue)
    row = only(compare(table({"a": a, "b": a})))
    assert (row["difference"], row["low"], row["high"], row["statistic"], row["p"]) == (0, 0, 0, 0, 1)


def test_the_interval_is_the_bootstrap_of_the_median() -> None:
    row = only(compare(table({"a": A, "b": B}), level=0.9, seed=3))
    difference = np.subtract(B, A)
    oracle = stats.bootstrap(
        (difference,), np.median, confidence_level=0.9, method="percentile", n_resamples=20000, rng=1
    ).confidence_interval
    assert row["low"] == pytest.approx(oracle.low, abs=0.006)
    assert row["high"] == pytest.approx(oracle.high, abs=0.006)
    assert row["low"] < row["difference"] < row["high"]
    again = only(compare(table({"a": A, "b": B}), level=0.9, seed=3))
    assert (row["low"], row["high"]) == (again["low"], again["high"])
    wider = only(compare(table({"a": A, "b": B}), level=0.99, seed=3))
    assert wider["low"] <= row["low"]
    assert wider["high"] >= row["high"]


def test_two_thighs_are_one_sample() -> None:
    sided = table({"a": A, "b": B}, sides=("left", "right"))
    row = only(compare(sided))
    assert (row["n"], row["scores"]) == (4, 8)
    means_a, means_b = (np.reshape(values, (4, 2)).mean(axis=1) for values in (A, B))
    assert row["difference"] == pytest.approx(np.median(means_b - means_a))
    assert row["p"] == pytest.approx(stats.wilcoxon(means_b, means_a, method="exact").pvalue)
    assert only(compare(sided, by="case_id"))["n"] == 4


def test_slices_are_no_samples() -> None:
    scores = table({"a": A, "b": B})
    slices = scores.assign(slice=pd.array([3] * len(scores), dtype="Int64"), value=0.0)
    assert_frame_equal(compare(scores), compare(pd.concat([scores, slices], ignore_index=True)))


def test_every_pair_or_each_with_the_baseline() -> None:
    scores = table({"gmm": A, "gc": B, "spgc": A[::-1]})
    pairs = compare(scores)
    assert list(zip(pairs["method"], pairs["baseline"], strict=True)) == [
        ("gc", "gmm"), ("spgc", "gmm"), ("spgc", "gc")
    ]  # fmt: skip
    pairs = compare(scores, baseline="gc")
    assert list(zip(pairs["method"], pairs["baseline"], strict=True)) == [("gmm", "gc"), ("spgc", "gc")]


def test_p_is_corrected_for_every_test_of_the_table() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(shift, 0.1, 12).tolist() for name, shift in (("a", 0), ("b", 0.05), ("c", 0.2))}
    scores = pd.concat([table(values), table({k: v[::-1] for k, v in values.items()}, label="bone")])
    plain = compare(scores, correction="bonferroni")
    assert len(plain) == 6
    assert plain["p_corrected"].to_numpy() == pytest.approx(np.minimum(1, 6 * plain["p"].to_numpy()))
    holm = compare(scores)
    order = np.argsort(holm["p"].to_numpy(), kind="stable")
    stepped = np.maximum.accumulate((6 - np.arange(6)) * holm["p"].to_numpy()[order])
    assert holm["p_corrected"].to_numpy()[order] == pytest.approx(np.minimum(1, stepped))
    assert len(compare(scores, label="bone")) == 3


def test_what_takes_no_part_is_counted_and_named() -> None:
    scores = table({"a": A, "b": B})
    scores.loc[scores.index[8], ["value", "status"]] = [np.nan, "failed: no bone"]
    scores.loc[1, ["value", "status"]] = [np.nan, "undefined"]
    scores.loc[2, "value"] = np.inf
    gone = scores.drop(index=11)  # b has no score of the fourth subject
    early = gone[(gone["method"] == "a") & (gone["case_id"] == "case s04")].assign(
        label="", metric="", value=np.nan, status="failed: early"
    )
    gone = gone.drop(index=4)
    row = only(compare(pd.concat([gone, early], ignore_index=True)))
    assert (row["n"], row["scores"]) == (3, 3)
    assert (row["failed"], row["unpaired"], row["undefined"], row["infinite"]) == (2, 1, 1, 1)
    assert row["left_out"] == (
        "case s00: failed; case s01: undefined; case s02: infinite; case s03: unpaired; case s04: failed"
    )
    both = pd.concat([gone.drop(index=12), early, early.assign(method="b")], ignore_index=True)
    assert (only(compare(both))["failed"], only(compare(both))["n"]) == (2, 3)
    assert only(compare(both))["left_out"] == only(
        compare(pd.concat([gone, early], ignore_index=True))
    )["left_out"]  # fmt: skip


def test_an_average_is_over_what_both_methods_have() -> None:
    scores = table({"a": [0.5, 0.9], "b": [0.6, 0.1]}, sides=("left", "right"))
    scores.loc[3, ["value", "status"]] = [np.nan, "failed: no bone"]
    row = only(compare(scores))
    assert (row["value"], row["baseline_value"], row["left_out"]) == (0.6, 0.5, "case s00 right: failed")
    assert np.isnan([row[name] for name in ("low", "high", "statistic", "p", "p_corrected")]).all()


def test_nothing_to_pair_is_said() -> None:
    scores = table({"a": A, "b": B})
    apart = scores.assign(case_id=scores["method"] + scores["case_id"])
    row = only(compare(apart))
    assert (row["n"], row["unpaired"]) == (0, 16)
    assert np.isnan([row[name] for name in ("value", "difference", "p")]).all()
    assert np.isnan(only(compare(table({"a": [0.5, 0.75], "b": [0.25, 0.5]}), test="t"))["p"])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 64).map(lambda n: n / 64)] * 2), min_size=2, max_size=12),
    st.sampled_from(["wilcoxon", "t"]),
    st.randoms(use_true_random=False),
)
def test_the_other_way_round_is_the_other_sign(pairs: list[tuple[float, float]], test: str, random: object) -> None:
    scores = table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    shuffled = list(scores.index)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    there = only(compare(scores, baseline="a", test=test))  # type: ignore[arg-type]
    back = only(compare(scores.loc[shuffled], baseline="b", test=test))  # type: ignore[arg-type]
    for name in ("difference", "mean_difference"):
        assert there[name] == pytest.approx(-back[name])  # type: ignore[operator]
    assert there["p"] == pytest.approx(back["p"], nan_ok=True)
    assert there["low"] <= there["difference"] <= there["high"]  # type: ignore[operator]
    assert np.isnan(there["p"]) or 0 <= there["p"] <= there["p_corrected"] <= 1  # type: ignore[call-overload, operator]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"metric": "dise"}, UnknownNameError, "unknown metric 'dise'; did you mean 'dice'"),
        ({"label": "bone"}, UnknownNameError, "unknown structure 'bone'. Known: muscle"),
        ({"baseline": "c"}, UnknownNameError, "unknown method 'c'. Known: a, b"),
        ({"test": "sign"}, ParameterError, "the test is one of wilcoxon, t, not 'sign'"),
        ({"correction": "none"}, ParameterError, "the correction is one of holm, bonferroni, not 'none'"),
        ({"by": "side"}, ParameterError, "scores are paired by subject or case_id, not by 'side'"),
        ({"level": 95}, ParameterError, "the level of an interval lies between 0 and 1, not at 95"),
    ],
)
def test_what_does_not_exist_is_named(wrong: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(table({"a": A, "b": B}), **wrong)  # type: ignore[arg-type]


def test_tables_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="needs two or more methods, the scores are of a"):
        compare(table({"a": A}))
    twice = pd.concat([table({"a": A, "b": B}), table({"b": A})], ignore_index=True)
    with pytest.raises(InputError, match="method 'b' has two scores of case 'case s00'; give methods of other param"):
        compare(twice)
    with pytest.raises(SchemaError, match="status is missing"):
        compare(table({"a": A, "b": B}).drop(columns="status"))
