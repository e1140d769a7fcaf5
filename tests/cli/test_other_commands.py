from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import musclekit
from musclekit import registry
from musclekit.weights import shipped
from tests.cli.conftest import Command


def test_help_names_every_command(command: Command) -> None:
    result = command("--help")
    assert result.returncode == 0
    commands = "demo segment translate measure evaluate summarise search phantom methods info validate"
    for name in commands.split():
        assert name in result.stdout


def test_no_arguments_is_bad_usage(command: Command) -> None:
    assert command().returncode == 2
    assert command("segment").returncode == 2
    assert command("no-such-command").returncode == 2


def test_version(command: Command) -> None:
    assert command("--version").stdout.strip() == musclekit.__version__


def test_methods_are_listed_and_described(command: Command) -> None:
    listed = json.loads(command("methods", "--json").stdout)
    assert tuple(item["name"] for item in listed if item["kind"] != "weights") == registry.names()
    one = json.loads(command("methods", "n4", "--json").stdout)
    assert one["parameters"] == {"spline_mm": 150.0, "n_iterations": [40, 30, 20]}
    assert "spline_mm" in command("methods", "n4").stdout
    assert "histogram-match" in command("methods").stdout


def test_weights_that_ship_are_listed_and_show_their_card(command: Command) -> None:
    listed = json.loads(command("methods", "--json").stdout)
    assert {item["name"] for item in listed if item["kind"] == "weights"} == set(shipped())
    for name, weights in shipped().items():
        assert json.loads(command("methods", name, "--json").stdout) == weights.card
        told = command("methods", name).stdout
        assert "licence" in told
        assert "limits" in told


@pytest.mark.slow  # it loads torch
def test_info_says_what_there_is(command: Command) -> None:
    found = json.loads(command("info", "--json").stdout)
    assert found["versions"]["musclekit"] == musclekit.__version__
    assert "cpu" in found["devices"]
    assert found["methods"]["weights"] == ", ".join(shipped())
    assert "versions" in command("info").stdout


def test_measure_reads_the_label_table_beside_the_labels(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    assert command("segment", ct_scan, "-o", "out", "--quiet", "--method", "tissue").returncode == 0
    result = command("measure", ct_scan, "out/thigh_dseg.nii.gz", "-o", "again")
    assert result.returncode == 0, result.stderr
    one = pd.read_csv(tmp_path / "out" / "thigh_measures.csv")
    two = pd.read_csv(tmp_path / "again" / "thigh_measures.csv")
    pd.testing.assert_frame_equal(one, two)


def test_measure_needs_both_dixon_images(command: Command, ct_scan: Path) -> None:
    result = command("measure", ct_scan, ct_scan, "-o", "out", "--label-set", "muscle", "--fat", ct_scan)
    assert result.returncode == 2
    assert "both --fat and --water" in result.stderr


@pytest.mark.slow
def test_phantom_writes_a_cohort_that_validates(command: Command, tmp_path: Path) -> None:
    result = command("phantom", "-o", "cohort", "--subjects", 2, "--modality", "mr,ct", "--slices", 3, "--quiet")
    assert result.returncode == 0, result.stderr
    assert "manifest: cohort/manifest.csv" in result.stdout
    checked = command("validate", "cohort/manifest.csv", "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["subjects"] == 2


def test_validate_reads_plans(command: Command, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[method]\nname = "translated"\n[method.translator]\nname = "n4"\n[method.segmenter]\nname = "threshold"\n'
        "[grid]\nsegmenter__hu_low = [-30, -20]\ntranslator__spline_mm = [80.0, 150.0, 200.0]\n"
    )
    result = command("validate", plan, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["grid points"] == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[method\n", "not TOML"),
        ("[grid]\nx = [1]\n", "'method' is a required property"),
        ('[method]\nname = "nope"\n', "unknown method 'nope'"),
        (
            '[method]\nname = "threshold"\n[grid]\nlo = [1]\n',
            "'threshold' has no parameter 'lo'; it has: hu_low",
        ),
        ('[method]\nname = "threshold"\n[grid]\nhu_low = 1\n', "at [grid][hu_low]"),
    ],
)
def test_validate_says_what_is_wrong_with_a_plan(command: Command, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    result = command("validate", "plan.toml")
    assert result.returncode == 2
    assert words in result.stderr


def test_validate_says_what_is_wrong_with_a_manifest(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,image\na,a.nii.gz\n")
    result = command("validate", "cases.csv")
    assert result.returncode == 2
    assert "subject" in result.stderr
    assert command("validate", "nothing.csv").returncode == 2
    (tmp_path / "cases.docx").write_text("")
    assert "a manifest or score table is a .csv" in command("validate", "cases.docx").stderr


def test_phantoms_of_single_legs(command: Command, tmp_path: Path) -> None:
    result = command(
        "phantom", "-o", "legs", "--subjects", 3, "--slices", 2, "--size", 48, "--leg", "alternate",
        "--label-set", "muscle", "--quiet",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    manifest = pd.read_csv(tmp_path / "legs" / "manifest.csv")
    assert list(manifest["side"]) == ["left", "right", "left"]
    names = pd.read_csv(tmp_path / "legs" / "sub-01_mr_dseg.tsv", sep="\t")["name"]
    assert list(names) == ["muscle"]
    wrong = command("phantom", "-o", "none", "--leg", "middle", "--quiet")
    assert wrong.returncode == 2
    assert "leg is any of both, left, right, alternate, not 'middle'" in wrong.stderr
    assert "unknown label set 'muscles'" in command("phantom", "-o", "none", "--label-set", "muscles").stderr


def test_a_report_is_checked_against_its_schema(command: Command, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"kind": "report"}')
    result = command("validate", "report.json")
    assert result.returncode == 2
    assert "report report.json: 'title' is a required property" in result.stderr
    (tmp_path / "report.json").write_text("no")
    assert "not JSON" in command("validate", "report.json").stderr
