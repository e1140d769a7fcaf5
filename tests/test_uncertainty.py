from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from musclekit.errors import (
    CheckpointError,
    FormatError,
    GeometryError,
    InputError,
    LabelError,
    MissingFileError,
    ParameterError,
    SchemaError,
    UnknownNameError,
    VoxelError,
)
from musclekit.image import Grid, LabelMap
from musclekit.labels import label_set
from musclekit.schemas import check_schema, read_json
from musclekit.statistics import Interval
from musclekit.uncertainty import (
    DiceCalibration,
    DiceLine,
    RunningSums,
    calibration_curve,
    entropy,
    error_agreement,
    expected_calibration_error,
    fit_dice_calibration,
    interval_text,
    sample_interval,
    structure_variance,
    structure_variance_by_slice,
    uncertainty_inside_outside,
)

Floats = NDArray[np.float64]

THIGH = label_set("thigh-4")


def label_map(voxels: Any, name: str = "thigh-4") -> LabelMap:
    array = np.asarray(voxels, dtype=np.uint8)
    return LabelMap(array, Grid.from_spacing(array.shape, (5, 1, 1)), label_set(name))


def softmax(shape: tuple[int, ...], seed: int = 0) -> Floats:
    """Random probabilities; classes are axis 1 of samples."""
    odds = np.exp(np.random.default_rng(seed).normal(0, 3, shape))
    found: Floats = odds / odds.sum(axis=1, keepdims=True)
    return found


def summed(samples: Any) -> RunningSums:
    sums = RunningSums()
    for sample in samples:
        sums.add(sample)
    return sums


# Running sums


def test_mean_and_population_variance_of_four_samples() -> None:
    sums = summed([[p, 1 - p] for p in (0.9, 0.7, 0.5, 0.9)])
    assert sums.n == 4
    assert sums.mean() == pytest.approx([0.75, 0.25])
    assert sums.class_variance() == pytest.approx([0.0275, 0.0275])
    assert sums.variance() == pytest.approx(0.055)
    assert sums.variance("mean") == pytest.approx(0.0275)


def test_streaming_is_what_all_samples_together_give() -> None:
    samples = softmax((20, 5, 3, 8, 7))
    sums = summed(samples)
    assert np.abs(sums.mean() - samples.mean(axis=0)).max() < 1e-12
    assert np.abs(sums.class_variance() - samples.var(axis=0)).max() < 1e-12
    assert np.abs(sums.variance() - samples.var(axis=0).sum(axis=0)).max() < 1e-12
    assert sums.variance("mean") * 5 == pytest.approx(sums.variance())
    assert sums.variance().shape == (3, 8, 7)


def test_single_precision_is_summed_in_double() -> None:
    samples = softmax((50, 3, 40)).astype(np.float32)
    assert np.abs(summed(samples).variance() - samples.astype(np.float64).var(axis=0).sum(axis=0)).max() < 1e-12


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(0, 1)), st.randoms())
def test_the_order_of_samples_does_not_matter(samples: Floats, random: Any) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)
    first, second = summed(samples), summed(shuffled)
    assert np.abs(first.mean() - second.mean()).max() < 1e-12
    assert np.abs(first.class_variance() - second.class_variance()).max() < 1e-12
    assert first.class_variance().min() >= 0


def test_samples_that_agree_have_no_variance_and_none_below_it() -> None:
    variance = summed([np.full((3, 100), 1 / 3)] * 7).class_variance()
    assert variance.min() >= 0
    assert variance.max() < 1e-15


def test_samples_are_kept_apart_from_their_sum() -> None:
    sample = np.array([0.4, 0.6])
    sums = summed([sample])
    sums.mean()[:] = 0
    sample[:] = 0
    assert sums.mean() == pytest.approx([0.4, 0.6])


def test_what_is_no_sample_is_refused_and_not_counted() -> None:
    sums = RunningSums()
    for call in (sums.mean, sums.class_variance, sums.variance):
        with pytest.raises(InputError, match="no mean and no variance of no sample; add one first"):
            call()
    sums.add([0.5, 0.5])
    with pytest.raises(GeometryError, match=r"a sample has shape \(3,\), those before it \(2,\)"):
        sums.add([0.2, 0.3, 0.5])
    with pytest.raises(VoxelError, match=r"probabilities lie between 0 and 1, found -1 to 2"):
        sums.add([-1, 2])
    with pytest.raises(VoxelError, match="found nan to nan"):
        sums.add([math.nan, 0.5])
    with pytest.raises(GeometryError, match="the first of which counts the classes"):
        sums.add(0.5)
    with pytest.raises(GeometryError, match=r"of shape \(0, 4\): there is nothing in it"):
        sums.add(np.zeros((0, 4)))
    assert sums.n == 1
    with pytest.raises(ParameterError, match="the class reduction is one of sum, mean, not 'max'"):
        sums.variance("max")  # type: ignore[arg-type]


# Entropy


def test_entropy_in_bits() -> None:
    p = np.array([0.7, 0.1, 0.1, 0.05, 0.05])
    assert entropy(p) == pytest.approx(1.45678, abs=5e-6)
    assert entropy(p, normalised=True) == pytest.approx(0.627401, abs=5e-7)
    assert entropy([[1, 0.5], [0, 0.5]]) == pytest.approx([0, 1])


@pytest.mark.parametrize("classes", [2, 5, 23])
def test_entropy_is_greatest_where_all_classes_are_alike(classes: int) -> None:
    alike = np.full((classes, 2, 3), 1 / classes)
    assert entropy(alike) == pytest.approx(np.full((2, 3), math.log2(classes)))
    assert entropy(alike, normalised=True) == pytest.approx(np.ones((2, 3)))
    others = entropy(softmax((1, classes, 200))[0])
    assert others.min() >= 0
    assert others.max() <= math.log2(classes)


def test_entropy_at_the_edges() -> None:
    assert entropy(np.array([1 + 1e-6, 0], dtype=np.float32)) >= 0
    assert entropy([1.0]) == 0
    with pytest.raises(ParameterError, match="a single class cannot be normalised: it is always 0"):
        entropy([1.0], normalised=True)
    with pytest.raises(VoxelError, match="found 0 to 7"):
        entropy([0, 7])


# Variance of a structure


def test_psv_of_a_map_made_by_hand() -> None:
    labels = label_map([[[0, 1, 1], [2, 2, 0]], [[1, 0, 0], [4, 0, 0]]])
    variance = np.array([[[9, 1, 2], [3, 4, 9]], [[6, 9, 9], [0, 9, 9]]])
    found = structure_variance(labels, variance)
    assert list(found.columns) == ["id", "structure", "abbreviation", "side", "voxels", "psv"]
    assert found["structure"].tolist() == list(THIGH.names)
    assert found["id"].tolist() == [1, 2, 3, 4]
    assert found["side"].tolist() == [""] * 4
    assert found["voxels"].tolist() == [3, 2, 0, 1]
    assert found["psv"].tolist() == pytest.approx([3, 3.5, math.nan, 0], nan_ok=True)


def test_psv_slice_by_slice() -> None:
    labels = label_map([[[0, 1, 1], [2, 2, 0]], [[1, 0, 0], [4, 0, 0]]])
    variance = np.array([[[9, 1, 2], [3, 4, 9]], [[6, 9, 9], [0, 9, 9]]])
    found = structure_variance_by_slice(labels, variance)
    assert list(found.columns) == ["id", "structure", "abbreviation", "side", "slice", "voxels", "psv"]
    assert found["id"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert found["slice"].tolist() == [0, 1] * 4
    assert found["voxels"].tolist() == [2, 1, 2, 0, 0, 0, 0, 1]
    expected = [1.5, 6, 3.5, math.nan, math.nan, math.nan, math.nan, 0]
    assert found["psv"].tolist() == pytest.approx(expected, nan_ok=True)


def test_psv_tells_sides_apart_where_the_labels_do() -> None:
    found = structure_variance(label_map([[[1, 2, 2]]], "thigh-4-sided"), [[[1, 2, 4]]])
    assert found["side"].tolist()[:2] == ["left", "right"]
    assert found["structure"].tolist()[:2] == ["gracilis", "gracilis"]
    assert found["psv"].tolist()[:2] == [1, 3]
    assert found["psv"].isna().sum() == 6


@settings(max_examples=50, deadline=None)
@given(
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=st.integers(0, 4)),
            hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)),
        )
    )
)
def test_psv_lies_between_the_least_and_the_greatest_variance(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    voxels, variance = pair
    labels = label_map(voxels)
    whole, slices = structure_variance(labels, variance), structure_variance_by_slice(labels, variance)
    for row in whole.to_dict("records"):
        inside = variance[voxels == row["id"]].astype(np.float64)
        assert row["voxels"] == inside.size
        if not inside.size:
            assert math.isnan(row["psv"])
            continue
        assert inside.min() * (1 - 1e-12) <= row["psv"] <= inside.max() * (1 + 1e-12)
        assert row["psv"] == pytest.approx(inside.mean(), rel=1e-12)
        of_it = slices[(slices["id"] == row["id"]) & (slices["voxels"] > 0)]
        assert np.average(of_it["psv"], weights=of_it["voxels"]) == pytest.approx(row["psv"], rel=1e-12)


def test_a_variance_that_is_none_is_refused() -> None:
    labels = label_map([[[1, 2]]])
    with pytest.raises(GeometryError, match=r"the variance has shape \(2,\), what it is compared with \(1, 1, 2\)"):
        structure_variance(labels, [0, 1])
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(VoxelError, match="a variance is a finite number and not below 0, found"):
            structure_variance_by_slice(labels, [[[0, wrong]]])


# Interval of the samples


def test_the_interval_holds_the_middle_of_the_samples() -> None:
    samples = np.arange(101.0)
    np.random.default_rng(0).shuffle(samples)
    found = sample_interval(samples)
    assert (found.low, found.high, found.level) == pytest.approx((2.5, 97.5, 0.95))
    assert found.method == "percentiles of the network's samples"
    half = sample_interval(samples, level=0.5)
    assert (half.low, half.high) == pytest.approx((25, 75))


def test_an_interval_in_words() -> None:
    interval = Interval(790.2, 835.7, 0.95, "")
    assert interval_text(812.4, interval, "ml") == "812 ml, 790 to 836"
    assert interval_text(812.44, interval, "ml", decimals=1) == "812.4 ml, 790.2 to 835.7"


def test_samples_that_make_no_interval() -> None:
    with pytest.raises(InputError, match=r"two samples or more, not an array of shape \(1,\)"):
        sample_interval([5])
    with pytest.raises(InputError, match=r"two samples or more, not an array of shape \(3, 2\)"):
        sample_interval(np.zeros((3, 2)))
    with pytest.raises(InputError, match="2 of 4 samples are no finite number"):
        sample_interval([1, math.nan, math.inf, 2])
    with pytest.raises(ParameterError, match="level of an interval lies between 0 and 1, not at 1"):
        sample_interval([1, 2], level=1)


# Predicted Dice


def pairs_of(psv: Any, dice: Any, label: str = "sartorius") -> pd.DataFrame:
    return pd.DataFrame({"subject": [f"s{k}" for k in range(len(psv))], "label": label, "psv": psv, "dice": dice})


def fitted(pairs: pd.DataFrame) -> DiceCalibration:
    return fit_dice_calibration(pairs, model="unet-a", n_samples=10)


def noisy(n: int = 20, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    psv = rng.uniform(0.002, 0.02, n)
    return psv, 0.95 - 12 * psv + rng.normal(0, 0.02, n)


def test_a_line_without_noise_is_recovered() -> None:
    psv = np.array([0.001, 0.004, 0.002, 0.009, 0.005])
    first, second = pairs_of(psv, 0.97 - 20 * psv), pairs_of(psv, 0.5 + 30 * psv, "gracilis")
    found = fitted(pd.concat([first, second]))
    assert list(found.structures) == ["sartorius", "gracilis"]
    sartorius, gracilis = found.structures.values()
    assert (sartorius.alpha, sartorius.beta) == pytest.approx((-20, 0.97), rel=1e-12)
    assert (gracilis.alpha, gracilis.beta) == pytest.approx((30, 0.5), rel=1e-12)
    assert (sartorius.r, gracilis.r, sartorius.n) == (pytest.approx(-1), pytest.approx(1), 5)
    assert sartorius.resid_sd == pytest.approx(0, abs=1e-14)
    assert (len(found.subjects), found.not_fitted, found.left_out) == (5, {}, {})
    predicted = found.predict("sartorius", 0.01)
    assert (predicted.value, predicted.raw) == pytest.approx((0.77, 0.77))
    assert (predicted.low, predicted.high) == pytest.approx((0.77, 0.77))


def test_a_line_is_that_of_scipy() -> None:
    psv, dice = noisy()
    line = fitted(pairs_of(psv, dice)).structures["sartorius"]
    expected = stats.linregress(psv, dice)
    assert (line.alpha, line.beta, line.r) == pytest.approx((expected.slope, expected.intercept, expected.rvalue))
    residual = dice - expected.slope * psv - expected.intercept
    assert line.rmse == pytest.approx(math.sqrt(np.square(residual).mean()))
    assert line.resid_sd == pytest.approx(math.sqrt(np.square(residual).sum() / 18))
    assert line.resid_sd / math.sqrt(line.sxx) == pytest.approx(expected.stderr)


def test_the_interval_is_that_of_statsmodels() -> None:
    from statsmodels.api import OLS, add_constant

    psv, dice = noisy()
    calibration = fitted(pairs_of(psv, dice))
    for at in (0.001, 0.01, 0.03):
        expected = OLS(dice, add_constant(psv)).fit().get_prediction([[1, at]]).summary_frame(alpha=0.1).iloc[0]
        found = calibration.predict("sartorius", at, level=0.9)
        assert found.raw == pytest.approx(expected["mean"])
        assert (found.low, found.high) == pytest.approx(
            (np.clip(expected["obs_ci_lower"], 0, 1), np.clip(expected["obs_ci_upper"], 0, 1))
        )
        assert found.level == 0.9


def test_the_interval_holds_the_part_of_new_scans_that_it_promises() -> None:
    held = []
    for seed in range(400):
        psv, dice = noisy(21, seed)
        found = fitted(pairs_of(psv[:-1], dice[:-1])).predict("sartorius", psv[-1], level=0.8)
        held.append(found.low <= dice[-1] <= found.high)
    assert np.mean(held) == pytest.approx(0.8, abs=0.06)


def test_a_prediction_stays_within_0_and_1() -> None:
    psv = np.array([0.001, 0.002, 0.003, 0.004])
    calibration = fitted(pairs_of(psv, 1 - 100 * psv + [0, 0.01, -0.01, 0]))
    low = calibration.predict("sartorius", 0.02)
    assert low.raw == pytest.approx(-1, abs=0.05)
    assert (low.value, low.low) == (0, 0)
    high = calibration.predict("sartorius", 0.0)
    assert 0.9 < high.value <= 1
    assert high.high == 1
    assert high.low <= high.value


def test_what_cannot_be_predicted_is_nan() -> None:
    psv, dice = noisy()
    few, same = pairs_of(psv[:2], dice[:2], "gracilis"), pairs_of([0.01] * 3, dice[:3], "hamstrings")
    calibration = fitted(pd.concat([pairs_of(psv, dice), few, same]))
    assert list(calibration.structures) == ["sartorius"]
    assert calibration.not_fitted == {
        "gracilis": "2 of the 3 pairs that a line needs",
        "hamstrings": "all 3 PSV are 0.01",
    }
    for name, at in (("gracilis", 0.01), ("hamstrings", 0.01), ("sartorius", math.nan)):
        found = calibration.predict(name, at)
        assert np.isnan([found.value, found.raw, found.low, found.high]).all()
    with pytest.raises(UnknownNameError, match="unknown structure 'sartorious'; did you mean 'sartorius'"):
        calibration.predict("sartorious", 0.01)
    with pytest.raises(ParameterError, match=r"psv must be a number of at least 0, not -0\.1"):
        calibration.predict("sartorius", -0.1)
    with pytest.raises(ParameterError, match="level of an interval"):
        calibration.predict("sartorius", 0.01, level=0)


def test_pairs_without_a_number_are_counted() -> None:
    psv, dice = noisy(6)
    psv[0], dice[1], psv[2] = math.nan, math.nan, math.inf
    calibration = fitted(pairs_of(psv, dice))
    assert calibration.left_out == {"nan": 2, "infinite": 1}
    assert (calibration.structures["sartorius"].n, len(calibration.subjects)) == (3, 6)


def test_two_legs_of_a_person_are_one_subject() -> None:
    psv, dice = noisy(6)
    pairs = pairs_of(psv, dice)
    pairs["subject"] = ["a", "a", "b", "b", "c", "c"]
    calibration = fitted(pairs)
    assert (calibration.structures["sartorius"].n, len(calibration.subjects)) == (6, 3)


def test_a_dice_that_is_always_the_same_has_no_correlation() -> None:
    calibration = fitted(pairs_of([0.1, 0.2, 0.3], [0.9, 0.9, 0.9]))
    line = calibration.structures["sartorius"]
    assert math.isnan(line.r)
    assert calibration.predict("sartorius", 0.2).value == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"psv": [0.1, -0.2, 0.3]}, "psv -0.2 lies outside 0 to inf"),
        ({"dice": [90, 80, 70]}, "dice 90 lies outside 0 to 1"),
        ({"subject": ["a", None, "b"]}, "row 2 has no subject"),
        ({"label": [None, "a", "a"]}, "row 1 has no label"),
        ({"psv": [0.1, 0.1, 0.1]}, r"no structure can be calibrated \(sartorius: all 3 PSV are 0.1\)"),
        ({"psv": [math.nan] * 3}, r"no structure can be calibrated \(sartorius: 0 of the 3 pairs that a line needs\)"),
    ],
)
def test_pairs_that_cannot_be_fitted(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(pairs_of([0.1, 0.2, 0.3], [0.9, 0.8, 0.7]).assign(**changed))


def test_a_fit_that_is_not_described() -> None:
    pairs = pairs_of([0.1, 0.2, 0.3], [0.9, 0.8, 0.7])
    with pytest.raises(InputError, match="needs the columns subject, label, psv, dice: no dice"):
        fitted(pairs.drop(columns="dice"))
    with pytest.raises(InputError, match=r"no structure can be calibrated \(there are no pairs\)"):
        fitted(pairs[:0])
    with pytest.raises(ParameterError, match="n_samples must be a whole number of at least 2, not 1"):
        fit_dice_calibration(pairs, model="a", n_samples=1)
    with pytest.raises(ParameterError, match="names the model that it belongs to"):
        fit_dice_calibration(pairs, model="", n_samples=10)
    with pytest.raises(ParameterError, match="the class reduction is one of sum, mean, not 'none'"):
        fit_dice_calibration(pairs, model="a", n_samples=10, class_reduction="none")  # type: ignore[arg-type]


def test_a_calibration_is_for_one_use() -> None:
    calibration = fitted(pairs_of(*noisy()))
    calibration.check(model="unet-a", class_reduction="sum", n_samples=10)
    with pytest.raises(CheckpointError) as caught:
        calibration.check(model="unet-a", class_reduction="sum", n_samples=20)
    assert str(caught.value) == "the calibration of the Dice was made for number of samples 10, not 20"
    with pytest.raises(CheckpointError) as caught:
        calibration.check(model="unet-b", class_reduction="mean", n_samples=10)
    assert str(caught.value) == (
        "the calibration of the Dice was made for model 'unet-a', not 'unet-b'; class reduction 'sum', not 'mean'"
    )


def test_a_calibration_is_for_networks_of_the_same_people() -> None:
    pairs = pairs_of(*noisy(4)).assign(subject=["a", "b", "c", "c"])
    calibration = fitted(pairs)
    use = {"model": "unet-a", "class_reduction": "sum", "n_samples": 10}
    calibration.check(**use, subjects=["a", "c"])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="made on other people: the network learnt from 'd', who had no part"):
        calibration.check(**use, subjects=["a", "d"])  # type: ignore[arg-type]


def test_lines_that_foretell_nothing_are_named() -> None:
    psv = [0.1, 0.2, 0.3]
    parts = {"falls": [0.9, 0.8, 0.7], "grows": [0.7, 0.8, 0.9], "is flat": [0.8, 0.8, 0.8]}
    calibration = fitted(pd.concat([pairs_of(psv, dice, name) for name, dice in parts.items()]))
    assert calibration.unrelated == ("grows", "is flat")


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    psv, dice = noisy()
    rest = pairs_of([0.1, math.nan], [0.9, 0.9], "gracilis")
    calibration = fitted(pd.concat([pairs_of(psv, dice), rest]))
    file = tmp_path / "made" / "calibration.json"
    calibration.save(file)
    assert DiceCalibration.load(file) == calibration
    check_schema(json.loads(file.read_text()), "calibration", "the file")


def test_a_correlation_that_is_none_is_written_as_null(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    fitted(pairs_of([0.1, 0.2, 0.3], [0.9, 0.9, 0.9])).save(file)
    assert json.loads(file.read_text())["structures"]["sartorius"]["r"] is None
    assert math.isnan(DiceCalibration.load(file).structures["sartorius"].r)


def test_the_schema_names_every_field() -> None:
    data = fitted(pairs_of(*noisy())).as_data()
    schema = read_json("calibration.schema.json")
    assert set(schema["properties"]) == set(schema["required"]) == set(data)
    line = schema["properties"]["structures"]["additionalProperties"]
    assert set(line["properties"]) == set(line["required"]) == set(data["structures"]["sartorius"])


def test_a_calibration_made_by_hand_is_checked_before_it_is_written(tmp_path: Path) -> None:
    line = DiceLine(-1.0, 1.0, -0.5, 2, 0.1, 0.1, 0.1)
    file = tmp_path / "calibration.json"
    with pytest.raises(SchemaError, match=r"at \[structures\]\[sartorius\]\[n\]: 2 is less than the minimum of 3"):
        DiceCalibration("a", "sum", 10, ("p",), {"sartorius": line}, {}, {}).save(file)
    assert not file.exists()


def test_files_that_are_no_calibration(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    with pytest.raises(MissingFileError, match=r"calibration.json: no such file"):
        DiceCalibration.load(file)
    file.write_text("{")
    with pytest.raises(FormatError, match=r"calibration.json: not JSON"):
        DiceCalibration.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match=r"calibration.json: not JSON"):
        DiceCalibration.load(file)
    data = fitted(pairs_of(*noisy())).as_data()
    file.write_text(json.dumps(data | {"format": 2}))
    with pytest.raises(CheckpointError, match="a calibration of format 2, and this musclekit reads format 1"):
        DiceCalibration.load(file)
    file.write_text(json.dumps(data | {"class_reduction": "max"}))
    with pytest.raises(SchemaError, match=r"calibration calibration.json: at \[class_reduction\]: 'max' is not one of"):
        DiceCalibration.load(file)
    file.write_text("[]")
    with pytest.raises(SchemaError, match=r"\[\] is not of type 'object'"):
        DiceCalibration.load(file)


# Calibration of the probabilities


def test_a_network_that_is_right_as_often_as_it_says() -> None:
    # 60 % sure and right 6 times in 10, 90 % sure and right 9 times in 10.
    confidence = np.repeat([0.6, 0.9], 10)
    correct = np.tile(np.arange(10), 2) < np.repeat([6, 9], 10)
    assert expected_calibration_error(confidence, correct) == pytest.approx(0, abs=1e-15)
    assert expected_calibration_error(confidence, ~correct) == pytest.approx((0.2 + 0.8) / 2)


def test_the_bins_of_a_calibration_curve() -> None:
    confidence = [0.5, 0.74, 0.75, 1.0, 1.0]
    found = calibration_curve(confidence, [True, False, True, True, False], bins=4)
    assert found["low"].tolist() == [0, 0.25, 0.5, 0.75]
    assert found["high"].tolist() == [0.25, 0.5, 0.75, 1]
    assert found["n"].tolist() == [0, 0, 2, 3]
    assert found["confidence"].tolist() == pytest.approx([math.nan, math.nan, 0.62, 2.75 / 3], nan_ok=True)
    assert found["accuracy"].tolist() == pytest.approx([math.nan, math.nan, 0.5, 2 / 3], nan_ok=True)


def test_air_does_not_count_outside_the_region() -> None:
    confidence, correct = np.ones((2, 50)), np.ones((2, 50), dtype=bool)
    confidence[0, :4], correct[0, :4] = 0.9, False
    body = np.zeros((2, 50), dtype=bool)
    body[0, :4] = True
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.036)
    assert expected_calibration_error(confidence, correct, region=body) == pytest.approx(0.9)
    assert calibration_curve(confidence, correct, region=body)["n"].sum() == 4
    assert math.isnan(expected_calibration_error(confidence, correct, region=np.zeros_like(body)))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 15),
    hnp.array_shapes(max_dims=2, max_side=8).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.float64, shape, elements=st.floats(0, 1) | st.sampled_from([0.1, 0.3, 0.7, 1.0])),
            hnp.arrays(np.bool_, shape),
            hnp.arrays(np.bool_, shape),
        )
    ),
)
def test_calibration_is_what_counting_gives(bins: int, arrays: tuple[Floats, Any, Any]) -> None:
    confidence, correct, region = arrays
    curve = calibration_curve(confidence, correct, bins=bins, region=region)
    total, error = int(region.sum()), 0.0
    for row, k in zip(curve.to_dict("records"), range(bins), strict=True):
        last = k == bins - 1
        low, high = np.linspace(0, 1, bins + 1)[k : k + 2]
        inside = [
            (p, right)
            for p, right, counts in zip(confidence.flat, correct.flat, region.flat, strict=True)
            if counts and low <= p and (p < high or last)
        ]
        assert row["n"] == len(inside)
        if not inside:
            assert math.isnan(row["confidence"])
            assert math.isnan(row["accuracy"])
            continue
        sure, right = np.mean([p for p, _ in inside]), np.mean([r for _, r in inside])
        assert (row["confidence"], row["accuracy"]) == pytest.approx((sure, right))
        assert row["low"] - 1e-12 <= row["confidence"] <= row["high"] + 1e-12
        error += len(inside) / total * abs(right - sure)
    found = expected_calibration_error(confidence, correct, bins=bins, region=region)
    assert found == pytest.approx(error if total else math.nan, nan_ok=True)
    if total:
        mean = np.average(curve["confidence"].fillna(0), weights=curve["n"])
        assert mean == pytest.approx(confidence[region].mean())


def test_what_a_calibration_curve_refuses() -> None:
    with pytest.raises(VoxelError, match="confidences lie between 0 and 1, found 2 to 2"):
        calibration_curve([2.0], [True])
    with pytest.raises(ParameterError, match="what is correct is boolean, not int64"):
        calibration_curve([0.5], np.array([1]))
    with pytest.raises(GeometryError, match=r"the region has shape \(2,\), the values \(1,\)"):
        calibration_curve([0.5], [True], region=[True, False])
    with pytest.raises(ParameterError, match="bins must be a whole number of at least 1, not 0"):
        calibration_curve([0.5], [True], bins=0)
    with pytest.raises(GeometryError, match=r"confidences of shape \(0,\): there is nothing in it"):
        calibration_curve([], [])


# Variance and errors


def drawn(shape: tuple[int, int, int] = (3, 6, 5), seed: int = 0) -> tuple[Floats, LabelMap, LabelMap, Any]:
    """Variance of few values (many ties), prediction, reference, region."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 5, shape)
    wrong = rng.random(shape) < 0.3
    prediction = np.where(wrong, (reference + 1) % 5, reference)
    variance = (rng.integers(0, 4, shape) + wrong) / 100
    return variance, label_map(prediction), label_map(reference), rng.random(shape) < 0.8


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_the_curve_counts_pairs(seed: int) -> None:
    variance, prediction, reference, region = drawn(seed=seed)
    differ = prediction.voxels != reference.voxels
    wrong, right = variance[differ & region], variance[~differ & region]
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(wrong, right)]
    found = error_agreement(variance, prediction, reference, region)
    assert found.auc == pytest.approx(np.mean(wins))
    assert (found.mean_wrong, found.mean_right) == pytest.approx((wrong.mean(), right.mean()))
    assert (found.n_wrong, found.n_right) == (wrong.size, right.size)


def test_variance_that_finds_every_error_or_none() -> None:
    _, prediction, reference, region = drawn()
    wrong = prediction.voxels != reference.voxels
    assert error_agreement(wrong.astype(float), prediction, reference, region).auc == 1
    assert error_agreement((~wrong).astype(float), prediction, reference, region).auc == 0
    assert error_agreement(np.zeros(wrong.shape), prediction, reference, region).auc == 0.5


def test_without_errors_there_is_nothing_to_find() -> None:
    variance, prediction, _, region = drawn()
    same = error_agreement(variance, prediction, prediction, region)
    assert math.isnan(same.auc)
    assert math.isnan(same.mean_wrong)
    assert same.mean_right == pytest.approx(variance[region].mean())
    nowhere = error_agreement(variance, prediction, prediction, np.zeros_like(region))
    assert (nowhere.n_wrong, nowhere.n_right) == (0, 0)
    assert math.isnan(nowhere.mean_right)


def test_maps_that_cannot_be_compared() -> None:
    variance, prediction, reference, region = drawn()
    with pytest.raises(GeometryError, match="prediction and reference lie on two grids: shapes"):
        error_agreement(variance, prediction, label_map(np.zeros((1, 2, 2))), region)
    other = LabelMap(reference.voxels, reference.grid, label_set("huashan-11"))
    with pytest.raises(LabelError, match="the prediction is 'thigh-4', the reference 'huashan-11'"):
        error_agreement(variance, prediction, other, region)
    with pytest.raises(ParameterError, match="the region is boolean, not float64"):
        error_agreement(variance, prediction, reference, variance)
    with pytest.raises(VoxelError, match="not below 0"):
        error_agreement(variance - 1, prediction, reference, region)


def test_variance_inside_and_outside_a_tumour() -> None:
    variance = np.array([[1.0, 2, 3], [4, 5, 60]], dtype=np.float32)
    tumour = np.array([[False, False, True], [False, True, True]])
    body = np.array([[True, True, True], [True, True, False]])
    found = uncertainty_inside_outside(variance, tumour, body)
    assert (found.inside, found.outside) == pytest.approx((4, 7 / 3))
    assert (found.n_inside, found.n_outside) == (2, 3)
    none = uncertainty_inside_outside(variance, ~body, body)
    assert math.isnan(none.inside)
    assert (none.n_inside, none.n_outside) == (0, 5)
    with pytest.raises(GeometryError, match=r"the mask has shape \(3,\), the values \(2, 3\)"):
        uncertainty_inside_outside(variance, [True, True, True], body)
    with pytest.raises(ParameterError, match="the region is boolean, not float32"):
        uncertainty_inside_outside(variance, tumour, variance)
    with pytest.raises(VoxelError, match="not below 0"):
        uncertainty_inside_outside(-variance, tumour, body)
