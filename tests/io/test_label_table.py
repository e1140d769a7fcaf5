from __future__ import annotations

import csv
from pathlib import Path

import pytest

from musclekit import io
from musclekit.errors import OutputError
from musclekit.labels import label_set


def test_table_of_a_sided_set(tmp_path: Path) -> None:
    labels = label_set("thigh-4-sided")
    io.write_label_table(labels, tmp_path / "x_dseg.tsv")
    rows = list(csv.DictReader((tmp_path / "x_dseg.tsv").read_text().splitlines(), delimiter="\t"))
    assert list(rows[0]) == ["index", "name", "abbreviation", "side", "color"]
    assert [int(row["index"]) for row in rows] == [label.id for label in labels]
    assert rows[0]["name"] == labels.labels[0].full_name
    assert {row["side"] for row in rows} == {"left", "right"}
    assert all(row["color"].startswith("#") for row in rows)
    assert len({row["name"] for row in rows}) == 8


def test_no_side_is_n_a(tmp_path: Path) -> None:
    io.write_label_table(label_set("thigh-4"), tmp_path / "x_dseg.tsv")
    rows = list(csv.DictReader((tmp_path / "x_dseg.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["side"] for row in rows] == ["n/a"] * 4


def test_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="a parent of it is a file"):
        io.write_label_table(label_set("thigh-4"), tmp_path / "x" / "x_dseg.tsv")
