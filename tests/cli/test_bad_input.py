"""Bad input on the command line: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.cli.conftest import Command


def _nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 6.0, 1.0]) if affine is None else affine), path)
    return path


def _noise(shape: tuple[int, ...] = (32, 32, 4)) -> np.ndarray:
    return np.random.default_rng(0).normal(300, 100, shape).astype(np.float32)


def _missing(folder: Path) -> Path:
    return folder / "nowhere.nii.gz"


def _empty(folder: Path) -> Path:
    (folder / "bad.nii.gz").write_bytes(b"")
    return folder / "bad.nii.gz"


def _truncated(folder: Path) -> Path:
    whole = _nifti(folder / "whole.nii.gz", _noise()).read_bytes()
    (folder / "bad.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.nii.gz"


def _png(folder: Path) -> Path:
    (folder / "bad.nii.gz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    return folder / "bad.nii.gz"


def _text(folder: Path) -> Path:
    (folder / "bad.nii.gz").write_text("dear scanner, please find attached")
    return folder / "bad.nii.gz"


def _nan(folder: Path) -> Path:
    voxels = _noise()
    voxels[0, 0, 0] = np.nan
    return _nifti(folder / "bad.nii.gz", voxels)


def _infinite(folder: Path) -> Path:
    voxels = _noise()
    voxels[0, 0, 0] = np.inf
    return _nifti(folder / "bad.nii.gz", voxels)


def _constant(folder: Path) -> Path:
    return _nifti(folder / "bad.nii.gz", np.full((32, 32, 4), 7, np.float32))


def _air(folder: Path) -> Path:
    voxels = np.random.default_rng(0).normal(-1000, 5, (32, 32, 4)).astype(np.float32)
    return _nifti(folder / "bad.nii.gz", voxels)


def _four_d(folder: Path) -> Path:
    return _nifti(folder / "bad.nii.gz", _noise((16, 16, 4, 3)))


def _broken_header(folder: Path, **fields: object) -> Path:
    path = _nifti(folder / "bad.nii", _noise())
    raw = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


def _zero_spacing(folder: Path) -> Path:
    return _broken_header(folder, pixdim=[1, 0, 3, 6, 1, 1, 1, 1], sform_code=0, qform_code=0)


def _singular(folder: Path) -> Path:
    return _broken_header(
        folder, sform_code=1, qform_code=0, srow_x=[1, 0, 0, 0], srow_y=[2, 0, 0, 0], srow_z=[0, 0, 6, 0]
    )


@pytest.mark.parametrize(
    ("make", "modality", "words"),
    [
        (_missing, "auto", "no such file"),
        (_empty, "auto", "empty"),
        (_truncated, "auto", "truncated|damaged|ends"),
        (_png, "auto", "PNG"),
        (_text, "auto", "not a"),
        (_nan, "mr", "NaN or infinite"),
        (_infinite, "mr", "NaN or infinite"),
        (_constant, "mr", "constant"),
        (_air, "ct", "nothing but air"),
        (_four_d, "mr", "4-D|four"),
        (_zero_spacing, "mr", "must be positive"),
        (_singular, "mr", "singular"),
    ],
)
def test_a_bad_scan_is_one_clear_line_and_exit_2(
    command: Command, tmp_path: Path, make: object, modality: str, words: str
) -> None:
    scan = make(tmp_path)  # type: ignore[operator]
    result = command("segment", scan, "-o", "out", "--modality", modality, "--quiet", "--method", "tissue")
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert any(word in lines[0] for word in words.split("|")), lines[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*"))


def test_a_ct_given_as_mr_and_the_reverse(command: Command, ct_scan: Path, mr_scan: Path) -> None:
    as_mr = command("segment", ct_scan, "-o", "out", "--modality", "mr", "--quiet", "--method", "tissue")
    assert as_mr.returncode == 2
    assert "Hounsfield units; is it CT?" in as_mr.stderr
    as_ct = command("segment", mr_scan, "-o", "out", "--modality", "ct", "--quiet", "--method", "tissue")
    assert as_ct.returncode == 2
    assert "not Hounsfield units" in as_ct.stderr


def test_labels_on_another_grid(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    other = _nifti(tmp_path / "labels.nii.gz", np.ones((20, 20, 4), np.uint8))
    result = command("measure", ct_scan, other, "-o", "out", "--label-set", "muscle")
    assert result.returncode == 2
    assert "another grid" in result.stderr


def test_labels_of_unknown_meaning(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    voxels = np.ones(nib.load(ct_scan).shape, np.uint8)
    other = _nifti(tmp_path / "labels.nii.gz", voxels, nib.load(ct_scan).affine)
    unknown = command("measure", ct_scan, other, "-o", "out")
    assert unknown.returncode == 2
    assert "give --label-set, one of: tissue," in unknown.stderr
    wrong = command("measure", ct_scan, other, "-o", "out", "--label-set", "tisue")
    assert wrong.returncode == 2
    assert "did you mean 'tissue'?" in wrong.stderr


def test_an_unknown_method_or_parameter_lists_the_alternatives(command: Command, ct_scan: Path) -> None:
    method = command("segment", ct_scan, "-o", "out", "--method", "unet")
    assert method.returncode == 2
    assert "unknown segmenter 'unet'" in method.stderr
    assert "threshold" in method.stderr
    parameter = command("segment", ct_scan, "-o", "out", "--method", "threshold", "--set", "lo=3")
    assert parameter.returncode == 2
    assert "has no parameter 'lo'; it has: hu_low" in parameter.stderr
    kind = command("segment", ct_scan, "-o", "out", "--method", "n4")
    assert kind.returncode == 2
    assert "'n4' is a translator, not a segmenter" in kind.stderr
    setting = command("segment", ct_scan, "-o", "out", "--set", "low", "--method", "tissue")
    assert setting.returncode == 2
    assert "--set takes key=value, not 'low'" in setting.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "no permission to write"), (errno.ENOSPC, "the disk is full")],
)
def test_a_folder_that_cannot_be_written_to(
    command: Command, ct_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "replace", refuse)
    result = command("segment", ct_scan, "-o", "out", "--quiet", "--method", "tissue")
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*"))


def test_an_output_folder_that_is_a_file(command: Command, ct_scan: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("I am a file")
    result = command("segment", ct_scan, "-o", "out", "--quiet", "--method", "tissue")
    assert result.returncode == 2
    assert "out: cannot be made or written to" in result.stderr
    assert (tmp_path / "out").read_text() == "I am a file"


def test_a_folder_without_scans(command: Command, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    result = command("segment", tmp_path / "scans", "-o", "out", "--method", "tissue")
    assert result.returncode == 2
    assert "holds no scan" in result.stderr
