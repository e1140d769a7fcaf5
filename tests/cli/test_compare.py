"""`musclekit compare`: paired statistics between score tables, and what took no part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musclekit.evaluation.scores import write_scores
from tests.cli.conftest import Command
from tests.workflows.test_summarise import table


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    write_scores(table(), tmp_path / "one" / "scores.csv")
    write_scores(table("spgc", (0.95, np.nan, 0.9)), tmp_path / "two" / "scores.csv")
    return "one", "two"


def test_pairs_are_printed_and_written(command: Command, runs: tuple[str, str], tmp_path: Path) -> None:
    result = command("compare", *runs, "-o", "out")
    assert result.returncode == 0, result.stderr
    found = pd.read_csv(tmp_path / "out" / "compare.csv").iloc[0]
    # 0.95 - 0.9 and 0.9 - 0.8; the case on which spgc failed takes no part.
    assert (found["method"], found["baseline"], found["n"], found["failed"]) == ("spgc", "gmm", 2, 1)
    assert found["difference"] == pytest.approx(0.075)
    assert "+0.075" in result.stdout
    assert "1 failed" in result.stdout
    assert "spgc and gmm, muscle: left out sub-02_mr" in result.stderr
    assert command("validate", "out/report.json").returncode == 0
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["figures"][0]["title"] == "Differences of Dice"
    assert "spgc − gmm +0.075" in data["figures"][0]["alt"]
    assert data["failures"] == [{"name": "sub-02_mr, spgc", "message": "nothing found"}]


def test_options_reach_the_statistics(command: Command, runs: tuple[str, str]) -> None:
    result = command(
        "compare", *runs, "-o", "out", "--test", "t", "--correction", "bonferroni", "--baseline", "spgc", "--json"
    )
    assert result.returncode == 0, result.stderr
    (pair,) = json.loads(result.stdout)["comparison"]
    assert (pair["test"], pair["correction"], pair["baseline"]) == ("t", "bonferroni", "spgc")
    assert pair["difference"] == pytest.approx(-0.075)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("one",), "a comparison needs two or more methods, the scores are of gmm"),
        (("one", "two", "--metric", "asd"), "unknown metric 'asd'"),
        (("one", "two", "--label", "bone"), "unknown structure 'bone'"),
        (("one", "two", "--baseline", "gm"), "unknown method 'gm'; did you mean 'gmm'?"),
        (("one", "three"), "three: no such file"),
        (("one", "one"), "is scored with 'gmm' twice"),
    ],
)
def test_bad_input(command: Command, runs: tuple[str, str], options: tuple[str, ...], words: str) -> None:
    result = command("compare", *options, "-o", "out")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert words in line
