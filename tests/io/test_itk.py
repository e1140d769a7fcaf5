from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musclekit import io
from musclekit.errors import FormatError, GeometryError, LabelError, MissingFileError, VoxelError
from musclekit.image import Contrast, LabelMap
from musclekit.labels import label_set
from tests.io.conftest import AXIS_ORDERS, ordered_affine, small_rotation

LPS = np.diag([-1, -1, 1])


def write_with_itk(path: Path, voxels: np.ndarray, affine: np.ndarray, *, compress: bool = False) -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    matrix = LPS @ affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(AXIS_ORDERS), st.sampled_from(["nrrd", "nhdr", "mha", "mhd"]), st.booleans(), st.integers(0, 10**6)
)
def test_round_trip_of_any_axis_order(
    tmp_path: Path, axis_order: tuple, ending: str, compress: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    affine = ordered_affine(*axis_order, tuple(rng.uniform(0.3, 30, 3)), tuple(rng.normal(0, 300, 3)))
    if seed % 3:
        affine[:3, :3] = small_rotation(rng) @ affine[:3, :3]
    shape = tuple(int(n) for n in rng.integers(2, 5, size=3))
    voxels = rng.permutation(np.prod(shape)).reshape(shape).astype(np.int16)
    path = write_with_itk(tmp_path / f"{seed}.{ending}", voxels, affine, compress=compress)
    scan = io.open_scan(path, Contrast.MR)
    for index in np.ndindex(*shape):
        found = scan.image.grid.index((affine @ [*index, 1])[:3])
        assert np.abs(found - np.rint(found)).max() < 1e-6
        assert scan.image.voxels[tuple(np.rint(found).astype(int))] == voxels[index]
    labels = LabelMap(rng.integers(0, 12, size=scan.image.grid.shape), scan.image.grid, label_set("huashan-11"))
    before = sitk.ReadImage(str(path))
    for out_ending in ("nrrd", "mha", "nii.gz"):
        out = tmp_path / f"{seed}_dseg.{out_ending}"
        io.write_labels(labels, out, like=path)
        after = sitk.ReadImage(str(out))
        tolerance = 1e-3 if out_ending == "nii.gz" else 1e-6  # NIfTI stores 32-bit numbers
        np.testing.assert_allclose(after.GetOrigin(), before.GetOrigin(), atol=tolerance)
        np.testing.assert_allclose(after.GetSpacing(), before.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-6)
        np.testing.assert_array_equal(io.read_labels(out, labels.label_set).voxels, labels.voxels)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_two_dimensions_come_back(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32))
    image.SetSpacing((0.7, 0.8))
    image.SetOrigin((-5, 7))
    path = tmp_path / f"slice.{ending}"
    sitk.WriteImage(image, str(path))
    scan = io.open_scan(path, Contrast.MR)
    assert scan.image.grid.shape == (1, 12, 16)
    labels = LabelMap(np.ones((1, 12, 16), dtype=np.uint8), scan.image.grid, label_set("muscle"))
    io.write_labels(labels, tmp_path / f"d.{ending}", like=path)
    back = sitk.ReadImage(str(tmp_path / f"d.{ending}"))
    assert back.GetSize() == (16, 12)
    assert back.GetSpacing() == (0.7, 0.8)
    assert back.GetOrigin() == (-5, 7)
    io.write_labels(labels, tmp_path / "d.nii.gz", like=path)
    assert nib.load(tmp_path / "d.nii.gz").shape == (16, 12)
    assert io.read_labels(tmp_path / "d.nii.gz", labels.label_set).grid.same_as(labels.grid)


def _mha(path: Path, extra: str = "", data: int = 60, size: str = "3 4 5", kind: str = "MET_UCHAR") -> Path:
    head = (
        f"ObjectType = Image\nNDims = {len(size.split())}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{extra}"
    )
    head += f"DimSize = {size}\nElementType = {kind}\nElementDataFile = LOCAL\n"
    path.write_bytes(head.encode() + bytes(range(data)))
    return path


def _nrrd(path: Path, extra: str, data: int = 60, size: str = "3 4 5", kind: str = "uchar") -> Path:
    head = f"NRRD0004\ntype: {kind}\ndimension: {len(size.split())}\nsizes: {size}\nencoding: raw\n{extra}\n"
    path.write_bytes(head.encode() + bytes(range(data)))
    return path


SPACE = "space: left-posterior-superior\nspace origin: (0,0,0)\nspace directions: "


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (_mha, {"extra": "ElementSpacing = 1 1 0\n"}, GeometryError, "voxel sizes must be positive"),
        (_mha, {"extra": "ElementSpacing = 1 1 -2\n"}, GeometryError, "the header says 1, 1, -2 mm"),
        (_mha, {"extra": "TransformMatrix = 1 0 0 0 1 0 0 1 0\n"}, GeometryError, "the affine is singular"),
        (_mha, {"data": 40}, FormatError, "truncated: the header declares 6e-05 MB of voxels, 4e-05 MB are there"),
        (_mha, {"size": "30000 30000 30000"}, FormatError, "truncated: the header declares 2.7e+07 MB"),
        (_mha, {"size": "3 4 1 5"}, GeometryError, "4-D: it holds 5 volumes of 3 x 4 x 1; give one of them"),
        (_mha, {"size": "3 4", "extra": "ElementNumberOfChannels = 3\n"}, FormatError, "it holds 3 values a voxel"),
        (_mha, {"kind": "MET_NONSENSE"}, FormatError, "damaged or not readable"),
        (_nrrd, {"extra": "spacings: 1 1 0\n"}, GeometryError, "voxel sizes must be positive"),
        (_nrrd, {"extra": "spacings: 1 1 -2\n"}, GeometryError, "voxel sizes must be positive"),
        (_nrrd, {"extra": SPACE + "(1,0,0) (0,1,0) (0,0,0)\n"}, GeometryError, "voxel sizes must be positive"),
        (_nrrd, {"extra": SPACE + "(1,0,0) (0,1,0) (0,1,0)\n"}, GeometryError, "the affine is singular"),
        (_nrrd, {"extra": "", "data": 40}, FormatError, "truncated"),
        (_nrrd, {"extra": "", "size": "30000 30000 30000"}, FormatError, "truncated: the header declares"),
        (_nrrd, {"extra": "kinds: RGB-color domain domain\n", "size": "3 4 5"}, FormatError, "3 values a voxel"),
        (_nrrd, {"extra": "", "kind": "nonsense"}, FormatError, "damaged or not readable"),
    ],
)
def test_bad_files(
    tmp_path: Path, make, arguments: dict, error: type, message: str, capfd: pytest.CaptureFixture
) -> None:
    path = make(tmp_path / "scan", **arguments)
    with pytest.raises(error) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_header_that_breaks_off(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    path = _mha(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(
        FormatError, match=r"a\.mha: damaged header: it does not state ElementType, ElementDataFile; copy"
    ):
        io.read(path)
    assert capfd.readouterr().err == ""


def test_data_file_that_is_not_there(tmp_path: Path) -> None:
    for ending in ("mhd", "nhdr"):
        path = write_with_itk(tmp_path / f"a.{ending}", np.zeros((3, 4, 5), np.uint8), np.eye(4))
        (data,) = [file for file in tmp_path.iterdir() if file.stem == "a" and file != path]
        data.unlink()
        with pytest.raises(MissingFileError, match=f"its voxels should be in {data.name}, which is not there"):
            io.read(path)
        path.unlink()


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_compressed_and_truncated(tmp_path: Path, ending: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 9, size=(30, 30, 30)).astype(np.uint8)
    path = write_with_itk(tmp_path / f"a.{ending}", voxels, np.eye(4), compress=True)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FormatError, match="damaged or not readable"):
        io.read(path)


def test_nrrd_without_space_is_flagged(tmp_path: Path) -> None:
    scan = io.open_scan(_nrrd(tmp_path / "a.nrrd", "spacings: 1 1 2\n"), Contrast.MR)
    assert scan.warnings == ("the file states no orientation (NRRD space): left and right are a guess",)


def test_not_finite(tmp_path: Path) -> None:
    voxels = np.full((3, 4, 5), np.nan, dtype=np.float32)
    path = write_with_itk(tmp_path / "a.nrrd", voxels, np.eye(4))
    with pytest.raises(VoxelError, match="60 of 60 voxels are NaN or infinite"):
        io.read(path)


def test_floating_point_label_maps(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 12, size=(3, 4, 5))
    path = write_with_itk(tmp_path / "a.nrrd", ids.astype(np.float32), np.diag([-1, -1, 1, 1.0]))
    labels = io.read_labels(path, label_set("huashan-11"))
    np.testing.assert_array_equal(labels.voxels, ids.T[:, ::-1, ::-1])
    assert labels.voxels.dtype == np.uint8
    path = write_with_itk(tmp_path / "b.nrrd", ids + 0.25 * (ids == 3), np.eye(4))
    with pytest.raises(LabelError, match=r"b\.nrrd: label maps hold whole numbers; \d+ voxels do not \(3\.25"):
        io.read_labels(path, label_set("huashan-11"))
    path = write_with_itk(tmp_path / "c.nrrd", ids - 5.0, np.eye(4))
    with pytest.raises(LabelError, match="label ids lie between 0 and 65535, found -5 to 6"):
        io.read_labels(path, label_set("huashan-11"))
    path = write_with_itk(tmp_path / "d.nrrd", ids, np.eye(4))
    with pytest.raises(LabelError, match=r"d\.nrrd: label ids \[5, 6, 7, 8, 9, 10, 11\] do not belong to the set"):
        io.read_labels(path, label_set("thigh-4"))
