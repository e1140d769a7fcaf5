from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import (
    CheckpointError,
    InputError,
    LabelError,
    LeakError,
    MissingFileError,
    ParameterError,
    SegmentationError,
)
from musclekit.evaluation import read_scores
from musclekit.image import Image, Prediction
from musclekit.io import read_labels, read_manifest, write_labels, write_manifest
from musclekit.labels import label_set
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import read_card
from musclekit.schemas import check_schema
from musclekit.segmenters.network import NetworkSegmenter
from musclekit.uncertainty import DiceCalibration
from musclekit.workflows import open_cases, segment_scans, train_segmenter_on_manifest, validate_file, write_phantoms

PLAN = """
kind = "train"
task = "segment"
labels = "{labels}"
contrasts = ["ct"]
view = {{ kind = "leg", spacing_mm = 6, size = [32, 32] }}
network = {{ name = "bayesian-unet", width = 4, depth = 3, dropout = 0.1 }}
schedule = {{ epochs = 2, batch = 4, learning_rate = 0.01 }}
{more}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four phantoms on CT; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    write_phantoms(folder, subjects=4, modalities=("ct",), slices=2, size=64, seed=3)
    return folder


@pytest.fixture
def cases(people: Path, tmp_path: Path) -> Path:
    """The manifest of the four, to be changed."""
    shutil.copytree(people, tmp_path / "cases")
    return tmp_path / "cases" / "manifest.csv"


def plan(tmp_path: Path, *, labels: str = "thigh-11", more: str = "") -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(labels=labels, more=more), encoding="utf-8")
    return path


def test_a_training_stops_goes_on_and_says_what_it_did(people: Path, tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "out"
    arguments = (plan(tmp_path, more="validation_share = 0.25\nsheet_every = 1"), people / "manifest.csv", out)
    first = train_segmenter_on_manifest(*arguments, until=1, jobs=1)
    assert (first.epochs_done, first.epochs) == (1, 2)
    done = train_segmenter_on_manifest(*arguments, jobs=1, progress=lambda *line: told.append(str(line[2])))
    assert done.epochs_done == 2
    assert told[-1].startswith("epoch 2/2: loss ")
    card = read_card(done.networks[0], SegmenterCard)
    assert len(card.training_subjects) == 3
    assert len(card.validation_subjects) == 1
    assert card.scores["validation_dice"] >= 0
    assert validate_file(out / "report.json")["kind"] == "report"
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["command"] == "train"
    assert len(record["inputs"]) == 2 + 2 * 4
    assert sorted(path.name for path in (out / "sheets").iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    assert any("labels without a place in the network's set" in line and "femur" in line for line in done.warnings)


def test_folds_score_every_case_by_a_network_that_did_not_learn_from_it(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, folds="leave-one-out", jobs=1)
    folds = pd.read_csv(out / "folds.csv", dtype=str)
    assert list(folds["case_id"]) == ["sub-01_ct", "sub-02_ct", "sub-03_ct", "sub-04_ct"]
    for path, (_, row) in zip(done.networks, folds.iterrows(), strict=True):
        assert row["subject"] not in read_card(path, SegmenterCard).training_subjects
    scores = read_scores(out / "scores.csv")
    assert set(scores["case_id"]) == set(folds["case_id"])
    assert set(scores["status"]) == {"ok"}
    assert scores.groupby("case_id")["fold"].nunique().eq(1).all()
    trust = pd.read_csv(out / "uncertainty.csv")
    assert len(trust) == 4 * 2 * 11
    dice = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    merged = trust.merge(dice, left_on=["case_id", "structure", "side"], right_on=["case_id", "label", "side"])
    assert len(merged) == len(trust)
    pd.testing.assert_series_equal(merged["dice"], merged["value"], check_names=False)
    check_schema(json.loads((out / "calibration.json").read_text(encoding="utf-8")), "calibration", "the calibration")
    calibration = DiceCalibration.load(out / "calibration.json")
    assert calibration.model == read_card(done.networks[0], SegmenterCard).family


def test_a_calibration_goes_with_networks_of_its_plan_alone(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    done = train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, folds="2", jobs=1)
    other = train_segmenter_on_manifest(
        plan(tmp_path, more="augmentation = { shift = 0.1 }"), people / "manifest.csv", tmp_path / "other", jobs=1
    )
    scan, file = people / "sub-01_ct.nii.gz", out / "calibration.json"

    def method(path: Path, samples: int) -> dict[str, object]:
        return {"name": "bayesian-unet", "checkpoint": str(path), "samples": samples}

    found = segment_scans([scan], tmp_path / "a", method=method(done.networks[0], 20), calibration=file)
    table = pd.read_csv(found.scans[0].folder / f"{found.scans[0].name}_uncertainty.csv")  # type: ignore[operator]
    assert {"psv", "volume_ml", "volume_low", "volume_high", "predicted_dice"} <= set(table.columns)
    with pytest.raises(CheckpointError, match="the calibration of the Dice was made for number of samples 20, not 5"):
        segment_scans([scan], tmp_path / "b", method=method(done.networks[0], 5), calibration=file)
    with pytest.raises(CheckpointError, match="the calibration of the Dice was made for model"):
        segment_scans([scan], tmp_path / "c", method=method(other.networks[0], 20), calibration=file)
    with pytest.raises(ParameterError, match="a calibration is for a trained network that is sampled: set samples"):
        segment_scans([scan], tmp_path / "d", method=method(done.networks[0], 0), calibration=file)
    with pytest.raises(ParameterError, match="a calibration is for a trained network that is sampled"):
        segment_scans([scan], tmp_path / "e", calibration=file)


def test_cases_without_labels_are_left_out_and_named(cases: Path, tmp_path: Path) -> None:
    rows = read_manifest(cases)
    write_manifest([replace(rows[0], labels=None), *rows[1:]], cases)
    done = train_segmenter_on_manifest(plan(tmp_path), cases, tmp_path / "out", jobs=1)
    assert "1 of 4 cases have no label map and are left out: sub-01_ct" in done.warnings


def test_the_manifest_may_say_what_label_maps_mean(cases: Path, tmp_path: Path) -> None:
    for table in cases.parent.glob("*_dseg.tsv"):
        table.unlink()
    with pytest.raises(InputError, match="what the ids mean is not known; give --label-set"):
        train_segmenter_on_manifest(plan(tmp_path), cases, tmp_path / "out", jobs=1)
    lines = cases.read_text(encoding="utf-8").splitlines()
    named = [f"{lines[0]},label_set", *(f"{line},thigh-full-sided" for line in lines[1:])]
    cases.write_text("\n".join(named) + "\n", encoding="utf-8")
    assert train_segmenter_on_manifest(plan(tmp_path), cases, tmp_path / "out", jobs=1).epochs_done == 2


def refusal(error: type[Exception], tmp_path: Path, cases: Path, *, folds: str | None = None, **said: str) -> str:
    with pytest.raises(error) as caught:
        train_segmenter_on_manifest(plan(tmp_path, **said), cases, tmp_path / "refused", folds=folds, jobs=1)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_learnt_is_refused(people: Path, tmp_path: Path) -> None:
    cases = people / "manifest.csv"
    message = refusal(LabelError, tmp_path, cases, labels="hip-thigh-22")
    assert "no map from 'thigh-full' to 'hip-thigh-22'" in message
    message = refusal(LabelError, tmp_path, cases, labels="thigh-10")
    assert "the cases to train on show no tensor fasciae latae" in message
    assert "folds are a number or 'leave-one-out', not 'five'" in refusal(ParameterError, tmp_path, cases, folds="five")
    message = refusal(ParameterError, tmp_path, cases, folds="9")
    assert "the number of folds lies between 2 and the number of subjects, 4" in message
    message = refusal(InputError, tmp_path, cases, more='split = "train"')
    assert message.endswith("no labelled case is in split 'train'; there are: none")
    message = refusal(InputError, tmp_path, cases, more="validation_share = 0.9")
    assert "4 subjects cannot be shared out with validation_share = 0.9" in message


def test_a_fold_that_lacks_a_label_is_named(cases: Path, tmp_path: Path) -> None:
    # All but one person lose a muscle: the fold that leaves this person out cannot learn it.
    for n in (2, 3, 4):
        path = cases.parent / f"sub-0{n}_ct_dseg.nii.gz"
        labels = read_labels(path, label_set("thigh-full-sided"))
        kept = np.where(labels.mask("gracilis"), 0, labels.voxels)
        write_labels(labels.with_voxels(kept), path)
    message = refusal(LabelError, tmp_path, cases, folds="leave-one-out")
    assert message.startswith("fold 'sub-01': the cases to train on show no gracilis")


def test_splits_have_to_be_named(cases: Path, tmp_path: Path) -> None:
    parts = ["train", "train", "validation", "test"]
    write_manifest([replace(row, split=part) for row, part in zip(read_manifest(cases), parts, strict=True)], cases)
    assert 'say in the plan which are trained on, as split = "train"' in refusal(InputError, tmp_path, cases)
    # Who is to be tested is not learnt from, whatever else the plan names.
    some = 'validation_split = "validation"'
    assert "say in the plan which are trained on" in refusal(InputError, tmp_path, cases, more=some)
    more = 'split = "train"\nvalidation_split = "validation"'
    done = train_segmenter_on_manifest(plan(tmp_path, more=more), cases, tmp_path / "out", jobs=1)
    card = read_card(done.networks[0], SegmenterCard)
    assert (card.training_subjects, card.validation_subjects) == (("sub-01", "sub-02"), ("sub-03",))


def test_where_some_are_kept_apart_the_others_have_to_be_named(cases: Path, tmp_path: Path) -> None:
    rows = read_manifest(cases)
    write_manifest([*rows[:3], replace(rows[3], split="test")], cases)
    assert "its column split parts the subjects (test)" in refusal(InputError, tmp_path, cases)


@pytest.fixture(scope="module")
def single_legs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of four phantoms whose scans show one leg, by turns the left and the right; not to be changed."""
    folder = tmp_path_factory.mktemp("legs")
    write_phantoms(folder, subjects=4, modalities=("ct",), slices=2, size=64, seed=3, leg="alternate")
    return folder / "manifest.csv"


def test_single_legs_are_scored_as_the_side_that_the_manifest_names(single_legs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = train_segmenter_on_manifest(plan(tmp_path), single_legs, out, folds="2", jobs=1)
    assert not any("unknown side" in line for line in done.warnings)
    trust = pd.read_csv(out / "uncertainty.csv", keep_default_na=False, na_values=["nan", "NaN"])
    assert len(trust) == 4 * 11
    assert trust.groupby("case_id")["side"].unique().map(list).tolist() == [["left"], ["right"]] * 2
    # What `segment --side` gives of a left leg is what was scored.
    folds = pd.read_csv(out / "folds.csv", dtype=str).set_index("case_id")["fold"]
    case_id = "sub-01_ct"
    scan = single_legs.parent / f"{case_id}.nii.gz"
    method = {"name": "bayesian-unet", "checkpoint": str(out / f"fold-{folds[case_id]}" / "network.pt"), "samples": 20}
    told = segment_scans([scan], tmp_path / "told", method=method, side="left")
    alone = pd.read_csv(told.scans[0].folder / f"{told.scans[0].name}_uncertainty.csv")  # type: ignore[operator]
    scored = trust[trust["case_id"] == case_id].reset_index(drop=True)
    same = ["structure", "side", "voxels", "volume_ml"]
    pd.testing.assert_frame_equal(scored[same], alone[same])


def test_a_dice_that_cannot_be_foretold_is_a_warning_and_nothing_is_lost(single_legs: Path, tmp_path: Path) -> None:
    # Nobody says which legs they are, and of two cases there are fewer pairs than a line needs.
    rows = [replace(row, side=None) for row in read_manifest(single_legs) if row.side == "right"]
    manifest = single_legs.parent / "two.csv"
    write_manifest(rows, manifest)
    out = tmp_path / "out"
    done = train_segmenter_on_manifest(plan(tmp_path), manifest, out, folds="2", jobs=1)
    assert any("calibration.json is not written: no structure can be calibrated" in line for line in done.warnings)
    assert done.calibration is None
    assert (out / "report.html").is_file()
    assert (out / "run.json").is_file()
    trust = pd.read_csv(out / "uncertainty.csv")
    assert trust.loc[trust["voxels"] > 0, "dice"].notna().all()


def test_the_name_of_a_subject_makes_no_folder(cases: Path, tmp_path: Path) -> None:
    rows = read_manifest(cases)
    write_manifest([replace(row, subject=f"a/../../{row.subject}") for row in rows], cases)
    out = tmp_path / "out"
    train_segmenter_on_manifest(plan(tmp_path), cases, out, folds="leave-one-out", jobs=1, until=1)
    assert sorted(path.name for path in out.iterdir() if path.is_dir())[0] == "fold-a_.._.._sub-01"
    assert {path.name for path in tmp_path.iterdir()} == {"cases", "out", "plan.toml"}
    names = ["a/b", "a_b", "c", "d"]
    write_manifest([replace(row, subject=name) for row, name in zip(rows, names, strict=True)], cases)
    message = refusal(InputError, tmp_path, cases, folds="leave-one-out")
    assert "two subjects would share the folder 'fold-a_b'; name them differently" in message


def test_a_training_starts_from_a_checkpoint_and_scores_nobody_that_it_knows(people: Path, tmp_path: Path) -> None:
    manifest = people / "manifest.csv"
    first = train_segmenter_on_manifest(plan(tmp_path), manifest, tmp_path / "first", jobs=1)
    network = tmp_path / "first" / "network.pt"
    assert first.networks == (network,)
    again = train_segmenter_on_manifest(plan(tmp_path), manifest, tmp_path / "again", start=str(network), jobs=1)
    assert read_card(again.networks[0], SegmenterCard).start["name"] == "bayesian-unet"
    # In a plan the file is looked for beside it.
    named = plan(tmp_path, more='start = "first/network.pt"')
    train_segmenter_on_manifest(named, manifest, tmp_path / "named", jobs=1)
    assert (tmp_path / "named" / "network.pt").read_bytes() == again.networks[0].read_bytes()
    with pytest.raises(LeakError, match=r"learnt from subject 'sub-0\d', who is left out to be scored"):
        train_segmenter_on_manifest(named, manifest, tmp_path / "folds", folds="2", jobs=1)
    with pytest.raises(MissingFileError, match=r"nowhere\.pt: no such file"):
        train_segmenter_on_manifest(plan(tmp_path, more='start = "nowhere.pt"'), manifest, tmp_path / "none")


def test_a_folder_of_another_training_is_refused(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, jobs=1)
    with pytest.raises(InputError, match=r"holds another training \(it differs in: seed\)"):
        train_segmenter_on_manifest(plan(tmp_path, more="seed = 9"), people / "manifest.csv", out, jobs=1)
    with pytest.raises(InputError, match="holds the results of another run"):
        train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, folds="2", jobs=1)


def test_an_interrupted_training_keeps_its_folder(people: Path, tmp_path: Path) -> None:
    def stop(done: float, total: float, text: str) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, folds="2", jobs=1, progress=stop)
    with pytest.raises(InputError, match=r"holds the results of another run \(it differs in: folds\)"):
        train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, jobs=1)
    assert train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", out, folds="2", jobs=1).scores


def test_a_network_of_two_contrasts_is_scored_on_both(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "two", subjects=3, modalities=("dixon",), slices=2, size=64, seed=3)
    text = PLAN.format(labels="thigh-11", more="").replace('contrasts = ["ct"]', 'contrasts = ["fat", "water"]')
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    train_segmenter_on_manifest(tmp_path / "plan.toml", tmp_path / "two" / "manifest.csv", out, folds="3", jobs=1)
    scores = read_scores(out / "scores.csv")
    assert sorted(set(scores["method"])) == ["bayesian-unet on fat", "bayesian-unet on water"]
    assert scores.groupby("method")["case_id"].nunique().tolist() == [3, 3]
    trust = pd.read_csv(out / "uncertainty.csv")
    assert len(trust) == 3 * 2 * 2 * 11


def test_a_case_that_cannot_be_segmented_is_named_and_the_others_are_scored(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = NetworkSegmenter.predict

    def broken(self: NetworkSegmenter, image: Image) -> Prediction:
        if not seen:
            seen.append(image)
            raise SegmentationError("there is no body in it")
        return segment(self, image)

    seen: list[Image] = []
    monkeypatch.setattr(NetworkSegmenter, "predict", broken)
    done = train_segmenter_on_manifest(plan(tmp_path), people / "manifest.csv", tmp_path / "out", folds="2", jobs=1)
    (failure,) = done.failures
    assert failure.message == "there is no body in it"
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert scores.groupby("case_id")["status"].first().str.startswith("failed").sum() == 1
    assert done.calibration is not None


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of the label maps of three phantoms, without an image."""
    folder = tmp_path_factory.mktemp("maps")
    cohort = write_phantoms(folder, subjects=3, modalities=("ct",), slices=3, size=64, seed=4, reference="thigh-11")
    rows = read_manifest(cohort)
    write_manifest([replace(row, image=None) for row in rows], folder / "maps.csv")
    for row in rows:
        assert row.image is not None
        row.image.unlink()
    return folder / "maps.csv"


SYNTHESIS = "validation_share = 0.34\nsheet_every = 1\n[synthesis]\nother_region = 0.2\nshape = { rotation_deg = 10 }"


def test_a_network_learns_from_label_maps_alone(maps: Path, people: Path, tmp_path: Path) -> None:
    assert validate_file(maps) | {"file": ""} == {
        "file": "", "kind": "manifest", "cases": 3, "subjects": 3, "images": 0, "with labels": 3
    }  # fmt: skip
    path = plan(tmp_path, labels="thigh-context", more=SYNTHESIS)
    path.write_text(path.read_text(encoding="utf-8").replace('["ct"]', '["ct", "t1w", "mr"]'), encoding="utf-8")
    whole = train_segmenter_on_manifest(path, maps, tmp_path / "whole", jobs=1)
    train_segmenter_on_manifest(path, maps, tmp_path / "parts", jobs=1, until=1)
    train_segmenter_on_manifest(path, maps, tmp_path / "parts", jobs=1)
    for name in ("network.pt", "losses.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    card = read_card(whole.networks[0], SegmenterCard)
    assert len(card.training_subjects) == 2
    assert len(card.validation_subjects) == 1
    assert card.deciles == {}
    assert (tmp_path / "whole" / "sheets" / "epoch_0002.png").exists()
    scan = open_cases(people / "manifest.csv").open("sub-01_ct").image
    found = NetworkSegmenter(checkpoint=str(whole.networks[0])).segment(scan)
    assert found.grid == scan.grid
    assert found.label_set.name == "thigh-context"


def test_slices_have_a_size_that_the_network_takes(maps: Path, tmp_path: Path) -> None:
    path = plan(tmp_path, more="[synthesis]")
    text = path.read_text(encoding="utf-8").replace("[32, 32]", "[34, 34]")
    path.write_text(text.replace('"bayesian-unet", width = 4, depth = 3, dropout = 0.1', '"unet-2d"'), encoding="utf-8")
    with pytest.raises(ParameterError, match=r"'unet-2d' does not take slices of 34 pixels: set .* to \[36, 36\]"):
        train_segmenter_on_manifest(path, maps, tmp_path / "out", jobs=1)


def test_what_cannot_be_synthesised_is_refused(maps: Path, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="it has no image, only a label map, from which images can be synthesised"):
        train_segmenter_on_manifest(plan(tmp_path), maps, out, jobs=1)
    with pytest.raises(InputError, match="folds score scans, and a plan with synthesis learns from label maps"):
        train_segmenter_on_manifest(plan(tmp_path, more="[synthesis]"), maps, out, folds="3", jobs=1)
    for old, new, message in (
        ('kind = "leg"', 'kind = "whole"', "slices of single legs are synthesised: set view = leg, not 'whole'"),
        ("[32, 32]", "[32, 48]", r"slices that are synthesised are square: the size of the view is \(32, 48\)"),
        ('labels = "thigh-11"', 'labels = "hip-thigh-22"', "no map from 'thigh-context' to 'hip-thigh-22'"),
        ('contrasts = ["ct"]', 'contrasts = ["ct"]\ncontext = 1', "slices are synthesised one by one"),
    ):
        path = plan(tmp_path, more="[synthesis]")
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            train_segmenter_on_manifest(path, maps, out, jobs=1)
