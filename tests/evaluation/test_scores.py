from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal

from musclekit.errors import (
    FormatError,
    GeometryError,
    InputError,
    LabelError,
    MissingFileError,
    OutputError,
    ParameterError,
    SchemaError,
)
from musclekit.evaluation.scores import (
    COLUMNS,
    DEFAULT_METRICS,
    METRICS,
    ReferenceScorer,
    common_label_set,
    failed,
    params_id,
    params_table,
    read_scores,
    score,
    score_table,
    write_scores,
)
from musclekit.image import Grid, LabelMap
from musclekit.labels import label_set
from musclekit.metrics import (
    ReferenceSurface,
    accuracy,
    average_surface_distance,
    dice,
    hausdorff,
    hausdorff95,
    hausdorff95_max,
    jaccard,
    positive_predictive_value,
    sensitivity,
    specificity,
    surface_dice,
    surface_distances,
    volume_error,
)
from musclekit.schemas import check_schema

GRID = Grid.from_spacing((4, 12, 14), (4.0, 1.0, 1.5))


def label_map(ids: NDArray[np.integer], name: str = "functional-3") -> LabelMap:
    return LabelMap(ids, Grid.from_spacing(ids.shape, GRID.spacing), label_set(name))


def random_ids(seed: int, n: int = 4, shape: tuple[int, int, int] = GRID.shape) -> NDArray[np.integer]:
    blocks = np.random.default_rng(seed).integers(0, n, [-(-s // 2) for s in shape])
    return np.kron(blocks, np.ones((2, 2, 2), int))[tuple(slice(s) for s in shape)]


def scored(prediction: LabelMap, reference: LabelMap, **settings: object) -> pd.DataFrame:
    keys = {"case_id": "c1", "subject": "s1", "method": "m"}
    return score(prediction, reference, **(keys | settings))  # type: ignore[arg-type]


def value(frame: pd.DataFrame, label: str, metric: str, side: str = "", slice: int | None = None) -> float:
    chosen = frame[(frame["label"] == label) & (frame["metric"] == metric) & (frame["side"] == side)]
    chosen = chosen[chosen["slice"].isna()] if slice is None else chosen[chosen["slice"] == slice]
    assert len(chosen) == 1
    return float(chosen["value"].iloc[0])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(4, 12, 14), (1, 12, 14)])
def test_scores_are_those_of_the_plain_functions(seed: int, shape: tuple[int, int, int]) -> None:
    found, wanted = label_map(random_ids(seed, shape=shape)), label_map(random_ids(seed + 100, shape=shape))
    frame = scored(found, wanted)
    assert tuple(frame.columns) == COLUMNS
    for label in found.label_set:
        a, b = found.voxels == label.id, wanted.voxels == label.id
        distances = surface_distances(a, b, GRID.spacing)
        error = volume_error(a, b, GRID.voxel_volume_mm3)
        assert value(frame, label.name, "dice") == pytest.approx(dice(a, b))
        assert value(frame, label.name, "volume_error") == pytest.approx(error.ml)
        assert value(frame, label.name, "relative_volume_error") == pytest.approx(error.percent)
        assert value(frame, label.name, "asd") == pytest.approx(average_surface_distance(distances))
        assert value(frame, label.name, "hd95") == pytest.approx(hausdorff95(distances))
        for z in range(shape[0]):
            if (a | b)[z].any():
                assert value(frame, label.name, "dice", slice=z) == pytest.approx(dice(a[z], b[z]))


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_that_of_the_plain_function(seed: int) -> None:
    found, wanted = label_map(random_ids(seed)), label_map(random_ids(seed + 100))
    body = np.random.default_rng(seed).random(GRID.shape) < 0.7
    frame = scored(found, wanted, metrics=tuple(METRICS), body=body)
    for label in found.label_set:
        a, b = found.voxels == label.id, wanted.voxels == label.id
        distances = surface_distances(a, b, GRID.spacing)
        expected = {
            "jaccard": jaccard(a, b),
            "sensitivity": sensitivity(a, b),
            "specificity": specificity(a, b, body),
            "accuracy": accuracy(a, b, body),
            "ppv": positive_predictive_value(a, b),
            "volume": a.sum() * GRID.voxel_volume_mm3 / 1000,
            "reference_volume": b.sum() * GRID.voxel_volume_mm3 / 1000,
            "hd": hausdorff(distances),
            "hd95_max": hausdorff95_max(distances),
            "surface_dice_2mm": surface_dice(distances, 2.0),
        }
        for metric, number in expected.items():
            assert value(frame, label.name, metric) == pytest.approx(number)
        assert value(frame, label.name, "ppv", slice=1) == pytest.approx(positive_predictive_value(a[1], b[1]))
        assert value(frame, label.name, "specificity", slice=2) == pytest.approx(specificity(a[2], b[2], body[2]))
        assert value(frame, label.name, "accuracy", slice=2) == pytest.approx(accuracy(a[2], b[2], body[2]))
    overlap = {"dice", "jaccard", "sensitivity", "specificity", "accuracy", "ppv"}
    assert set(frame.loc[frame["slice"].notna(), "metric"]) == overlap
    check_schema(json.loads(json.dumps(rows_of(frame))), "scores", "the table")


def rows_of(frame: pd.DataFrame) -> list[dict[str, object]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[return-value]


def test_specificity_and_accuracy_are_those_of_the_body() -> None:
    ids = np.zeros(GRID.shape, int)
    ids[1, 2:6, 2:6] = 1  # 16 voxels
    found = np.roll(ids, 1, axis=2)  # 12 in common; 4 beside it, 4 not found
    body = np.zeros(GRID.shape, bool)
    body[:2, 1:9, 1:9] = True  # 128 voxels
    maps = label_map(found, "muscle"), label_map(ids, "muscle")
    asked = ("specificity", "accuracy", "dice")
    frame = scored(*maps, metrics=asked, body=body)
    assert value(frame, "muscle", "specificity") == pytest.approx(108 / 112)
    assert value(frame, "muscle", "accuracy") == pytest.approx(120 / 128)
    assert value(frame, "muscle", "specificity", slice=1) == pytest.approx(44 / 48)
    body[:, :, 6] = False  # where the 4 beside it lie; Dice goes on counting them
    frame = scored(*maps, metrics=asked, body=body)
    assert value(frame, "muscle", "specificity") == 1.0
    assert value(frame, "muscle", "accuracy") == pytest.approx(108 / 112)
    assert value(frame, "muscle", "dice") == pytest.approx(12 / 16)
    with pytest.raises(ParameterError, match="specificity and accuracy can only be told within the body"):
        scored(*maps, metrics=asked)
    with pytest.raises(GeometryError, match="the body mask has shape"):
        scored(*maps, metrics=asked, body=body[0])


def test_slices_can_be_left_out() -> None:
    found, wanted = label_map(random_ids(0)), label_map(random_ids(7))
    volume = scored(found, wanted, slices=False)
    both = scored(found, wanted)
    assert_frame_equal(volume, both[both["slice"].isna()].reset_index(drop=True))
    assert len(both) > len(volume) == 3 * len(DEFAULT_METRICS)


def test_the_metrics_keep_the_order_asked_for() -> None:
    labels = label_map(random_ids(0))
    assert list(scored(labels, labels, metrics=("hd95", "dice"), slices=False)["metric"]) == ["hd95", "dice"] * 3


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            ("dise",),
            "unknown metric 'dise'; did you mean 'dice'. Known: accuracy, asd, dice, hd, hd95, hd95_max, jaccard, ppv",
        ),
        ((), "metrics are one or more names, each once, not none"),
        (("dice", "asd", "dice"), "metrics are one or more names, each once, not dice, asd, dice"),
    ],
)
def test_metrics_that_cannot_be_are_refused(metrics: tuple[str, ...], message: str) -> None:
    labels = label_map(random_ids(0))
    with pytest.raises(InputError, match=message):
        scored(labels, labels, metrics=metrics)
    with pytest.raises(InputError, match=message):
        failed("no", case_id="c", subject="s", method="m", label_set=labels.label_set, metrics=metrics)


def test_nothing_to_divide_by_is_undefined() -> None:
    ids = np.zeros(GRID.shape, int)
    ids[1, 3:6, 3:6] = 1
    empty = np.zeros_like(ids)
    metrics = ("dice", "sensitivity", "ppv", "volume")
    missed = scored(label_map(empty), label_map(ids), metrics=metrics)
    missed = missed[missed["label"] == "extensor"].fillna({"slice": 99}).set_index(["metric", "slice"])
    assert missed.loc[("ppv", 99), "status"] == missed.loc[("ppv", 1), "status"] == "undefined"
    assert missed.loc[("sensitivity", 99), "value"] == missed.loc[("dice", 1), "value"] == 0
    assert (missed.loc[("volume", 99), "value"], missed.loc[("volume", 99), "status"]) == (0, "ok")


@given(st.integers(0, 2**32 - 1), st.sampled_from(["functional-3", "thigh-4", "huashan-11", "muscle"]))
@settings(max_examples=25, deadline=None)
def test_a_reference_made_ready_scores_as_one_that_is_not(seed: int, name: str) -> None:
    reference, other = label_set("huashan-11"), label_set(name)
    wanted = label_map(random_ids(seed, n=12), reference.name)
    predictions = [label_map(random_ids(seed + k, n=len(s) + 1), s.name) for k, s in enumerate((other, reference))]
    target = common_label_set(other, reference)
    body = np.random.default_rng(seed).random(wanted.grid.shape) < 0.7
    ready = ReferenceScorer(wanted, label_set=target, metrics=tuple(METRICS), body=body)
    for prediction in predictions:
        alone = scored(prediction, wanted, label_set=target, metrics=tuple(METRICS), body=body)
        assert_frame_equal(alone, score_table(ready.scores(prediction), case_id="c1", subject="s1", method="m"))
        mirrored, truth = (m.with_voxels(m.voxels[:, ::-1]) for m in (prediction, wanted))
        turned = scored(mirrored, truth, label_set=target, metrics=tuple(METRICS), body=body[:, ::-1])
        assert_frame_equal(alone, turned)  # no metric knows which way is front
        exchanged = scored(wanted, prediction, label_set=target, metrics=("dice", "jaccard", "asd", "hd95"))
        same = alone[alone["metric"].isin(exchanged["metric"])].reset_index(drop=True)
        assert_frame_equal(exchanged, same)


def test_the_surfaces_of_a_reference_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> ReferenceSurface:
        made.append(mask.shape)
        return ReferenceSurface(mask, spacing)

    monkeypatch.setattr("musclekit.evaluation.scores.ReferenceSurface", counted)
    ids = np.zeros((4, 20, 20), np.uint8)
    ids[1:3, 8:12, 8:12] = 1
    ready = ReferenceScorer(label_map(ids, "muscle"), metrics=("asd", "hd"))
    # Larger, smaller, moved within the window, none at all; one that is larger than the window.
    shapes = [(5, 15, 5, 15), (9, 11, 9, 11), (6, 10, 7, 14), (0, 0, 0, 0), (0, 20, 0, 20), (5, 15, 5, 15)]
    for n, (top, bottom, left, right) in enumerate(shapes):
        prediction = np.zeros_like(ids)
        prediction[1:3, top:bottom, left:right] = 1
        found = ready.scores(label_map(prediction, "muscle"))
        distances = surface_distances(prediction == 1, ids == 1, GRID.spacing)
        expected = [average_surface_distance(distances), hausdorff(distances)]
        assert [row.value for row in found] == pytest.approx(expected, rel=1e-12)
        assert len(made) == (1 if n < 4 else 2)


def test_another_grid_is_refused_by_a_reference_made_ready() -> None:
    labels = label_map(random_ids(0))
    with pytest.raises(GeometryError, match="prediction and reference lie on two grids"):
        ReferenceScorer(labels).scores(label_map(random_ids(0, shape=(3, 12, 14))))


@pytest.mark.parametrize("plane", [0, 2, 3])
def test_a_label_of_one_plane_is_measured_in_its_volume(plane: int) -> None:
    ids = np.zeros(GRID.shape, int)
    ids[plane, 3:8, 3:8] = 1
    moved = np.roll(ids, 1, axis=2)
    frame = scored(label_map(ids), label_map(moved))
    distances = surface_distances(ids == 1, moved == 1, GRID.spacing)
    assert value(frame, "extensor", "asd") == pytest.approx(average_surface_distance(distances)) == pytest.approx(0.3)


def test_empty_masks_say_what_they_are() -> None:
    ids = np.zeros(GRID.shape, int)
    ids[1:3, 3:6, 3:6] = 1
    other = np.where(ids, 2, 0)
    frame = scored(label_map(ids), label_map(other))
    volume = frame[frame["slice"].isna()]
    assert set(volume.loc[volume["label"] == "adductor", "status"]) == {"undefined"}
    assert volume.loc[volume["label"] == "adductor", "value"].isna().all()
    assert set(volume.loc[volume["label"] != "adductor", "status"]) == {"ok"}
    assert value(frame, "extensor", "dice") == value(frame, "flexor", "dice") == 0
    assert value(frame, "extensor", "asd") == value(frame, "flexor", "hd95") == np.inf
    assert value(frame, "extensor", "relative_volume_error") == np.inf
    assert value(frame, "flexor", "relative_volume_error") == -100
    assert set(frame["slice"].dropna()) == {1, 2}  # where neither map has a label there is no slice to score


def test_units_and_keys() -> None:
    labels = label_map(random_ids(0))
    frame = scored(labels, labels, side="left", fold="3", params_id="0123456789")
    assert dict(zip(frame["metric"], frame["unit"], strict=True)) == {name: METRICS[name] for name in DEFAULT_METRICS}
    assert set(frame["side"]) == {"left"}
    assert set(frame["fold"]) == {"3"}
    assert set(frame["params_id"]) == {"0123456789"}
    assert (frame.loc[frame["metric"] == "dice", "value"] == 1).all()


def test_sided_labels_are_scored_by_side() -> None:
    labels = label_map(random_ids(1, n=7), "functional-3-sided")
    frame = scored(labels, labels, side="unknown")
    assert set(zip(frame["side"], frame["label"], strict=True)) == {
        (side, name) for side in ("left", "right") for name in ("extensor", "flexor", "adductor")
    }


def test_other_sets_are_mapped() -> None:
    reference = label_map(random_ids(2, n=12), "huashan-11")
    expected = label_map(reference.mask("sartorius").astype(int) * 4, "thigh-4")
    frame = scored(expected, reference)
    assert set(frame["label"]) == {"gracilis", "hamstrings", "quadriceps femoris", "sartorius"}
    assert value(frame, "sartorius", "dice") == 1
    assert value(frame, "gracilis", "dice") == 0
    muscle = scored(label_map((reference.voxels > 0).astype(int), "tissue"), reference, label_set=label_set("muscle"))
    assert value(muscle, "muscle", "dice") == 1


def test_the_set_of_the_reference_comes_first() -> None:
    huashan, four, muscle = label_set("huashan-11"), label_set("thigh-4"), label_set("muscle")
    assert common_label_set(huashan, four) == four
    assert common_label_set(four, huashan) == four
    assert common_label_set(huashan, muscle.sided().unsided()) == muscle
    assert common_label_set(huashan, huashan.sided()) == huashan


def test_sets_without_a_way_are_refused() -> None:
    with pytest.raises(LabelError, match="'tissue' and 'huashan-11' cannot be compared label by label; ask for one"):
        common_label_set(label_set("tissue"), label_set("huashan-11"))
    with pytest.raises(LabelError, match="both map to: muscle"):
        common_label_set(label_set("tissue"), label_set("thigh-4"))
    with pytest.raises(LabelError, match="no set joins them"):
        common_label_set(label_set("compartment"), label_set("thigh-4"))


def test_another_grid_is_refused() -> None:
    here = label_map(random_ids(0))
    there = LabelMap(here.voxels, Grid.from_spacing(GRID.shape, GRID.spacing, (0, 0, 3)), here.label_set)
    with pytest.raises(GeometryError, match="prediction and reference lie on two grids: corners lie up to 3 mm apart"):
        scored(here, there)


def test_a_failure_is_rows_with_the_reason() -> None:
    frame = failed("no bone\nfound", case_id="c1", subject="s1", method="m", label_set=label_set("thigh-4"))
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 4 * len(DEFAULT_METRICS)
    assert set(frame["status"]) == {"failed: no bone found"}
    assert frame["value"].isna().all()
    alone = failed("", case_id="c1", subject="s1", method="m")
    assert list(alone["status"]) == ["failed: no reason given"]


def table() -> pd.DataFrame:
    parts = [scored(label_map(random_ids(0)), label_map(random_ids(9)), case_id="NA", subject="007")]
    parts.append(failed('it rained, "hard"', case_id="c2", subject="s2", method="m", label_set=label_set("muscle")))
    empty = label_map(np.zeros(GRID.shape, int))
    parts.append(scored(empty, label_map(random_ids(1)), case_id="c3"))
    return pd.concat([*parts, scored(empty, empty, case_id="c4")], ignore_index=True)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_scores(table(), path)
    again = read_scores(path)
    pd.testing.assert_frame_equal(again, table(), rtol=1e-5)
    assert set(again["case_id"]) == {"NA", "c2", "c3", "c4"}
    assert np.isinf(again["value"]).any()
    assert sorted(tmp_path.iterdir()) == [path]


def test_the_same_scores_are_the_same_bytes(tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "a.csv")
    write_scores(read_scores(tmp_path / "a.csv"), tmp_path / "b.csv")
    write_scores(table()[list(reversed(COLUMNS))], tmp_path / "c.csv")
    first = (tmp_path / "a.csv").read_bytes()
    assert first == (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert first.startswith(b"case_id,subject,side,slice,fold,method,params_id,label,metric,value,unit,status\n")
    assert b"\r" not in first


def test_other_columns_are_kept(tmp_path: Path) -> None:
    write_scores(table().assign(grade="severe"), tmp_path / "scores.csv")
    assert set(read_scores(tmp_path / "scores.csv")["grade"]) == {"severe"}


def test_the_schema_takes_the_rows() -> None:
    rows = rows_of(table())
    finite = [row for row in rows if row["value"] is None or np.isfinite(row["value"])]
    check_schema(json.loads(json.dumps(finite, allow_nan=False)), "scores", "the table")
    with pytest.raises(SchemaError, match=r"the table: at \[0\]\[metric\]: 'overlap' is not one of"):
        check_schema([finite[0] | {"metric": "overlap"}], "scores", "the table")


@pytest.mark.parametrize(
    ("column", "wrong", "message"),
    [
        ("case_id", "", "column 'case_id': '' should be non-empty"),
        ("side", "middle", "column 'side': 'middle' is not one of"),
        ("metric", "overlap", "column 'metric': 'overlap' is not one of"),
        ("status", "bad", "column 'status': 'bad' does not match"),
        ("slice", "1.5", "column 'slice': '1.5' is no whole number"),
        ("slice", "-1", "column 'slice': -1 is less than the minimum of 0"),
        ("value", "high", "column 'value': 'high' is no number"),
        ("params_id", "xyz", "column 'params_id': 'xyz' does not match"),
    ],
)
def test_a_table_that_breaks_the_schema_is_refused(tmp_path: Path, column: str, wrong: str, message: str) -> None:
    path = tmp_path / "scores.csv"
    frame = table().astype(object).where(table().notna(), "")
    frame.loc[3, column] = wrong
    frame.to_csv(path, index=False)
    with pytest.raises(SchemaError) as caught:
        read_scores(path)
    assert f"{path}: line 5, {message}" in str(caught.value)


def test_a_score_without_a_value_is_refused(tmp_path: Path) -> None:
    frame = table()
    frame.loc[2, "value"] = np.nan
    with pytest.raises(SchemaError, match="the score table: line 4: the status is ok, but there is no value"):
        write_scores(frame, tmp_path / "scores.csv")
    assert not list(tmp_path.iterdir())


def test_missing_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("case_id,subject,side,slice,fold,method,params_id,label,metric,value\n")
    with pytest.raises(SchemaError, match="the columns unit, status of a score table is missing"):
        read_scores(tmp_path / "scores.csv")


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.csv: no such file"):
        read_scores(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FormatError, match=r"empty\.csv: not a CSV table: No columns"):
        read_scores(tmp_path / "empty.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(FormatError, match=r"binary\.csv: not a CSV table"):
        read_scores(tmp_path / "binary.csv")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a parent of it is a file; choose another folder"):
        write_scores(table(), tmp_path / "file" / "scores.csv")


def test_params_ids_know_a_method_by_its_parameters() -> None:
    plain = {"name": "gmm", "mode": "exact", "n": 3}
    assert params_id(plain) == params_id({"n": 3, "mode": "exact", "name": "gmm"}) == "833970d587"
    assert params_id(plain) != params_id(plain | {"n": 4})
    assert len(params_id(plain)) == 10
    assert int(params_id(plain), 16) >= 0


def test_the_params_table_says_what_an_id_stands_for() -> None:
    nested = {"name": "translated", "translator": {"name": "n4", "spline_mm": 80.0}, "segmenter": {"name": "gmm"}}
    frame = params_table([nested, nested, {"name": "gmm"}])
    assert list(frame.columns) == ["params_id", "parameter", "value"]
    mine = frame[frame["params_id"] == params_id(nested)]
    assert dict(zip(mine["parameter"], map(json.loads, mine["value"]), strict=True)) == {
        "name": "translated",
        "translator__name": "n4",
        "translator__spline_mm": 80.0,
        "segmenter__name": "gmm",
    }
    assert len(frame) == 5
