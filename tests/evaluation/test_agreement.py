"""Agreement and repeatability of volumes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from musclekit.errors import InputError, ParameterError, SchemaError
from musclekit.evaluation import AGREEMENT_COLUMNS, REPEATABILITY_COLUMNS, pair_volumes, repeatability, volume_agreement
from musclekit.statistics import bland_altman


def table(values: np.ndarray | list[float], *, sides: tuple[str, ...] = ("left",), **columns: object) -> pd.DataFrame:
    """Totals of one group, subject after subject and side after side."""
    keys = [(f"s{n}_ct", f"s{n}", side) for n in range(len(values) // len(sides)) for side in sides]
    frame = pd.DataFrame(keys, columns=["case_id", "subject", "side"])
    return frame.assign(group="flexor", total_ml=np.asarray(values, float), **columns)


def measured(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wanted = rng.normal(300, 60, n)
    return wanted + rng.normal(4, 12, n), wanted


@pytest.mark.filterwarnings("ignore")  # pingouin's, on import and on its own data frames
def test_the_icc_is_that_of_pingouin() -> None:
    pingouin = pytest.importorskip("pingouin")
    found, wanted = measured(14)
    (row,) = volume_agreement(table(found), table(wanted)).to_dict("records")
    long = (
        pd.DataFrame({"a": found, "b": wanted}).reset_index(names="s").melt(id_vars="s", var_name="r", value_name="v")
    )
    peer = pingouin.intraclass_corr(long, targets="s", raters="r", ratings="v")
    peer = peer.set_index(peer["Type"].str.replace(r"[^0-9A-Z]", "", regex=True))
    for ours, theirs in (("icc_2_1", ("ICCA1", "ICC2")), ("icc_3_1", ("ICCC1", "ICC3"))):
        expected = peer.loc[next(name for name in theirs if name in peer.index)]
        assert row[ours] == pytest.approx(expected["ICC"], abs=1e-6)
        ends = expected[next(column for column in peer.columns if column.startswith("CI95"))]
        assert (row[f"{ours}_low"], row[f"{ours}_high"]) == pytest.approx(tuple(ends), abs=0.0051)  # it rounds
        assert row["icc_p"] == pytest.approx(expected[next(c for c in peer.columns if c.startswith("p"))], rel=1e-6)
    assert (row["pairs"], row["subjects"], row["set"], row["quantity"]) == (14, 14, "all", "total_ml")


def test_bias_and_limits_by_hand() -> None:
    # Differences 1, 2, 3, 4: mean 2.5, sd sqrt(5 / 3).
    wanted = np.array([100.0, 120.0, 90.0, 140.0])
    agreement = volume_agreement(table(wanted + np.arange(1, 5)), table(wanted))
    assert tuple(agreement.columns) == AGREEMENT_COLUMNS
    row = agreement.iloc[0]
    sd = math.sqrt(5 / 3)
    assert row["bias_ml"] == pytest.approx(2.5)
    assert row["bias_percent"] == pytest.approx(100 * 2.5 / 112.5)
    assert row["sd_ml"] == pytest.approx(sd)
    z = stats.norm.ppf(0.975)
    assert (row["lower_ml"], row["upper_ml"]) == pytest.approx((2.5 - z * sd, 2.5 + z * sd))
    half = stats.t.ppf(0.975, 3) * sd / 2
    assert (row["bias_low"], row["bias_high"]) == pytest.approx((2.5 - half, 2.5 + half))


def test_two_legs_of_a_person_are_one_observation() -> None:
    found, wanted = measured(20, seed=4)
    sides = ("left", "right")
    (row,) = volume_agreement(table(found, sides=sides), table(wanted, sides=sides)).to_dict("records")
    assert (row["pairs"], row["subjects"], row["side"]) == (20, 10, "")
    means = found.reshape(10, 2).mean(axis=1), wanted.reshape(10, 2).mean(axis=1)
    assert row["sd_ml"] == pytest.approx(bland_altman(*means).sd)
    # A person who was scanned twice alike is no second person.
    again = pd.concat([table(v, sides=sides).assign(case_id=lambda f: f["case_id"] + "_2") for v in (found, wanted)])
    halves = again.iloc[:20], again.iloc[20:]
    twice = volume_agreement(
        *(pd.concat([table(v, sides=sides), half]) for v, half in zip((found, wanted), halves, strict=True))
    ).iloc[0]
    assert (twice["pairs"], twice["subjects"]) == (40, 10)
    assert twice["icc_2_1_low"] == pytest.approx(row["icc_2_1_low"])
    apart = volume_agreement(table(found, sides=sides), table(wanted, sides=sides), legs="apart")
    assert apart["side"].tolist() == ["left", "right"]
    assert apart["subjects"].tolist() == [10, 10]
    assert apart["bias_ml"].tolist() == pytest.approx((found - wanted).reshape(10, 2).mean(axis=0).tolist())


def test_a_leg_that_one_lacks_is_left_out_of_both_means() -> None:
    found, wanted = table([10, 20, 30, 40], sides=("left", "right")), table([11, 21, 31, 41], sides=("left", "right"))
    found = found.drop(index=1)
    row = volume_agreement(found, wanted).iloc[0]
    assert (row["automatic_mean_ml"], row["reference_mean_ml"]) == (pytest.approx(22.5), pytest.approx(23.5))
    assert row["left_out"] == "1 no automatic"


def test_a_case_that_failed_is_left_out_of_each_leg() -> None:
    found, wanted = measured(8)
    sides = ("left", "right")
    lost = pd.DataFrame(
        [{"case_id": "lost", "subject": "lost", "side": "", "group": "flexor", "total_ml": np.nan,
          "status": "failed: no body found"}]
    )  # fmt: skip
    automatic = pd.concat([table(found, sides=sides, status="ok"), lost])
    apart = volume_agreement(automatic, table(wanted, sides=sides), legs="apart")
    assert apart["side"].tolist() == ["left", "right"]
    assert apart["subjects"].tolist() == [4, 4]
    assert apart["left_out"].tolist() == ["1 failed", "1 failed"]


def test_sets_are_told_apart() -> None:
    found, wanted = measured(12, seed=2)
    sets = ["internal"] * 7 + ["external"] * 5
    agreement = volume_agreement(table(found), table(wanted, split=sets), by="split")
    assert agreement["set"].tolist() == ["internal", "external"]
    assert agreement["subjects"].tolist() == [7, 5]
    alone = volume_agreement(table(found[:7]), table(wanted[:7]))
    pd.testing.assert_frame_equal(agreement.iloc[:1].drop(columns="set"), alone.drop(columns="set"))


def test_what_was_not_found_counts_and_what_nobody_drew_does_not() -> None:
    reference = pd.concat(
        [table([10, 20, 30, math.nan, math.nan]), table([5, 6, 7, 8, math.nan]).assign(group="extensor")]
    )
    status = ["ok", "ok", "cut", "absent", "absent", "ok", "ok", "ok", "ok", "absent"]
    reference = reference.assign(status=status, lean_ml=reference["total_ml"] / 2)
    automatic = reference.assign(
        total_ml=[math.nan, 20, 31, 2, 3, 5, 6, math.nan, 8, 9],
        lean_ml=[math.nan, 10, 15, 1, 1, 2, 3, math.nan, 4, 4],
        status=["absent", "ok", "ok", "ok", "ok", "ok", "ok", "failed: no light", "ok", "ok"],
    )
    pairs = pair_volumes(automatic, reference)
    assert pairs["status"].tolist() == [
        "missed", "ok", "ok", "extra", "not annotated", "ok", "ok", "failed: no light", "ok", "not annotated",
    ]  # fmt: skip
    missed, extra = pairs.iloc[0], pairs.iloc[3]
    assert (missed["automatic_total_ml"], missed["reference_lean_ml"]) == (0.0, 5.0)
    assert (extra["automatic_total_ml"], extra["reference_total_ml"], extra["reference_lean_ml"]) == (2.0, 0.0, 0.0)
    agreement = volume_agreement(automatic, reference).set_index(["group", "quantity"])
    flexor, extensor = agreement.loc[("flexor", "total_ml")], agreement.loc[("extensor", "total_ml")]
    assert flexor["bias_ml"] == pytest.approx((-10 + 0 + 1 + 2) / 4)
    assert flexor["left_out"] == "1 not annotated"
    assert extensor["left_out"] == "1 failed, 1 not annotated"
    assert ("flexor", "fat_ml") not in agreement.index


def test_neither_has_it() -> None:
    one = pd.concat([table([math.nan, 10]), table([5, 6]).assign(group="extensor")])
    one = one.assign(status=["absent", "ok", "ok", "ok"])
    assert pair_volumes(one, one)["status"].tolist() == ["absent", "ok", "ok", "ok"]


def test_a_volume_that_is_no_number_is_no_zero() -> None:
    agreement = volume_agreement(table([1, 2, 3, math.nan]), table([1, 2, 4, 5]))
    assert agreement.iloc[0]["left_out"] == "1 unknown"
    lean = table([1, 2, 3, 4]).assign(lean_ml=[1, 1, 2, math.nan])
    row = volume_agreement(lean, lean).iloc[1]
    assert (row["quantity"], row["left_out"], row["subjects"]) == ("lean_ml", "1 not told", 3)


def test_too_few_persons_are_said() -> None:
    row = volume_agreement(table([10, 12]), table([11, 15])).iloc[0]
    assert row["bias_ml"] == pytest.approx(-2)
    assert math.isnan(row["lower_ml"])
    assert math.isnan(row["icc_2_1"])
    assert row["note"] == "an agreement needs 3 or more persons, not 2"
    alike = volume_agreement(table([10, 10, 10]), table([10, 10, 10])).iloc[0]
    assert math.isnan(alike["icc_2_1"])
    assert "needs subjects that differ" in alike["note"]
    assert (alike["lower_ml"], alike["upper_ml"]) == (0, 0)


def test_bad_tables_are_refused() -> None:
    good = table([1, 2, 3])
    with pytest.raises(SchemaError, match="the automatic volumes lack the column side"):
        volume_agreement(good.drop(columns="side"), good)
    with pytest.raises(SchemaError, match="the reference volumes lack the column split"):
        volume_agreement(good, good, by="split")
    with pytest.raises(SchemaError, match="share one or more of the columns total_ml"):
        volume_agreement(good.rename(columns={"total_ml": "volume"}), good)
    with pytest.raises(InputError, match="two rows of s0_ct, s0, left, flexor"):
        volume_agreement(pd.concat([good, good]), good)
    with pytest.raises(ParameterError, match="legs is one of mean, apart, not 'sum'"):
        volume_agreement(good, good, legs="sum")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="level"):
        volume_agreement(good, good, level=95)
    with pytest.raises(ParameterError, match="paired_by is one of case, subject"):
        repeatability(good, good, paired_by="scan")  # type: ignore[arg-type]


def test_repeatability_by_hand() -> None:
    # Differences 2, -2, 4, 0: sum of squares 24, sw^2 = 24 / (2 x 4) = 3.
    first, second = [102, 98, 204, 200], [100, 100, 200, 200]
    found = repeatability(table(first), table(second))
    assert tuple(found.columns) == REPEATABILITY_COLUMNS
    row = found.iloc[0]
    assert row["sw_ml"] == pytest.approx(math.sqrt(3))
    assert row["coefficient_ml"] == pytest.approx(1.96 * math.sqrt(6))
    low, high = (math.sqrt(12 / stats.chi2.ppf(q, 4)) for q in (0.975, 0.025))
    assert (row["sw_low"], row["sw_high"]) == pytest.approx((low, high))
    relative = np.array([2 / 101, 2 / 99, 4 / 202, 0])
    assert row["cv_percent"] == pytest.approx(100 * math.sqrt((relative**2).mean() / 2))
    assert row["difference_ml"] == pytest.approx(1.0)
    assert row["mean_ml"] == pytest.approx(150.5)
    assert row["icc_2_1"] == pytest.approx(volume_agreement(table(first), table(second)).iloc[0]["icc_2_1"])


def test_sw_is_the_residual_of_an_analysis_of_variance_by_subject() -> None:
    first, second = measured(30, seed=8)
    row = repeatability(table(first), table(second)).iloc[0]
    both = np.stack([first, second], axis=1)
    assert row["sw_ml"] == pytest.approx(math.sqrt(both.var(axis=1, ddof=1).mean()))


def test_two_scans_of_a_person_are_paired_by_subject() -> None:
    first = table([10, 20, 30])
    second = table([11, 19, 30]).assign(case_id=["a", "b", "c"])
    lost = repeatability(first, second).iloc[0]
    assert lost["subjects"] == 0
    assert lost["left_out"] == "3 no automatic, 3 no reference"
    assert math.isnan(lost["sw_ml"])
    assert repeatability(first, second, paired_by="subject").iloc[0]["sw_ml"] == pytest.approx(math.sqrt(2 / 6))


def test_an_empty_cell_of_a_file_is_an_empty_text() -> None:
    one = table([10, 20, 30], sides=("",)).assign(status="ok")
    read = one.assign(side=math.nan)
    pd.testing.assert_frame_equal(pair_volumes(read, one), pair_volumes(one, one))
