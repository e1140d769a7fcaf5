from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from musclekit.errors import MissingFileError, OutputError
from musclekit.io import replacing


def test_writes_whole_file_and_makes_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "scores.csv"
    with replacing(target) as temporary:
        temporary.write_text("dice\n0.9\n")
        assert temporary.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "dice\n0.9\n"
    assert list(target.parent.iterdir()) == [target]


def test_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with replacing(tmp_path / "x_dseg.nii.gz") as temporary:
        temporary.write_bytes(b"")
        assert temporary.name.endswith(".nii.gz")


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")

    def write_half() -> None:
        with replacing(target) as temporary:
            temporary.write_text("new, but only ha")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def _write_and_raise(target: Path, error: Exception) -> str:
    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OutputError) as caught:
        write()
    assert isinstance(caught.value, OSError)
    return str(caught.value)


def test_disk_full_says_how_much_is_free(tmp_path: Path) -> None:
    target = tmp_path / "x.nii.gz"
    message = _write_and_raise(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert message.startswith(f"{target}: the disk is full (")
    assert message.endswith(" MB free); make room or choose another folder")
    assert list(tmp_path.iterdir()) == []


def test_no_permission_names_the_path(tmp_path: Path) -> None:
    target = tmp_path / "x.nii.gz"
    message = _write_and_raise(target, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert message == f"{target}: no permission to write there; choose another folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"), replacing(folder / "x.csv") as temporary:
        temporary.write_text("x")


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with (
        pytest.raises(OutputError, match=r"x\.csv: cannot be written, a folder stands there"),
        replacing(tmp_path / "x.csv"),
    ):
        pass


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="a parent of it is a file"), replacing(tmp_path / "out" / "x.csv"):
        pass


def test_other_errors_name_path_and_reason(tmp_path: Path) -> None:
    target = tmp_path / "x.csv"
    assert _write_and_raise(target, OSError(errno.EIO, "Input/output error")) == (
        f"{target}: cannot be written (Input/output error)"
    )


def test_an_error_of_ours_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"scan\.nii: no such file"), replacing(tmp_path / "x.csv"):
        raise MissingFileError("scan.nii: no such file")
