from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from musclekit import io
from musclekit.checks import check_voxels
from musclekit.errors import FormatError, GeometryError, ModalityError, OutputError, VoxelError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set
from tests.io.conftest import ordered_affine

MUSCLE = label_set("muscle")


@pytest.fixture
def scan_path(tmp_path: Path, ct_voxels: np.ndarray) -> Path:
    path = tmp_path / "in" / "scan.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(ct_voxels, ordered_affine((0, 1, 2), (-1, -1, 1))), path)
    return path


def labels_of(image: Image) -> LabelMap:
    return LabelMap((image.voxels > 0).astype(np.uint8), image.grid, MUSCLE)


def test_what_a_scan_says_of_itself(scan_path: Path) -> None:
    scan = io.open_scan(str(scan_path))
    assert scan.stem == "scan"
    assert scan.path == scan_path
    assert scan.contrast_source == "guessed"
    assert scan.image.contrast is Contrast.CT
    assert scan.warnings == (
        "taken for CT, because its values are Hounsfield units; state the modality if that is wrong",
    )
    given = io.open_scan(scan_path, Contrast.CT)
    assert (given.contrast_source, given.warnings) == ("given", ())
    assert not given.image.voxels.flags.writeable


def test_other_slices_than_axial_are_processed_and_flagged(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    path = tmp_path / "coronal.nii.gz"
    nib.save(nib.Nifti1Image(ct_voxels, ordered_affine((0, 2, 1), (-1, 1, 1), (1, 1, 6))), path)
    scan = io.open_scan(path, Contrast.CT)
    assert scan.image.grid.shape == (6, 5, 7)
    assert scan.warnings[0].startswith("the slices are coronal, not axial")
    io.write_labels(labels_of(scan.image), tmp_path / "d.nii.gz", like=scan)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "d.nii.gz").dataobj), ct_voxels > 0)


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha"])
def test_written_from_the_grid_alone(tmp_path: Path, ending: str) -> None:
    grid = Grid.from_spacing((3, 4, 5), (3, 0.9, 0.8), (-11, 22, -33))
    voxels = np.random.default_rng(0).normal(100, 20, size=grid.shape).astype(np.float32)
    image = Image(voxels, grid, Contrast.T1W)
    path = tmp_path / "new" / f"phantom.{ending}"
    io.write_image(image, path)
    back = io.read(path, contrast=Contrast.T1W)
    np.testing.assert_array_equal(back.voxels, voxels)
    assert back.grid.same_as(grid)
    by_itk = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 2)):
        z, y, x = index
        lps = by_itk.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(np.array([-1, -1, 1]) * lps, grid.world(index), atol=1e-4)
        assert by_itk[x, y, z] == voxels[index]
    io.write_labels(labels_of(image), tmp_path / f"d.{ending}")
    assert sitk.ReadImage(str(tmp_path / f"d.{ending}")).GetPixelIDTypeAsString() == "8-bit unsigned integer"


def test_labels_of_another_grid_are_not_written(tmp_path: Path, scan_path: Path) -> None:
    other = LabelMap(np.ones((2, 2, 2), dtype=np.uint8), Grid.from_spacing((2, 2, 2), (1, 1, 1)), MUSCLE)
    with pytest.raises(GeometryError) as caught:
        io.write_labels(other, tmp_path / "d.nii.gz", like=scan_path)
    assert str(caught.value) == (
        f"{tmp_path}/d.nii.gz: not written, for it lies on another grid than {scan_path}: "
        "shapes (2, 2, 2) and (5, 6, 7) (z, y, x) differ"
    )
    assert not (tmp_path / "d.nii.gz").exists()


def test_unknown_ending(tmp_path: Path, scan_path: Path) -> None:
    with pytest.raises(OutputError, match=r"d\.img: volumes are written as \.nii\.gz, \.nii, \.nrrd or \.mha"):
        io.write_labels(labels_of(io.read(scan_path)), tmp_path / "d.img", like=scan_path)


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"the disk is full \([\d.]+ MB free\); make room or choose another folder"),
        (errno.EACCES, "no permission to write there; choose another folder"),
    ],
)
def test_nothing_half_written(
    tmp_path: Path, scan_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, number: int, message: str
) -> None:
    image = io.read(scan_path)
    out = tmp_path / "out" / f"d.{ending}"

    def fail_after_the_header(stored: np.ndarray, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"only a header")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("musclekit.io.volumes.write_nifti", fail_after_the_header)
    with pytest.raises(OutputError, match=rf"d\.{ending}: {message}"):
        io.write_labels(labels_of(image), out, like=scan_path)
    assert list(out.parent.iterdir()) == []


def test_itk_that_cannot_write(tmp_path: Path, scan_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Exception thrown in SimpleITK\nITK ERROR: could not write")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutputError, match=r"d\.nrrd: cannot be written \(ITK ERROR: could not write\)"):
        io.write_labels(labels_of(io.read(scan_path)), tmp_path / "out" / "d.nrrd", like=scan_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_dicom_holds_no_label_maps(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="label maps are read from NIfTI, NRRD or MHA, not from DICOM"):
        io.read_labels(tmp_path, MUSCLE)


class TestContrast:
    """CT or MR, from the grey values alone."""

    rng = np.random.default_rng(0)

    def test_ct_with_air(self) -> None:
        assert io.guess_contrast(self.rng.choice([-1000, -100, 50, 400], size=(5, 50, 50))) is Contrast.CT

    def test_ct_cropped_inside_the_leg(self) -> None:
        assert io.guess_contrast(self.rng.choice([-100, 50, 60], size=(5, 50, 50))) is Contrast.CT

    def test_ct_padded_outside_the_field_of_view(self) -> None:
        assert io.guess_contrast(self.rng.choice([-3024, -1000, -90, 50], size=(5, 50, 50))) is Contrast.CT

    def test_magnitude(self) -> None:
        assert io.guess_contrast(np.abs(self.rng.normal(300, 300, size=(5, 50, 50)))) is Contrast.MR

    def test_magnitude_with_ringing(self) -> None:
        voxels = np.abs(self.rng.normal(1500, 700, size=(5, 50, 50)))
        voxels[:, :5] = self.rng.uniform(-150, 150, size=(5, 5, 50))
        assert io.guess_contrast(voxels) is Contrast.MR

    def test_standardised(self) -> None:
        assert io.guess_contrast(self.rng.normal(0, 1, size=(5, 50, 50))) is Contrast.MR

    def test_phase(self) -> None:
        assert io.guess_contrast(self.rng.uniform(-4096, 4095, size=(5, 50, 50))) is Contrast.MR

    def test_a_ct_given_as_mr_and_the_reverse(self, tmp_path: Path, scan_path: Path) -> None:
        with pytest.raises(ModalityError, match=r"given as mr, but the values .* are Hounsfield units; is it CT"):
            check_voxels(io.read(scan_path, contrast=Contrast.MR))
        path = tmp_path / "mr.nii.gz"
        nib.save(nib.Nifti1Image(self.rng.uniform(0, 900, size=(5, 6, 7)), np.eye(4)), path)
        with pytest.raises(ModalityError, match=r"given as CT, but the values .* are not Hounsfield units"):
            check_voxels(io.read(path, contrast=Contrast.CT))

    def test_air_alone_is_taken_for_ct_and_then_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "air.nii.gz"
        nib.save(nib.Nifti1Image(self.rng.uniform(-1020, -980, size=(5, 6, 7)), np.eye(4)), path)
        with pytest.raises(VoxelError, match="nothing but air"):
            check_voxels(io.read(path))
