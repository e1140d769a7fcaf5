from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from musclekit.schemas import check_schema
from tests.cli.conftest import Command
from tests.tiny_checkpoint import tiny_checkpoint

FILES = {"thigh_t1_translated.nii.gz", "thigh_t1_safety.csv", "safety.csv", "report.html", "report.json", "run.json"}
CHECKS = [
    "edge correlation", "Dice of the body", "Dice of the compartment", "boundary moved", "moved against the direction",
    "muscle added", "muscle removed", "outside the training range", "unlike the training",
]  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "h2e.pt")


def translate(command: Command, scan: Path, checkpoint: Path, *more: object):  # type: ignore[no-untyped-def]
    return command("translate", scan, "-o", "out", "--method", "hard-to-easy", "--set", f"checkpoint={checkpoint}",
                   "--modality", "t1w", "--quiet", *more)  # fmt: skip


def test_a_scan_is_translated_on_its_own_grid_and_checked(
    command: Command, mr_scan: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = translate(command, mr_scan, checkpoint, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES
    fake, scan = nib.load(out / "thigh_t1_translated.nii.gz"), nib.load(mr_scan)
    assert fake.get_data_dtype() == np.float32
    assert fake.shape == scan.shape
    assert np.array_equal(fake.affine, scan.affine)
    assert not np.array_equal(fake.get_fdata(), scan.get_fdata())

    table = pd.read_csv(out / "thigh_t1_safety.csv")
    assert table["check"].tolist() == CHECKS
    row = pd.read_csv(out / "safety.csv").iloc[0]
    assert (row["scan"], row["status"]) == ("thigh_t1", "done")
    assert row["edge_correlation"] == pytest.approx(table["found"][0])
    # What has learnt nothing keeps little, and says so on the screen, in the report and in the record.
    line = "translation: edge correlation is "
    assert f"warning thigh_t1: {line}" in result.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "translate"
    assert record["device"] == "cpu"
    assert record["parameters"]["method"] == {"name": "hard-to-easy", "checkpoint": str(checkpoint), "device": "cpu",
                                              "batch": 8, "per_leg": None, "within": None, "strict": False}  # fmt: skip
    assert any(text.startswith(line) for text in record["inputs"][0]["warnings"])
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("Checks of the translation", "What the translation changed", "Muscle before and after", line):
        assert text in page
    data = json.loads((out / "report.json").read_text(encoding="utf-8"))
    check_schema(data, "report", "the report")
    (checks,) = data["scans"][0]["tables"]
    assert [cells[0] for cells in checks["rows"]] == CHECKS
    assert checks["rows"][0][3] == "not kept"


def test_strict_refuses_and_writes_nothing(command: Command, mr_scan: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = translate(command, mr_scan, checkpoint, "--strict")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {mr_scan}: the translation is refused: edge correlation is ")
    assert not (tmp_path / "out").exists()
    # What changes nothing passes.
    result = command("translate", mr_scan, "-o", "out", "--method", "identity", "--strict", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "translation" not in result.stderr


def test_in_a_batch_a_refused_scan_fails_and_the_others_are_named(
    command: Command, mr_scan: Path, ct_scan: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = command("translate", mr_scan, ct_scan, "-o", "out", "--method", "hard-to-easy", "--set",
                     f"checkpoint={checkpoint}", "--quiet", "--json")  # fmt: skip
    # A scan of unknown weighting and a CT: neither is what the network was trained on.
    assert result.returncode == 1
    assert "failed thigh: " in result.stderr
    assert "method 'hard-to-easy' takes t1w; this image is ct" in result.stderr
    assert "method 'hard-to-easy' takes t1w; this image is mr" in result.stderr
    assert [scan["status"] for scan in json.loads(result.stdout)["scans"]] == ["failed", "failed"]
    again = translate(command, mr_scan, checkpoint, "nowhere.nii.gz", "--strict")
    assert again.returncode == 1
    assert "failed thigh_t1: " in again.stderr
    assert "the translation is refused" in again.stderr
    assert pd.read_csv(tmp_path / "out" / "safety.csv")["status"].tolist() == ["failed", "failed"]


@pytest.mark.slow  # each worker loads torch
def test_workers_give_what_one_process_gives(command: Command, mr_scan: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(mr_scan.read_bytes())
    assert translate(command, mr_scan, checkpoint).returncode == 0
    expected = nib.load(tmp_path / "out" / "thigh_t1_translated.nii.gz").get_fdata()
    result = translate(command, tmp_path / "scans", checkpoint, "--jobs", 2)
    assert result.returncode == 0, result.stderr
    for name in ("a", "b"):
        found = nib.load(tmp_path / "out" / name / f"{name}_translated.nii.gz").get_fdata()
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_another_contrast_comes_out_and_no_overlay_is_drawn(command: Command, mr_scan: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "ct.pt", "mr-to-ct")
    result = command("translate", mr_scan, "-o", "out", "--method", "mr-to-ct", "--set", f"checkpoint={checkpoint}",
                     "--modality", "t1w", "--quiet", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    (scan,) = json.loads(result.stdout)["scans"]
    assert set(scan["safety"]) == set(CHECKS)
    assert scan["safety"]["moved against the direction"] is None
    assert nib.load(tmp_path / "out" / "thigh_t1_translated.nii.gz").get_fdata().min() == -1000
    assert "What the translation changed" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "hard-to-easy"], "'hard-to-easy' needs a checkpoint: the file that training wrote"),
        (["--method", "hard-to-easy", "--set", "checkpoint=none.pt"], "none.pt: no such file"),
        (["--method", "ct-to-mr", "--set", "checkpoint=h2e.pt"],
         "h2e.pt: a checkpoint of 'hard-to-easy', not of 'ct-to-mr'"),
        (["--method", "hard-to-easy", "--set", "checkpoint=h2e.pt", "--device", "cuda:64"],
         "device 'cuda:64' is not here; there is: cpu ("),
        (["--method", "hard-to-easy", "--set", "chekpoint=h2e.pt"],
         "method 'hard-to-easy' has no parameter 'chekpoint'"),
        (["--method", "n4", "--device", "cpu"], "method 'n4' has no device to choose: it runs on the processor"),
        (["--method", "hard-to-easy", "--set", "device=cuda", "--device", "cpu"],
         "two devices are given: 'cpu' and 'cuda'"),
        (["--method", "gmm"], "'gmm' is a segmenter, not a translator"),
        (["--method", "hard-to-esay"], "unknown translator 'hard-to-esay'; did you mean 'hard-to-easy'?"),
        (["--method", "n4", "--set", "name=x"], "method 'n4' has no parameter 'name'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    command: Command, mr_scan: Path, checkpoint: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    assert checkpoint.name == "h2e.pt"
    result = command("translate", mr_scan, "-o", "out", *words, "--modality", "t1w", "--quiet")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_translator_before_a_segmenter_is_checked_too(
    command: Command, mr_scan: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = ("segment", mr_scan, "-o", "out", "--method", "gmm", "--translator", "hard-to-easy", "--set",
             f"translator__checkpoint={checkpoint}", "--modality", "t1w", "--quiet")  # fmt: skip
    result = command(*words)
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    assert {"thigh_t1_dseg.nii.gz", "thigh_t1_safety.csv"} <= {path.name for path in out.iterdir()}
    assert "warning thigh_t1: translation: edge correlation is " in result.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Checks of the translation" in page
    assert "Muscle before and after" in page
    refused = command(*words, "--strict")
    assert refused.returncode == 2
    assert "the translation is refused" in refused.stderr


def test_strict_is_about_translations(command: Command, mr_scan: Path) -> None:
    result = command("segment", mr_scan, "-o", "out", "--strict", "--quiet", "--method", "tissue")
    assert result.returncode == 2
    assert result.stderr == "error: strict is about translations, and no translator is named\n"
