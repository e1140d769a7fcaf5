from __future__ import annotations

from pathlib import Path

import pytest

from musclekit.errors import InputError, MissingFileError
from musclekit.workflows.inputs import find_scans, scan_names


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def dicom(path: Path) -> Path:
    return touch(path, bytes(128) + b"DICM" + bytes(16))


def test_files_stand_for_themselves_whatever_they_are_called(tmp_path: Path) -> None:
    odd = touch(tmp_path / "scan.ima")
    assert find_scans([odd]) == [odd]


def test_a_folder_stands_for_its_volumes(tmp_path: Path) -> None:
    names = ["b.nii", "a.nii.gz", "c.nrrd", "d.mha", "E.NII.GZ"]
    volumes = [touch(tmp_path / name) for name in names]
    touch(tmp_path / "a_dseg.nii.gz")
    touch(tmp_path / "a_mask.nii.gz")
    touch(tmp_path / "notes.txt")
    assert sorted(find_scans([tmp_path])) == sorted(volumes)


def test_a_folder_of_dicom_files_is_one_scan_and_subfolders_are_looked_into(tmp_path: Path) -> None:
    dicom(tmp_path / "patient" / "series" / "0001")
    volume = touch(tmp_path / "patient" / "other" / "a.nii.gz")
    assert find_scans([tmp_path]) == [volume.parent / "a.nii.gz", tmp_path / "patient" / "series"]


def test_a_scan_named_twice_counts_once(tmp_path: Path) -> None:
    volume = touch(tmp_path / "a.nii.gz")
    assert find_scans([volume, tmp_path]) == [volume]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.nii\.gz: no such file or folder"):
        find_scans([tmp_path / "nothing.nii.gz"])
    with pytest.raises(InputError, match="holds no scan"):
        find_scans([tmp_path])


def test_names_carry_as_many_folders_as_tell_them_apart(tmp_path: Path) -> None:
    assert scan_names([Path("x/a.nii.gz")]) == ["a"]
    assert scan_names([Path("x/a.nii.gz"), Path("y/b.nii")]) == ["a", "b"]
    assert scan_names([Path("x/ct.nii.gz"), Path("y/ct.nii.gz")]) == ["x_ct", "y_ct"]
    assert scan_names([Path("p/x/ct.nii.gz"), Path("q/x/ct.nii.gz"), Path("p/y/ct.nii.gz")]) == [
        "p_x_ct",
        "q_x_ct",
        "p_y_ct",
    ]
    with pytest.raises(InputError, match="cannot be told apart"):
        scan_names([Path("x/ct.nii.gz"), Path("x/ct.nii.gz")])


def test_what_is_hidden_is_no_scan(tmp_path: Path) -> None:
    volume = touch(tmp_path / "a.nii.gz")
    touch(tmp_path / "._a.nii.gz")
    assert find_scans([tmp_path]) == [volume]
