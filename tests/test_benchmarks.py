"""What the benchmarks work out of tables; that they run is tried where they are run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.thigh import PHANTOMS, PLANS, subject_of, write_manifest
from benchmarks.thigh_fine_tuned import plan_of
from benchmarks.toml import toml_of
from benchmarks.trust_tables import correlation_over_people, predicted_errors, psv_table, true_volumes
from benchmarks.unets_tables import ALL, over_seeds, with_means
from musclekit.io import read_manifest
from musclekit.neural.training.segmenter_plan import read_segmenter_plan
from musclekit.segmenters.thigh import WEIGHTS
from musclekit.statistics import partial_correlation, pearson


def people(n: int = 12, each: int = 8, shared: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = rng.normal(0, 1, n * each)
    common = np.repeat(rng.normal(0, 1, n), each)
    psv = 0.02 + 0.003 * (shared * common + (1 - shared) * rng.normal(0, 1, n * each)) - 0.001 * size
    dice = 0.9 - 6 * (psv - 0.02) + 0.01 * size + 0.01 * rng.normal(0, 1, n * each)
    return pd.DataFrame(
        {
            "subject": np.repeat([f"s{i}" for i in range(n)], each),
            "fold": np.repeat([str(i % 4) for i in range(n)], each),
            "structure": ["a", "b"] * (n * each // 2),
            "psv": np.abs(psv),
            "dice": dice.clip(0, 1),
            "true_ml": np.exp(size + 5),
        }
    )


def test_correlations_over_people_are_those_of_all_points() -> None:
    table = people()
    x, y, z = table["psv"], table["dice"], np.log(table["true_ml"])
    assert correlation_over_people(x, y, table["subject"])[0] == pytest.approx(pearson(x, y).estimate)
    found = correlation_over_people(x, y, table["subject"], z)[0]
    assert found == pytest.approx(partial_correlation(x, y, z).estimate)


def test_points_of_one_person_that_are_alike_make_the_interval_wider() -> None:
    def width(shared: float) -> float:
        table = people(shared=shared, seed=3)
        # Persons differ in either, and are themselves in all of their points.
        rng = np.random.default_rng(1)
        noise = pd.Series(rng.normal(0, 1, 12), index=[f"s{i}" for i in range(12)])
        other = table["subject"].map(noise) * shared + rng.normal(0, 1, len(table)) * (1 - shared)
        _, low, high = correlation_over_people(table["psv"], other, table["subject"])
        return high - low

    assert width(0.9) > 1.8 * width(0.0)


def test_few_people_or_one_value_have_no_correlation() -> None:
    table = people(4)
    assert all(map(math.isnan, correlation_over_people(table["psv"], table["dice"], table["subject"])))
    table = people(6).assign(dice=0.5)
    assert math.isnan(correlation_over_people(table["psv"], table["dice"], table["subject"])[0])


def test_a_fold_is_told_by_the_others() -> None:
    # Without noise every line is the same, and the Dice is foretold exactly; the mean is not.
    table = people().assign(dice=lambda one: 0.95 - 4 * one["psv"])
    found = predicted_errors(table, "a", 20)
    assert len(found) == len(table)
    assert found["by_line"].max() < 1e-9
    assert found["by_mean"].mean() > 0.005
    # A fold whose structures are all bad does not foretell itself.
    odd = table.assign(dice=np.where(table["fold"] == "0", 0.1, table["dice"]))
    errors = predicted_errors(odd, "a", 20).assign(fold=odd["fold"].sort_values(kind="stable").to_numpy())
    assert errors.loc[errors["fold"] == "0", "by_line"].min() > 0.5


def test_the_table_has_a_row_of_all_and_of_each_structure() -> None:
    lines = psv_table(people(), "a", 20)
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["all", "a", "b"]
    assert all("| 12 |" in line for line in lines[2:])


def test_true_volumes_follow_from_the_errors() -> None:
    rows = [
        {"case_id": "c", "label": label, "side": "left", "slice": None, "metric": metric, "value": value}
        for label, found, true in (("a", 110.0, 100.0), ("b", 50.0, 50.0))
        for metric, value in (("volume_error", found - true), ("relative_volume_error", 100 * (found - true) / true))
    ]
    table = true_volumes(pd.DataFrame(rows)).set_index("structure")["true_ml"]
    assert table["a"] == pytest.approx(100)
    assert math.isnan(table["b"])


def scores(values: dict[str, float], metric: str = "dice", method: str = "net") -> pd.DataFrame:
    rows = [
        {"case_id": "c", "subject": "s", "side": "left", "slice": None, "fold": "", "method": method, "params_id": "p",
         "metric": metric, "unit": "", "label": label, "value": value, "status": "ok"}
        for label, value in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_means_count_a_muscle_that_is_not_found_in_the_dice_and_not_in_the_distance() -> None:
    both = pd.concat([scores({"a": 0.9, "b": 0.0}), scores({"a": 1.0, "b": math.inf}, "asd")])
    means = with_means(both).query("label == @ALL").set_index("metric")["value"]
    assert means.to_dict() == {"dice": pytest.approx(0.45), "asd": 1.0}
    assert ALL not in {"a", "b"}


def test_of_several_seeds_scores_are_means() -> None:
    first, second = scores({"a": 0.8, "b": 0.6}), scores({"a": 0.6, "b": 0.6}).assign(params_id="q")
    found = over_seeds([first, scores({"a": 0.1}, method="other"), second])
    assert found[["method", "label", "value"]].to_numpy().tolist() == [
        ["net", "a", pytest.approx(0.7)],
        ["net", "b", 0.6],
        ["other", "a", 0.1],
    ]


def test_the_plans_of_the_thigh_can_be_trained() -> None:
    first, *others = [read_segmenter_plan(path) for path in PLANS.values()]
    assert first.synthesis is not None
    assert first.labels.name == "thigh-context"
    for plan in others:
        # Each training may start from the one before, and chooses its epoch by the same people.
        assert plan.network_parameters == first.network_parameters
        assert (plan.seed, plan.validation_share) == (first.seed, first.validation_share)


def test_the_plan_of_real_scans_starts_from_the_weights_that_ship(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(toml_of(plan_of(2)), encoding="utf-8")
    assert read_segmenter_plan(path).start == WEIGHTS


def test_label_maps_of_one_number_are_one_person(tmp_path: Path) -> None:
    assert subject_of("Training_T1_THIGH_031_0002") == subject_of("Training_Fat_THIGH_031_0000") == "huashan-031"
    assert subject_of("Helsinki_STIR_THIGH_112_0001") == "helsinki-112"
    assert subject_of("MyoSegmenTUM_Fat_HV005_1_0000") == "myosegmentum-HV005"
    (tmp_path / "huashan_labels").mkdir()
    for name in ("Training_T1_THIGH_003_0002", "Training_T1_THIGH_031_0002"):
        (tmp_path / "huashan_labels" / f"{name}.nii.gz").touch()
    write_manifest(tmp_path, tmp_path / "maps.csv")
    subjects = [row.subject for row in read_manifest(tmp_path / "maps.csv")]
    assert [name for name in subjects if not name.startswith("digital")] == ["huashan-031"]
    assert len(set(subjects)) == 1 + PHANTOMS
