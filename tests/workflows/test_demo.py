from __future__ import annotations

from pathlib import Path

import pytest

from musclekit.errors import ParameterError
from musclekit.evaluation.scores import read_scores
from musclekit.workflows import run_demo


@pytest.mark.slow
def test_the_demo_scores_methods_with_and_without_translation(tmp_path: Path) -> None:
    seen = []
    result = run_demo(tmp_path, shape=(3, 96, 96), progress=lambda done, total, what: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    scores = read_scores(result.scores_path)
    assert {"gmm", "n4 + gmm", "histogram-match + gmm", "tissue", "threshold"} <= set(scores["method"])
    assert set(scores["metric"]) >= {"dice", "volume_error", "asd"}
    assert (scores["status"] == "ok").all()
    dice = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    by_group = dice.groupby("group")["value"].max()
    assert by_group["ct healthy"] > 0.85
    assert by_group["t1w severe"] < by_group["t1w healthy"]
    page = result.report_path.read_text(encoding="utf-8")
    assert "n4 + gmm" in page
    assert (tmp_path / "run.json").is_file()
    assert (tmp_path / "params.csv").is_file()


@pytest.mark.slow
def test_the_same_demo_twice_gives_the_same_scores(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_demo(tmp_path / name, shape=(2, 64, 64))
    assert (tmp_path / "one" / "scores.csv").read_bytes() == (tmp_path / "two" / "scores.csv").read_bytes()


def test_a_demo_needs_somebody(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="1 or more subjects a grade, not 0"):
        run_demo(tmp_path, subjects=0)
