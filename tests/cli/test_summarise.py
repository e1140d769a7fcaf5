from __future__ import annotations

import json
from pathlib import Path

from musclekit.evaluation.scores import write_scores
from tests.cli.conftest import Command
from tests.workflows.test_summarise import table


def test_a_table_is_printed_and_the_report_validates(command: Command, tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "run" / "scores.csv")
    result = command("summarise", "run", "-o", "out", "--by", "side", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "0.800 (0.700–0.850), n 3" in result.stdout
    assert "left" in result.stdout
    assert "report: out/report.html" in result.stdout
    assert "warning no pictures of cases" in result.stderr
    assert command("validate", "out/report.json").returncode == 0


def test_json_goes_to_stdout_alone(command: Command, tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    printed = json.loads(command("summarise", "scores.csv", "-o", "out", "--json", "--quiet").stdout)
    assert printed["summary"][0]["median"] == 0.8


def test_bad_usage_is_one_line(command: Command, tmp_path: Path) -> None:
    write_scores(table(), tmp_path / "scores.csv")
    result = command("summarise", "scores.csv", "-o", "out", "--by", "centre", "--quiet")
    assert result.returncode == 2
    assert "error: the score table has no column 'centre'" in result.stderr
    missing = command("summarise", "nowhere.csv", "-o", "out", "--quiet")
    assert missing.returncode == 2
    assert "nowhere.csv: no such file" in missing.stderr
