"""The report as data: whole, plain, and as its schema says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import SchemaError
from musclekit.report import Failure, Figure, Report, ScanSection, Table, report_data, write_report
from musclekit.schemas import check_schema


def report() -> Report:
    frame = pd.DataFrame({"n": pd.array([1, pd.NA], "Int64"), "value": [np.nan, np.inf], "what": ["a", None]})
    return Report(
        "All",
        date="2026-01-31",
        scans=[
            ScanSection(
                "leg",
                structures=frame,
                warnings=["look"],
                details={"file": "leg.nii.gz"},
                tables=[Table("checks", frame, "how")],
            )
        ],
        failures=[Failure("arm", "it is no leg")],
        tables=[Table("T", frame, "how to read it"), Table("long", pd.DataFrame({"x": np.arange(1000)}))],
        figures=[Figure("F", "<svg/>", "what it shows", "how")],
        warnings=["careful"],
        parameters={"method": {"name": "gmm", "window": (1, 2)}, "seed": np.int64(3)},
    )


def test_the_data_follow_their_schema_and_hold_everything() -> None:
    data = json.loads(json.dumps(report_data(report()), allow_nan=False))
    check_schema(data, "report", "the report")
    assert data["tables"][0]["rows"] == [[1, None, "a"], [None, "inf", None]]
    assert len(data["tables"][1]["rows"]) == 1000
    assert [table["title"] for table in data["scans"][0]["tables"]] == ["structures", "checks"]
    assert data["parameters"] == {"method": {"name": "gmm", "window": [1, 2]}, "seed": 3}
    assert "svg" not in json.dumps(data)


def test_the_data_are_written_beside_the_page(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "report.html")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(report_data(report())))


def test_other_data_are_refused() -> None:
    data = report_data(report())
    with pytest.raises(SchemaError, match=r"\[date\].*does not match"):
        check_schema({**data, "date": "yesterday"}, "report", "the report")
    with pytest.raises(SchemaError, match="'kind' is a required property"):
        check_schema({key: value for key, value in data.items() if key != "kind"}, "report", "the report")
