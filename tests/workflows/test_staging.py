from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from musclekit.errors import OutputError
from musclekit.io import replacing
from musclekit.workflows.staging import together


def test_files_appear_together(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "scan"
    with together(folder) as hidden:
        (hidden / "a.txt").write_text("a")
        (hidden / "b.txt").write_text("b")
        assert [path.name for path in folder.iterdir()] == [hidden.name]
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"]


def test_a_failure_leaves_nothing_and_names_the_file_as_the_person_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "scan"
    monkeypatch.setattr(Path, "replace", full)

    def write() -> None:
        with together(folder) as hidden:
            (hidden / "a.txt").write_text("a")
            with replacing(hidden / "b.txt") as temporary:
                temporary.write_text("b")

    with pytest.raises(OutputError, match=rf"^{folder}/b\.txt: the disk is full"):
        write()
    assert not folder.exists()


def test_what_stood_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with together(tmp_path) as hidden:
            (hidden / "a.txt").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    with together(tmp_path) as hidden:
        (hidden / "a.txt").write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "scan").write_text("I am a file")
    with pytest.raises(OutputError, match="cannot be made or written to"), together(tmp_path / "scan"):
        pass
