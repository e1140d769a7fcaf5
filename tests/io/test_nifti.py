from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musclekit import io
from musclekit.errors import FormatError, GeometryError, VoxelError
from musclekit.image import Contrast, LabelMap
from musclekit.labels import label_set
from tests.io.conftest import AXIS_ORDERS, damaged_nifti, ordered_affine, small_rotation

#: Everything in a header that says where voxels lie.
GEOMETRY = (
    "dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "dim_info", "toffset",
)  # fmt: skip


def geometry_bytes(path: Path) -> dict[str, bytes]:
    header = nib.load(path).header
    return {key: header[key].tobytes() for key in GEOMETRY}


def random_labels(scan: io.Scan, seed: int = 0) -> LabelMap:
    ids = np.random.default_rng(seed).integers(0, 12, size=scan.image.grid.shape)
    return LabelMap(ids, scan.image.grid, label_set("huashan-11"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(AXIS_ORDERS), st.sampled_from(["i2", "f4", "u1", "f8", ">i2"]), st.integers(0, 10**6))
def test_round_trip_of_any_axis_order(tmp_path: Path, axis_order: tuple, dtype: str, seed: int) -> None:
    """Read, write labels, read: same voxel at the same world point for nibabel, SimpleITK and us; same header bytes."""
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.3, 30, size=3))
    rotation = small_rotation(rng) if seed % 3 else None
    affine = ordered_affine(*axis_order, spacing, tuple(rng.normal(0, 300, 3)), rotation)
    shape = tuple(int(n) for n in rng.integers(2, 5, size=3))
    voxels = rng.permutation(np.prod(shape)).reshape(shape).astype(dtype)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, int(rng.integers(0, 5)))
    image.set_sform(affine, int(rng.integers(1, 5)))
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / f"{seed}.nii.gz"
    nib.save(image, path)
    scan = io.open_scan(path, Contrast.MR)
    where = nib.load(path).affine
    for index in np.ndindex(*shape):
        found = scan.image.grid.index((where @ [*index, 1])[:3])
        assert np.abs(found - np.rint(found)).max() < 1e-4
        assert scan.image.voxels[tuple(np.rint(found).astype(int))] == voxels[index]
    labels = random_labels(scan)
    out = tmp_path / f"{seed}_dseg.nii.gz"
    io.write_labels(labels, out, like=path)
    assert geometry_bytes(out) == geometry_bytes(path)
    again = io.read_labels(out, labels.label_set)
    np.testing.assert_array_equal(again.voxels, labels.voxels)
    assert again.grid.same_as(labels.grid)
    by_nibabel, by_itk = nib.load(out), sitk.ReadImage(str(out))
    ids = np.asarray(by_nibabel.dataobj)
    for index in np.ndindex(*shape):
        seen = labels.grid.index((by_nibabel.affine @ [*index, 1])[:3])
        assert labels.voxels[tuple(np.rint(seen).astype(int))] == ids[index]
        lps = by_itk.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(np.array([-1, -1, 1]) * lps, (by_nibabel.affine @ [*index, 1])[:3], atol=2e-3)
        assert by_itk[index] == ids[index]


def test_rescaled_as_the_header_says(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)

    def scale(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 2.5, -1024

    image = io.read(damaged_nifti(tmp_path / "a.nii.gz", voxels, scale), contrast=Contrast.MR)
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), voxels * 2.5 - 1024)
    assert image.voxels.dtype == np.float32

    def none(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 0, 7

    image = io.read(damaged_nifti(tmp_path / "b.nii", voxels, none), contrast=Contrast.MR)
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), voxels)


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 1), (16, 12, 1, 1), (16, 1, 12), (1, 16, 12), (16, 12, 3, 1)])
def test_shape_comes_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    voxels = np.random.default_rng(0).normal(100, 30, size=shape).astype(np.float32)
    path = tmp_path / "slice.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.9, -0.9, 8, 1])), path)
    scan = io.open_scan(path, Contrast.MR)
    assert scan.image.voxels.ndim == 3
    out = tmp_path / "slice_dseg.nii.gz"
    io.write_labels(random_labels(scan), out, like=path)
    assert nib.load(out).shape == shape
    assert geometry_bytes(out) == geometry_bytes(path)
    io.write_image(scan.image, tmp_path / "copy.nii.gz", like=scan)
    copy = nib.load(tmp_path / "copy.nii.gz")
    assert copy.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(copy.dataobj), voxels)


def test_nifti_2_and_big_endian_stay_what_they_are(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    affine = ordered_affine((1, 2, 0), (1, -1, 1))
    nib.save(nib.Nifti2Image(ct_voxels, affine), tmp_path / "two.nii.gz")
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(ct_voxels, affine, header), tmp_path / "big.nii")
    for name in ("two.nii.gz", "big.nii"):
        scan = io.open_scan(tmp_path / name)
        assert scan.image.contrast is Contrast.CT
        labels = random_labels(scan)
        out = tmp_path / f"out_{name}"
        io.write_labels(labels, out, like=scan)
        assert nib.load(out).header["dim"].dtype == nib.load(tmp_path / name).header["dim"].dtype
        assert geometry_bytes(out) == geometry_bytes(tmp_path / name)
        np.testing.assert_array_equal(scan.source.to_array(np.asarray(nib.load(out).dataobj)), labels.voxels)


def test_sform_holds_then_qform_then_pixel_size(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    sform, qform = np.diag([1, 1, 2, 1.0]), np.diag([-1, -1, 2, 1.0])
    qform[:3, 3] = (30, 0, 0)
    image = nib.Nifti1Image(voxels, sform)
    image.set_qform(qform, 1)
    image.set_sform(sform, 2)
    nib.save(image, tmp_path / "both.nii")
    both = io.open_scan(tmp_path / "both.nii", Contrast.MR)
    np.testing.assert_array_equal(both.source.affine, sform)
    assert any(w.startswith("sform and qform disagree by up to") for w in both.warnings)
    image.set_sform(None)
    nib.save(image, tmp_path / "qform.nii")
    one = io.open_scan(tmp_path / "qform.nii", Contrast.MR)
    np.testing.assert_allclose(one.source.affine, qform, atol=1e-6)
    assert one.warnings == ()
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "none.nii")
    none = io.open_scan(tmp_path / "none.nii", Contrast.MR)
    assert none.warnings == (
        "the file states no orientation (sform and qform codes are 0): left and right are a guess",
    )
    np.testing.assert_allclose(none.source.affine, nib.load(tmp_path / "none.nii").affine)


def test_metres_and_micrometres(tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for unit, size in (("meter", 0.002), ("micron", 2000)):
        image = nib.Nifti1Image(voxels, np.diag([size, size, size, 1]))
        image.header.set_xyzt_units(unit, "sec")
        nib.save(image, tmp_path / f"{unit}.nii")
        np.testing.assert_allclose(
            io.read(tmp_path / f"{unit}.nii", contrast=Contrast.MR).grid.spacing, (2, 2, 2), 1e-6
        )


def test_sheared_sform_is_read_and_flagged(tmp_path: Path) -> None:
    affine = np.diag([1, 1, 3, 1.0])
    affine[0, 1] = 0.2
    path = tmp_path / "sheared.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), affine), path)
    scan = io.open_scan(path, Contrast.MR)
    np.testing.assert_allclose(scan.source.affine, affine, atol=1e-6)
    assert any("not at right angles" in warning for warning in scan.warnings)


def test_content_counts_not_the_name(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(ct_voxels, np.eye(4)), tmp_path / "a.nii")
    plain = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(plain)
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain))
    wanted = io.read(tmp_path / "a.nii").voxels
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(io.read(tmp_path / name).voxels, wanted)


def test_same_labels_same_bytes_and_nothing_private(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    def name_patient(header: Any) -> None:
        header["db_name"] = b"DOE^JANE"

    path = damaged_nifti(tmp_path / "a.nii.gz", ct_voxels, name_patient)
    scan = io.open_scan(path)
    for name in ("one.nii.gz", "two.nii.gz"):
        io.write_labels(random_labels(scan), tmp_path / name, like=scan)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert b"DOE" not in gzip.decompress((tmp_path / "one.nii.gz").read_bytes())


def test_ids_above_255_are_written_as_uint16(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    from musclekit.labels import Label, LabelSet

    big = LabelSet("big", (Label(300, "femur", "F", "#ffffff"),), {})
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(ct_voxels, np.eye(4)), path)
    grid = io.read(path).grid
    io.write_labels(LabelMap(np.full(grid.shape, 300), grid, big), tmp_path / "d.nii.gz", like=path)
    written = nib.load(tmp_path / "d.nii.gz")
    assert written.get_data_dtype() == np.uint16
    assert np.unique(np.asarray(written.dataobj)).tolist() == [300]


def _set(key: str, value: Any, index: Any = ...) -> Any:
    def edit(header: Any) -> None:
        header[key][index] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (_set("pixdim", 0, 3), GeometryError, "voxel sizes must be positive, the header (pixdim) says 0.9, 0.8, 0 mm"),
        (_set("pixdim", -0.8, 2), GeometryError, "voxel sizes must be positive"),
        (_set("pixdim", np.nan, 1), GeometryError, "voxel sizes must be positive"),
        (_set("srow_z", 0), GeometryError, "the affine is singular"),
        (_set("srow_z", np.nan), GeometryError, "the sform holds numbers that are not finite"),
        (_set("dim", [3, 30000, 30000, 30000, 1, 1, 1, 1]), FormatError, "truncated: the header declares 5.4e+07 MB"),
        (_set("dim", [3, 7, 6, 6, 1, 1, 1, 1]), FormatError, "truncated"),
        (_set("dim", [3, 7, 0, 5, 1, 1, 1, 1]), FormatError, "damaged header: it declares the dimensions"),
        (_set("dim", [1, 210, 1, 1, 1, 1, 1, 1]), GeometryError, "1-D (210 voxels), not a scan"),
        (
            _set("dim", [4, 7, 6, 1, 5, 1, 1, 1]),
            GeometryError,
            "4-D: it holds 5 volumes of 7 x 6 x 1; give one",
        ),
        (_set("dim", [5, 7, 6, 1, 1, 5, 1, 1]), GeometryError, "5-D: it holds 5 volumes"),
        (_set("datatype", 128), FormatError, "a colour image (RGB)"),
        (_set("datatype", 2304), FormatError, "a colour image (RGB)"),
        (_set("datatype", 32), FormatError, "complex numbers; give the magnitude image"),
        (_set("datatype", 1), FormatError, "voxels of type 1"),
        (_set("datatype", 999), FormatError, "voxel type 999 does not exist"),
        (_set("vox_offset", 10), FormatError, "voxels are said to begin at byte 10, inside the header"),
        (_set("vox_offset", 1e6), FormatError, "truncated before its voxels"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_bad_headers(tmp_path: Path, ct_voxels: np.ndarray, edit: Any, error: Any, message: str, name: str) -> None:
    path = damaged_nifti(tmp_path / name, ct_voxels, edit)
    with pytest.raises(error) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_quaternion_that_is_none(tmp_path: Path, ct_voxels: np.ndarray) -> None:
    def edit(header: Any) -> None:
        header["sform_code"], header["qform_code"] = 0, 1
        header["quatern_b"], header["quatern_c"] = 2, 2

    with pytest.raises(GeometryError, match=r"scan\.nii: the qform is not a rotation; correct the header"):
        io.read(damaged_nifti(tmp_path / "scan.nii", ct_voxels, edit))


def test_two_dimensions_without_thickness(tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header["pixdim"][3] = 0
        header["sform_code"], header["qform_code"] = 0, 1

    path = damaged_nifti(tmp_path / "scan.nii", np.arange(42, dtype=np.int16).reshape(7, 6), edit)
    scan = io.open_scan(path, Contrast.MR)
    assert scan.image.grid.spacing[0] == 1
    assert scan.warnings == ("the file states no slice thickness: 1 mm is assumed, volumes mean nothing",)
    io.write_labels(random_labels(scan), tmp_path / "d.nii", like=path)
    assert geometry_bytes(tmp_path / "d.nii") == geometry_bytes(path)


def test_nifti_2_that_ends_in_its_header(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(np.zeros((2, 2, 2)), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:400])
    with pytest.raises(FormatError, match=r"a\.nii: truncated inside the header"):
        io.read(tmp_path / "a.nii")


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_truncated(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(FormatError) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "truncated" in str(caught.value) or "damaged" in str(caught.value)


def test_one_wrong_bit_in_gzip(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20)), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum: every voxel is there, but one cannot be sure of them
    path.write_bytes(content)
    with pytest.raises(FormatError, match="truncated or damaged; copy it again"):
        io.read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    voxels = np.ones((4, 4, 4), dtype=np.float32)
    voxels[1, 2, 3] = bad
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(VoxelError) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: 1 of 64 voxels are NaN or infinite; replace them")
