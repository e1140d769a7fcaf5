from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from musclekit.errors import InputError, OutputError
from musclekit.workflows.record import RunRecord, check_folder, file_hash, versions, write_json


def test_a_file_s_hash_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"muscle")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"muscle").hexdigest()


def test_a_folder_s_hash_follows_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"le")
    (tmp_path / "a").write_bytes(b"musc")
    assert file_hash(tmp_path) == hashlib.sha256(b"muscle").hexdigest()
    (tmp_path / "b").write_bytes(b"lE")
    assert file_hash(tmp_path) != hashlib.sha256(b"muscle").hexdigest()


def test_versions_name_what_results_rest_on() -> None:
    assert {"musclekit", "python", "numpy", "SimpleITK", "torch"} <= set(versions())


def test_a_record_tells_all_of_a_run(tmp_path: Path) -> None:
    started = datetime(2026, 1, 2, tzinfo=UTC)
    template = tmp_path / "template.nii"
    template.write_bytes(b"7")
    parameters = {"method": {"name": "histogram-match", "template": str(template)}}
    RunRecord("translate", parameters, [{"name": "a"}], "cpu", started).write(tmp_path / "run.json")
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["started"] == "2026-01-02T00:00:00+00:00"
    assert record["parameters"] == parameters
    assert record["files"] == {str(template): file_hash(template)}
    assert record["inputs"] == [{"name": "a"}]
    assert record["seconds"] > 0


def test_what_is_not_plain_data_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json({"image": object()}, tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(OutputError, match="a folder stands there"):
        write_json({}, tmp_path / "run.json")


def test_a_header_s_hash_follows_the_data_it_names(tmp_path: Path) -> None:
    header = tmp_path / "a.mhd"
    header.write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    (tmp_path / "a.raw").write_bytes(b"0")
    before = file_hash(header)
    (tmp_path / "a.raw").write_bytes(b"7")
    assert file_hash(header) != before


@pytest.mark.parametrize(("file", "begun"), [("plan.json", "search"), ("evaluation.json", "evaluate")])
def test_a_folder_of_an_unfinished_run_is_left_to_it(tmp_path: Path, file: str, begun: str) -> None:
    (tmp_path / file).write_text("{}")
    check_folder(tmp_path, "compare", {})  # nothing has been done there yet
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "a.zip").write_bytes(b"")
    check_folder(tmp_path, begun, {})
    with pytest.raises(InputError, match=f"holds an unfinished 'musclekit {begun}'; finish it, or give another folder"):
        check_folder(tmp_path, "compare", {})
