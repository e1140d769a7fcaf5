from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from musclekit.errors import GeometryError, InputError, ParameterError
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.checkpoint import read_card
from musclekit.workflows import train_on_manifest, validate_file, write_phantoms

PLAN = """
kind = "train"
seed = 1
data = "phantoms"
{more}

[source]
contrast = "t1w"
{source}

[target]
contrast = "t1w"
{target}

[slices]
size = 64
spacing_mm = 3.5
per_leg = true

[generator]
width = 8
blocks = 3

[discriminator]
width = 8
layers = 2

[schedule]
constant = 1
decay = 1
batch = 4
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of four phantom thighs, one of each grade; not to be changed."""
    folder = tmp_path_factory.mktemp("people")
    write_phantoms(folder, subjects=4, grades=("healthy", "minor", "moderate", "severe"), slices=2, size=64, seed=3)
    return folder


def plan(tmp_path: Path, *, more: str = "", source: str = 'name = "hard"', target: str = 'name = "easy"') -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(more=more, source=source, target=target), encoding="utf-8")
    return path


def changed(people: Path, tmp_path: Path, column: str, values: list[str]) -> Path:
    """Return a copy of the manifest with another column."""
    shutil.copytree(people, tmp_path / "cases")
    path = tmp_path / "cases" / "manifest.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows({**row, column: value} for row, value in zip(rows, values, strict=True))
    return path


def test_a_training_from_files_to_files(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "h2e"
    seen: list[float] = []
    manifest = people / "manifest.csv"

    def progress(done: float, total: float, what: str) -> None:
        seen.append(done)

    stopped = train_on_manifest(plan(tmp_path), manifest, out, until=1, jobs=1, progress=progress)
    assert (stopped.epochs_done, stopped.epochs) == (1, 2)
    first = json.loads((out / "domains.json").read_text(encoding="utf-8"))
    outcome = train_on_manifest(plan(tmp_path), manifest, out, jobs=1, progress=progress)
    assert outcome.epochs_done == 2
    assert seen == sorted(set(seen))
    assert {path.name for path in out.iterdir()} == {
        "forward.pt", "backward.pt", "state.pt", "losses.csv", "domains.json", "run.json", "report.html",
        "report.json",
    }  # fmt: skip
    card = read_card(outcome.forward, TranslatorCard)
    assert card.direction == "hard-to-easy"
    assert card.per_leg
    assert card.data == "phantoms"
    assert card.training_subjects == (("sub-03", "sub-04"), ("sub-01", "sub-02"))
    assert read_card(outcome.backward, TranslatorCard).direction == "easy-to-hard"
    # How the domains differ is found out once, and said every time.
    assert json.loads((out / "domains.json").read_text(encoding="utf-8")) == first
    assert set(first["warnings"]) <= set(outcome.warnings) & set(stopped.warnings)
    assert {item["measure"] for item in first["differences"]} >= {"area", "eccentricity"}
    assert validate_file(out / "report.json")["title"] == "Training of a translator"
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run["command"] == "train"
    assert run["parameters"]["plan"]["generator"] == {"name": "resnet-generator", "width": 8, "blocks": 3}
    assert run["parameters"]["warnings"] == list(outcome.warnings)
    with outcome.losses.open(encoding="utf-8", newline="") as stream:
        assert all(float(row["gradient_norm"]) > 0 for row in csv.DictReader(stream))
    assert [item["domain"] for item in run["inputs"][2:]] == ["source"] * 2 + ["target"] * 2


def test_grades_say_who_belongs_where(people: Path, tmp_path: Path) -> None:
    source = 'name = "hard"\ngrades = ["minor", "severe"]'
    target = 'name = "easy"\ngrades = ["healthy", "moderate"]'
    outcome = train_on_manifest(
        plan(tmp_path, source=source, target=target), people / "manifest.csv", tmp_path / "out", until=1, jobs=1
    )
    assert read_card(outcome.forward, TranslatorCard).training_subjects == (("sub-02", "sub-04"), ("sub-01", "sub-03"))


def test_a_split_keeps_subjects_for_later(people: Path, tmp_path: Path) -> None:
    manifest = changed(people, tmp_path, "split", ["train", "test", "train", "test"])
    with pytest.raises(InputError) as caught:
        train_on_manifest(plan(tmp_path), manifest, tmp_path / "out")
    assert 'parts the subjects (test, train); say in the plan which are trained on, as split = "train"' in str(
        caught.value
    )
    with pytest.raises(InputError, match=r"no case is in split 'both'; there are: test, train"):
        train_on_manifest(plan(tmp_path, more='split = "both"'), manifest, tmp_path / "out")
    with pytest.raises(InputError, match=r"the source domain shows one subject, 'sub-03'.*allow_single_subject = true"):
        train_on_manifest(plan(tmp_path, more='split = "train"'), manifest, tmp_path / "out")
    more = 'split = "train"\nallow_single_subject = true'
    outcome = train_on_manifest(plan(tmp_path, more=more), manifest, tmp_path / "out", until=1, jobs=1)
    card = read_card(outcome.forward, TranslatorCard)
    assert card.training_subjects == (("sub-03",), ("sub-01",))
    assert len(card.limits) == 2


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (
            'name = "worse"',
            "the source domain is empty: no t1w image has worse in the column domain; there are: easy, hard",
        ),
        (
            'name = "hard"\ngrades = ["awful", "dire"]',
            "no t1w image has awful or dire in the column grade; there are: healthy, minor, moderate, severe",
        ),
    ],
)
def test_an_empty_domain_is_refused(people: Path, tmp_path: Path, domain: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        train_on_manifest(plan(tmp_path, source=domain), people / "manifest.csv", tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("domains", [("", 'name = "easy"'), ('name = "hard"', "")])
def test_a_scan_of_both_domains_is_refused(people: Path, tmp_path: Path, domains: tuple[str, str]) -> None:
    path = plan(tmp_path, source=domains[0], target=domains[1])
    with pytest.raises(InputError, match=r"case 'sub-0[13]_mr' is in the source and in the target: give each domain"):
        train_on_manifest(path, people / "manifest.csv", tmp_path / "out")


def test_the_manifest_stands_in_the_plan_or_beside_it(people: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.toml: which scans\? Name their manifest with --cases, or as cases"):
        train_on_manifest(plan(tmp_path), None, tmp_path / "out")
    train_on_manifest(plan(tmp_path), people / "manifest.csv", tmp_path / "out", until=1, jobs=1)
    # The same scans under another name are the same training.
    named = plan(tmp_path, more=f'cases = "{people / "manifest.csv"}"')
    assert train_on_manifest(named, None, tmp_path / "out", jobs=1).epochs_done == 2


def test_a_contrast_that_nobody_has_is_refused(people: Path, tmp_path: Path) -> None:
    path = plan(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"t1w"', '"ct"', 1), encoding="utf-8")
    with pytest.raises(InputError, match="the source domain is empty: no image has modality ct; there are: t1w"):
        train_on_manifest(path, people / "manifest.csv", tmp_path / "out")


def test_a_device_that_is_not_there_is_refused_before_scans_are_opened(people: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="device 'cuda:7' is not here; there is: cpu"):
        train_on_manifest(plan(tmp_path), people / "manifest.csv", tmp_path / "out", device="cuda:7")


def test_another_plan_in_the_folder_is_refused(people: Path, tmp_path: Path) -> None:
    train_on_manifest(plan(tmp_path), people / "manifest.csv", tmp_path / "out", until=1, jobs=1)
    with pytest.raises(InputError, match=r"holds another training \(it differs in: loss\)"):
        train_on_manifest(plan(tmp_path, more="loss = { relu = 1 }"), people / "manifest.csv", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"command": "search", "parameters": {}}', encoding="utf-8")
    with pytest.raises(InputError, match="holds the results of 'musclekit search'"):
        train_on_manifest(plan(tmp_path), people / "manifest.csv", tmp_path / "other")


def test_a_plan_is_validated_without_scans(tmp_path: Path) -> None:
    assert validate_file(plan(tmp_path)) == {
        "file": str(tmp_path / "plan.toml"),
        "kind": "plan",
        "trains": "hard t1w to easy t1w",
        "generator": "resnet-generator",
        "loss": "gan 1, cycle 1, identity 1, relu 0.5",
        "epochs": 2,
    }
    path = plan(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("size = 64", "size = 66"), encoding="utf-8")
    with pytest.raises(GeometryError, match="images of 66 x 66 pixels do not suit the generator"):
        validate_file(path)
