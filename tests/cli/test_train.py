from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musclekit.workflows import write_phantoms
from tests.cli.conftest import Command

PLAN = """
kind = "train"
source = { contrast = "t1w", name = "hard" }
target = { contrast = "t1w", name = "easy" }
slices = { size = 64, spacing_mm = 3.5, per_leg = true }
generator = { width = 8, blocks = 3 }
discriminator = { width = 8, layers = 2 }
schedule = { constant = 2, decay = 0 }
"""

ADAPTATION = """
kind = "adapt"
labels = "thigh-4"
source = { contrast = "water" }
target = { contrast = "ct" }
view = { spacing_mm = 6, size = 32 }
generator = { width = 4, blocks = 1 }
discriminator = { width = 4, layers = 2 }
segmenter = { name = "unet-2d", width = 4, levels = 3, norm = "instance" }
schedule = { constant = 1, decay = 1 }
tune = { epochs = 1 }
pseudo = { most_removed = 1.0 }
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan, and in the folder beside it a manifest of four phantom thighs."""
    write_phantoms(tmp_path / "cases", subjects=4, slices=2, size=64, seed=3)
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path / "plan.toml"


def test_a_training_stops_and_goes_on(command: Command, plan: Path) -> None:
    arguments = ("train", plan, "--cases", "cases/manifest.csv", "-o", "runs/h2e", "--jobs", 1)
    done = command(*arguments, "--until", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "epochs: 1 of 2",
        "there: runs/h2e/forward.pt",
        "back: runs/h2e/backward.pt",
        "losses: runs/h2e/losses.csv",
        "report: runs/h2e/report.html",
    ]
    assert "training" in done.stderr
    done = command(*arguments, "--json", "--quiet")
    assert json.loads(done.stdout)["epochs done"] == 2
    assert "epoch" not in done.stderr


def test_a_refusal_is_one_line(command: Command, plan: Path) -> None:
    done = command("train", plan, "--cases", "cases/manifest.csv", "-o", "runs", "--device", "cuda:7")
    assert done.returncode == 2
    assert "error: device 'cuda:7' is not here; there is: cpu" in done.stderr


def test_an_adaptation_says_how_far_each_stage_is(command: Command, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "cases", subjects=2, modalities=("dixon", "ct"), slices=2, size=64, seed=3)
    (tmp_path / "plan.toml").write_text(ADAPTATION, encoding="utf-8")
    arguments = ("adapt", "plan.toml", "--cases", "cases/manifest.csv", "-o", "run", "--jobs", 1)
    done = command(*arguments, "--until", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "images: done",
        "joint: 1 of 2 epochs",
        "judge: not done",
        "tune: 0 of 1 epochs",
        "segmenter: run/joint/segmenter.pt",
        "report: run/report.html",
    ]
    assert "adapting" in done.stderr
    done = command(*arguments, "--stage", "tune")
    assert done.returncode == 2
    assert "error: stage 'tune' stands on stage 'judge': run that first" in done.stderr
    done = command(*arguments, "--json", "--quiet")
    assert json.loads(done.stdout)["stages"]["tune"] == "1 of 1 epochs"


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_whole_epoch(plan: Path) -> None:
    plan.write_text(PLAN.replace("constant = 2", "constant = 500"), encoding="utf-8")
    out = plan.parent / "runs"
    arguments = ["train", plan, "--cases", plan.parent / "cases" / "manifest.csv", "-o", out, "--jobs", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "musclekit.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        end = time.monotonic() + 120
        while not (out / "losses.csv").exists() and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "interrupted; the files already written are whole" in messages
    assert not list(out.glob(".*"))
    epochs = len((out / "losses.csv").read_text(encoding="utf-8").splitlines()) - 1
    again = subprocess.run(
        [sys.executable, "-m", "musclekit.cli", *map(str, arguments), "--json", "--quiet", "--until", str(epochs + 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout)["epochs done"] == epochs + 1
