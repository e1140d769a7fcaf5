"""The reader on real scans; skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from musclekit import io
from musclekit.image import Contrast, LabelMap
from musclekit.labels import label_set

pytestmark = pytest.mark.slow


def images(folder: Path) -> dict[Path, Contrast]:
    """Every image and what it is."""
    found = dict.fromkeys(sorted(folder.glob("sts/*/CT_image.nii.gz")), Contrast.CT)
    for pattern in (
        "sts/*/MR_T1_image.nii.gz",
        "huashan/*_fat.nii.gz",
        "huashan/*_water.nii.gz",
        "qmritools/[st]*.nii.gz",
    ):
        found |= {path: Contrast.MR for path in sorted(folder.glob(pattern)) if "dseg" not in path.name}
    return found


def test_every_image_is_read_as_nibabel_and_itk_see_it_and_its_kind_is_found(shared_data: Path) -> None:
    rng = np.random.default_rng(0)
    for path, contrast in images(shared_data).items():
        scan = io.open_scan(path)
        assert scan.image.contrast is contrast, path
        assert len(scan.warnings) == 1, (path, scan.warnings)
        by_nibabel, by_itk = nib.load(path), sitk.ReadImage(str(path))
        stored = np.asarray(by_nibabel.dataobj)
        for _ in range(20):
            index = tuple(int(rng.integers(n)) for n in stored.shape)
            world = (by_nibabel.affine @ [*index, 1])[:3]
            lps = by_itk.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose(np.array([-1, -1, 1]) * lps, world, atol=1e-3)
            seen = scan.image.grid.index(world)
            assert np.abs(seen - np.rint(seen)).max() < 1e-3
            assert scan.image.voxels[tuple(np.rint(seen).astype(int))] == np.float32(stored[index])


def test_dicom_gives_what_its_nifti_holds(shared_data: Path) -> None:
    for modality, name in (("CT", "CT_image"), ("MR_T1", "MR_T1_image")):
        scan = io.open_scan(shared_data / "sts_dicom" / "STS_048" / modality / "image")
        nifti = io.read(shared_data / "sts" / "STS_048" / f"{name}.nii.gz")
        assert scan.contrast_source == "dicom"
        assert scan.image.modality == modality[:2].lower()
        assert scan.image.grid.same_as(nifti.grid)
        np.testing.assert_allclose(scan.image.voxels, nifti.voxels, atol=0.5)


def test_pairs_share_a_grid(shared_data: Path) -> None:
    for case in ("001", "003"):
        labels = io.read_labels(shared_data / f"huashan/Thigh_{case}_dseg.nii.gz", label_set("huashan-11"))
        for kind in ("fat", "water"):
            assert io.read(shared_data / f"huashan/Thigh_{case}_{kind}.nii.gz").grid.same_as(labels.grid)
    labels = io.read_labels(shared_data / "qmritools/thigh_dseg.nii.gz", label_set("qmritools-sided"))
    assert io.read(shared_data / "qmritools/thigh_image.nii.gz").grid.same_as(labels.grid)
    for folder in sorted(shared_data.glob("sts/STS_*")):
        for kind in ("CT", "MR_T1"):
            mask = io.read_labels(folder / f"{kind}_mask.nii.gz", label_set("muscle"))
            assert io.read(folder / f"{kind}_image.nii.gz").grid.same_as(mask.grid), (folder, kind)


def test_label_maps_without_images(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted(shared_data.glob("huashan_labels/*.nii.gz")):
        labels = io.read_labels(path, label_set("huashan-11"))
        io.write_labels(labels, tmp_path / "d.nii.gz", like=path)
        before, after = nib.load(path), nib.load(tmp_path / "d.nii.gz")
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))


def test_labels_go_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    for path in images(shared_data):
        scan = io.open_scan(path)
        labels = LabelMap((scan.image.voxels > 100).astype(np.uint8), scan.image.grid, label_set("muscle"))
        io.write_labels(labels, tmp_path / "d.nii.gz", like=scan)
        before, after = nib.load(path), nib.load(tmp_path / "d.nii.gz")
        for key in ("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x"):
            assert after.header[key].tobytes() == before.header[key].tobytes()
        np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj) > 100)
