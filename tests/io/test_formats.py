from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musclekit import io
from musclekit.errors import FormatError, MissingFileError
from musclekit.io.formats import sniff, stem


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/sub-01.nii.gz", "sub-01"),
        ("a/sub-01.v1.2.NII.GZ", "sub-01.v1.2"),
        ("scan.nii", "scan"),
        ("scan.nrrd", "scan"),
        ("scan.nhdr", "scan"),
        ("scan.mha", "scan"),
        ("scan.mhd", "scan"),
        ("IM0001.dcm", "IM0001"),
        ("folder/patient.2024/", "patient.2024"),
        ("notes.txt", "notes.txt"),
        (".nii.gz", ".nii.gz"),
    ],
)
def test_stem(path: str, expected: str) -> None:
    assert stem(path) == expected


def test_stem_of_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "P01").mkdir()
    monkeypatch.chdir(tmp_path / "P01")
    assert stem(".") == "P01"


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    for call in (sniff, io.read):
        with pytest.raises(MissingFileError) as caught:
            call(path)
        assert str(caught.value) == f"{path}: no such file or folder"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture, not a scan"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG picture, not a scan"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive (unpack it first), not a scan"),
        (b"left leg, right leg\n", "a text file, not a scan"),
        (b"\x00\x01\x02\x03" * 30, "of no format known here"),
        ((348).to_bytes(4, "little") + bytes(400), "an ANALYZE or damaged NIfTI header"),
        ((348).to_bytes(4, "little") + bytes(340) + b"ni1\x00" + bytes(200), "without its voxels (.hdr and .img)"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha"])
def test_what_is_no_scan_is_named(tmp_path: Path, content: bytes, what: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_inside_gzip(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(b"only words\n"))
    with pytest.raises(FormatError, match="a text file, not a scan; give NIfTI, NRRD, MHA/MHD or DICOM"):
        io.read(path)


def test_gzip_that_breaks_off_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(np.random.default_rng(0).bytes(4000))[:100])
    with pytest.raises(FormatError, match="the gzip file is truncated or damaged; copy it again"):
        io.read(path)


def test_importing_io_loads_no_format_library() -> None:
    code = (
        "import sys, musclekit.io; "
        "print([m for m in ('SimpleITK', 'nibabel', 'pydicom', 'torch', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
