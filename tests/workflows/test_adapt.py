"""An adaptation from phantom MR with labels to phantom CT without, tiny, stage by stage."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musclekit import registry
from musclekit.errors import CheckpointError, FormatError, InputError, LeakError, ParameterError
from musclekit.image import Contrast, Image
from musclekit.io import group_rows, load_case, read_manifest, write_manifest
from musclekit.labels import label_set
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import read_card
from musclekit.workflows import adapt_segmenter, write_phantoms

PLAN = """
kind = "adapt"
labels = "thigh-4"
seed = 1
source = { contrast = "water" }
target = { contrast = "ct", split = "train" }
view = { spacing_mm = 6, size = 32 }
generator = { width = 4, blocks = 1 }
discriminator = { width = 4, layers = 2 }
segmenter = { name = "unet-2d", width = 4, levels = 3, norm = "instance" }
schedule = { constant = 1, decay = 1, batch = 2, learning_rate = 0.002 }
tune = { epochs = 2, batch = 2 }
pseudo = { most_removed = 1.0 }
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three phantoms in MR, with labels, and three others in CT; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    rows = []
    for modality, contrast, prefix, seed in (("dixon", Contrast.WATER, "mr", 3), ("ct", Contrast.CT, "ct", 30)):
        write_phantoms(folder / prefix, subjects=3, modalities=(modality,), slices=3, size=96, seed=seed, prefix=prefix)
        for n, row in enumerate(r for r in read_manifest(folder / prefix / "manifest.csv") if r.modality is contrast):
            rows.append(replace(row, split="validation" if (prefix, n) == ("ct", 2) else "train", extra={}))
    write_manifest(rows, folder / "manifest.csv")
    return folder


@pytest.fixture
def cases(people: Path, tmp_path: Path) -> Path:
    """The manifest of these, to be changed."""
    shutil.copytree(people, tmp_path / "cases")
    return tmp_path / "cases" / "manifest.csv"


def plan(tmp_path: Path, more: str = "", **changes: str) -> Path:
    text = PLAN
    for old, new in changes.items():
        text = text.replace(old, new)
    path = tmp_path / "plan.toml"
    path.write_text(text + more, encoding="utf-8")
    return path


def test_labelled_mr_and_unlabelled_ct_give_a_segmenter_of_ct(cases: Path, tmp_path: Path) -> None:
    done = adapt_segmenter(plan(tmp_path, 'validation_split = "validation"\n'), cases, tmp_path / "run", jobs=1)
    assert done.stages == {"images": "done", "joint": "2 of 2 epochs", "judge": "done", "tune": "2 of 2 epochs"}
    assert done.segmenter == tmp_path / "run" / "tuned" / "segmenter.pt"
    card = read_card(done.segmenter, SegmenterCard)
    assert card.label_set == label_set("thigh-4")
    assert {subject[:2] for subject in card.training_subjects} == {"mr", "ct"}
    assert len(card.validation_subjects) == 1
    for name in ("images/source.png", "images/target.png", "judged/judged.png", "report.html", "run.json"):
        assert (tmp_path / "run" / name).stat().st_size > 1000
    ranking = pd.read_csv(tmp_path / "run" / "judged" / "ranking.csv")
    assert sorted(ranking["rank"]) == list(range(1, 13))
    assert set(ranking["split"]) <= {"easy", "hard", "demoted"}
    assert (ranking["split"] == "hard").sum() == 4
    # What it gives are ordinary methods of the project.
    rows = [row for row in group_rows(read_manifest(cases)) if row[0].modality is Contrast.CT]
    image = load_case(rows[0]).image
    found = registry.build("unet-2d", checkpoint=str(done.segmenter)).segment(image)
    assert found.label_set.unsided().name == "thigh-4"
    fake = registry.build("ct-to-mr", checkpoint=str(tmp_path / "run" / "joint" / "to_source.pt")).translate(image)
    assert fake.contrast is Contrast.WATER


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content for name, content in found.items() if name not in ("run.json", "report.html", "report.json")}


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(cases: Path, tmp_path: Path) -> None:
    path = plan(tmp_path)
    adapt_segmenter(path, cases, tmp_path / "whole", jobs=1)
    first = adapt_segmenter(path, cases, tmp_path / "pieces", jobs=1, until=1)
    assert first.stages == {"images": "done", "joint": "1 of 2 epochs", "judge": "not done", "tune": "0 of 2 epochs"}
    assert first.segmenter == tmp_path / "pieces" / "joint" / "segmenter.pt"
    for stage in ("joint", "judge"):
        adapt_segmenter(path, cases, tmp_path / "pieces", stage=stage, jobs=1)  # type: ignore[arg-type]
    adapt_segmenter(path, cases, tmp_path / "pieces", jobs=1, until=1)
    last = adapt_segmenter(path, cases, tmp_path / "pieces", jobs=1)
    assert last.stages["tune"] == "2 of 2 epochs"
    whole, pieces = files(tmp_path / "whole"), files(tmp_path / "pieces")
    assert list(whole) == list(pieces)
    for name, content in whole.items():
        assert content == pieces[name], name


def test_a_stage_by_itself_needs_those_before_it(cases: Path, tmp_path: Path) -> None:
    path = plan(tmp_path)
    with pytest.raises(InputError, match="stage 'joint' stands on stage 'images': run that first"):
        adapt_segmenter(path, cases, tmp_path / "run", stage="joint")
    adapt_segmenter(path, cases, tmp_path / "run", stage="images")
    with pytest.raises(InputError, match="stage 'judge' stands on stage 'joint', which has done 0 of 2 epochs"):
        adapt_segmenter(path, cases, tmp_path / "run", stage="judge")
    with pytest.raises(InputError, match="stage 'tune' stands on stage 'judge'"):
        adapt_segmenter(path, cases, tmp_path / "run", stage="tune")
    with pytest.raises(ParameterError, match="a stage is one of images, joint, judge, tune, not 'magic'"):
        adapt_segmenter(path, cases, tmp_path / "run", stage="magic")  # type: ignore[arg-type]


def test_another_segmenter_may_be_what_stage_two_starts_from(cases: Path, tmp_path: Path) -> None:
    first = adapt_segmenter(plan(tmp_path), cases, tmp_path / "first", jobs=1)
    start = tmp_path / "first" / "joint" / "segmenter.pt"
    found = adapt_segmenter(plan(tmp_path, f'start = "{start}"\n'), cases, tmp_path / "second", jobs=1)
    assert found.stages["joint"].startswith("left out: stage 2 starts from")
    assert found.segmenter is not None
    assert first.segmenter is not None
    one, other = (read_card(path, SegmenterCard) for path in (first.segmenter, found.segmenter))
    assert one.weights_sha256 == other.weights_sha256


def test_a_segmenter_that_cannot_be_started_from_is_refused_before_scans_are_opened(
    cases: Path, tmp_path: Path
) -> None:
    adapt_segmenter(plan(tmp_path), cases, tmp_path / "first", jobs=1, until=1)
    start = f'start = "{tmp_path / "first" / "joint" / "segmenter.pt"}"\n'
    with pytest.raises(CheckpointError, match="the plan does not fit the segmenter to start from"):
        adapt_segmenter(
            plan(tmp_path, start, **{"levels = 3": "levels = 2"}), cases, tmp_path / "second", stage="judge"
        )
    rows = read_manifest(cases)
    swapped = {"train": "validation", "validation": "train"}
    write_manifest([replace(r, split=swapped[r.split]) if r.modality is Contrast.CT else r for r in rows], cases)  # type: ignore[index]
    with pytest.raises(LeakError, match="the segmenter to start from learnt from subject"):
        adapt_segmenter(plan(tmp_path, start + 'validation_split = "validation"\n'), cases, tmp_path / "second")
    assert not (tmp_path / "second" / "images").exists()


def test_what_goes_in_may_not_change_under_way(cases: Path, tmp_path: Path) -> None:
    path = plan(tmp_path)
    adapt_segmenter(path, cases, tmp_path / "run", stage="images")
    rows = read_manifest(cases)
    write_manifest([replace(row, extra={"slices": "0-1"}) for row in rows], cases)
    with pytest.raises(InputError, match="was made of other scans, another plan or another segmenter"):
        adapt_segmenter(path, cases, tmp_path / "run")
    (tmp_path / "run" / "images" / "made_of.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="damaged; remove the folder"):
        adapt_segmenter(path, cases, tmp_path / "run")


def test_bad_input_is_named_before_anything_is_learnt(cases: Path, tmp_path: Path) -> None:
    path, out = plan(tmp_path), tmp_path / "run"
    with pytest.raises(InputError, match="Name their manifest with --cases"):
        adapt_segmenter(path, None, out)
    rows = read_manifest(cases)
    write_manifest([replace(row, labels=None) for row in rows], cases)
    with pytest.raises(InputError, match="no water scan has labels: there is nothing to learn from"):
        adapt_segmenter(path, cases, out)
    write_manifest([row for row in rows if row.modality is not Contrast.CT], cases)
    with pytest.raises(InputError, match="there is no ct scan to adapt to"):
        adapt_segmenter(path, cases, out)
    write_manifest(rows, cases)
    with pytest.raises(InputError, match="no case is in split 'test'; there are: train, validation"):
        adapt_segmenter(plan(tmp_path, 'validation_split = "test"\n'), cases, out)
    # The person of a CT to validate on, in MR as well, under no split.
    person = next(row.subject for row in rows if row.split == "validation")
    mixed = [replace(row, split=None, subject=person) if row.case_id == rows[0].case_id else row for row in rows]
    write_manifest(mixed, cases)
    with pytest.raises(LeakError, match=f"subject '{person}' is learnt from and stands in the validation"):
        adapt_segmenter(plan(tmp_path, 'validation_split = "validation"\n'), cases, out)


def test_an_mr_that_is_called_ct_and_ids_outside_their_set_are_named(cases: Path, tmp_path: Path) -> None:
    rows = read_manifest(cases)
    mr, ct = (next(row for row in rows if row.modality is contrast) for contrast in (Contrast.WATER, Contrast.CT))
    write_manifest([replace(row, image=mr.image) if row.case_id == ct.case_id else row for row in rows], cases)
    with pytest.raises(InputError, match=f"1 of 5 scans cannot be used: case '{ct.case_id}'.*"):
        adapt_segmenter(plan(tmp_path), cases, tmp_path / "run")
    write_manifest(rows, cases)
    with pytest.raises(InputError, match=f"3 of 5 scans cannot be used: .*{mr.case_id}.*"):
        adapt_segmenter(plan(tmp_path), cases, tmp_path / "other", label_set_name="muscle")


def test_a_level_set_that_finds_nothing_makes_an_image_hard(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from musclekit.workflows import adapt_images

    real = adapt_images._room

    def lost(image: Image) -> np.ndarray:
        found = real(image)
        found[0] = False
        return found

    monkeypatch.setattr(adapt_images, "_room", lost)
    done = adapt_segmenter(plan(tmp_path), cases, tmp_path / "run", jobs=1)
    told = "no muscle compartment was found in 4 images of the target, which count as hard"
    assert any(told in note for note in done.warnings)
    ranking = pd.read_csv(tmp_path / "run" / "judged" / "ranking.csv")
    assert not (ranking[ranking["image"].str.endswith("_000")]["split"] == "easy").any()
