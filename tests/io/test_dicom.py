from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from musclekit import io
from musclekit.errors import FormatError, GeometryError, InputError, MissingFileError, ModalityError
from musclekit.image import Contrast, LabelMap
from musclekit.labels import label_set

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def dicom_file(path: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """Write one DICOM file; an attribute that is None is left out."""
    modality = attributes.get("Modality", "CT")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CT if modality == "CT" else MR
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    defaults: dict[str, Any] = {
        "Modality": "CT",
        "SeriesInstanceUID": "1.2.3",
        "SeriesNumber": 1,
        "SeriesDescription": "THIGH",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "PixelSpacing": [0.8, 0.7],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceThickness": 3,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    for name, value in (defaults | attributes).items():
        if value is not None:
            setattr(file, name, value)
    file.PixelData = pixels.astype(np.int16).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def dicom_series(folder: Path, n: int = 5, edit: Callable[[int], dict[str, Any]] | None = None, **same: Any) -> Path:
    """Write n slices of 6 x 7 voxels, 3 mm apart, under names that say nothing of their order."""
    folder.mkdir(exist_ok=True, parents=True)
    rng = np.random.default_rng(n)
    for k in range(n):
        attributes = {"ImagePositionPatient": [-20.5, 10.25, -400 + 3 * k], "InstanceNumber": n - k} | same
        if edit is not None:
            attributes |= edit(k)
        pixels = rng.choice([-1000, -100, 50], size=(6, 7)) + k
        dicom_file(folder / f"{(k * 7) % 11:02d}{same.get('SeriesNumber', 1)}.dcm", pixels, **attributes)
    return folder


def voxels_by_itk(folder: Path) -> sitk.Image:
    return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))


ORIENTATIONS = [
    [1, 0, 0, 0, 1, 0],
    [-1, 0, 0, 0, -1, 0],
    [0, 1, 0, 0, 0, -1],
    [1, 0, 0, 0, 0, -1],
    [0.9659258, 0.258819, 0, -0.258819, 0.9659258, 0],
]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_voxels_and_places_as_itk_has_them(tmp_path: Path, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])

    def place(k: int) -> dict[str, Any]:
        return {"ImagePositionPatient": [float(f"{x:.6f}") for x in np.array([-20.5, 10.25, -400]) + 3 * k * normal]}

    folder = dicom_series(tmp_path / "scan", 5, place, ImageOrientationPatient=orientation)
    scan = io.open_scan(folder)
    assert (scan.image.contrast, scan.contrast_source, scan.stem) == (Contrast.CT, "dicom", "scan")
    by_itk = voxels_by_itk(folder)
    for index in np.ndindex(*by_itk.GetSize()):
        world = np.array([-1, -1, 1]) * by_itk.TransformIndexToPhysicalPoint(index)
        seen = scan.image.grid.index(world)
        np.testing.assert_allclose(seen, np.rint(seen), atol=1e-4)
        assert scan.image.voxels[tuple(np.rint(seen).astype(int))] == by_itk[index]
    labels = LabelMap((scan.image.voxels > 0).astype(np.uint8), scan.image.grid, label_set("muscle"))
    for like in (folder, scan):
        io.write_labels(labels, tmp_path / "d.nii.gz", like=like)
        written = sitk.ReadImage(str(tmp_path / "d.nii.gz"))
        np.testing.assert_allclose(written.GetOrigin(), by_itk.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(written.GetDirection(), by_itk.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(written.GetSpacing(), by_itk.GetSpacing(), rtol=1e-6)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(by_itk) > 0)
        assert io.read_labels(tmp_path / "d.nii.gz", labels.label_set).grid.same_as(labels.grid)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_each_slice_has_its_own_rescaling(tmp_path: Path, modality: str) -> None:
    plain = io.read(dicom_series(tmp_path / "plain", Modality=modality))
    scaled = io.read(
        dicom_series(
            tmp_path / "scaled",
            edit=lambda k: {"RescaleSlope": 1 + 0.5 * k, "RescaleIntercept": -10 * k},
            Modality=modality,
        )
    )
    for k in range(5):
        np.testing.assert_allclose(scaled.voxels[k], plain.voxels[k] * (1 + 0.5 * k) - 10 * k)


def test_a_slice_alone(tmp_path: Path) -> None:
    scan = io.open_scan(dicom_series(tmp_path / "one", 1))
    assert scan.image.grid.shape == (1, 6, 7)
    np.testing.assert_allclose(scan.image.grid.spacing, (3, 0.8, 0.7))
    scan = io.open_scan(dicom_series(tmp_path / "bare", 1, SliceThickness=None))
    assert scan.warnings == ("the one slice states no thickness: 1 mm is assumed, volumes mean nothing",)
    file = next((tmp_path / "one").iterdir())
    assert io.read(file).grid.same_as(io.read(tmp_path / "one").grid)


class TestSeveralSeries:
    """One folder, several series."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        dicom_series(tmp_path / "p", 4, SeriesNumber=2, SeriesInstanceUID="1.2.2", SeriesDescription="AX CT")
        dicom_series(
            tmp_path / "p", 5, SeriesNumber=3, SeriesInstanceUID="1.2.33", SeriesDescription="T1", Modality="MR"
        )
        return tmp_path / "p"

    def test_they_are_listed(self, folder: Path) -> None:
        with pytest.raises(InputError) as caught:
            io.read(folder)
        assert str(caught.value) == (
            f"{folder}: 2 series; choose one by number, description or UID (--series): "
            "2 'AX CT' (CT, 4 slices); 3 'T1' (MR, 5 slices)"
        )
        assert [(one.number, one.modality, one.n_slices) for one in io.list_series(folder)] == [
            ("2", "CT", 4),
            ("3", "MR", 5),
        ]

    @pytest.mark.parametrize("name", ["3", "t1", "1.2.33"])
    def test_one_is_chosen(self, folder: Path, name: str) -> None:
        scan = io.open_scan(folder, series=name)
        assert scan.image.grid.shape == (5, 6, 7)
        assert scan.warnings == ("other series of the folder were passed over: 2 'AX CT' (CT, 4 slices)",)
        labels = LabelMap(np.ones((5, 6, 7), np.uint8), scan.image.grid, label_set("muscle"))
        io.write_labels(labels, folder.parent / "d.nii.gz", like=scan)
        assert nib.load(folder.parent / "d.nii.gz").shape == (7, 6, 5)

    def test_one_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(InputError, match=r"no series '9'; there are: 2 'AX CT' \(CT, 4 slices\); 3 'T1'"):
            io.read(folder, series="9")

    def test_alike_but_for_the_uid(self, tmp_path: Path) -> None:
        for uid in ("1.2.4", "1.2.5"):
            dicom_series(tmp_path / uid, 3, SeriesInstanceUID=uid)
            for file in (tmp_path / uid).iterdir():
                (tmp_path / "both").mkdir(exist_ok=True)
                file.rename(tmp_path / "both" / f"{uid}.{file.name}")
        with pytest.raises(InputError, match=r"1\.2\.4; 1 'THIGH' \(CT, 3 slices\) 1\.2\.5$"):
            io.read(tmp_path / "both")

    def test_pet_beside_ct_is_passed_over(self, tmp_path: Path) -> None:
        dicom_series(tmp_path / "p", 4)
        dicom_series(tmp_path / "p", 3, SeriesNumber=2, SeriesInstanceUID="1.2.9", Modality="PT")
        scan = io.open_scan(tmp_path / "p")
        assert scan.image.contrast is Contrast.CT
        assert scan.warnings == ("other series of the folder were passed over: 2 'THIGH' (PT, 3 slices)",)
        with pytest.raises(ModalityError, match=r"the series 2 'THIGH' \(PT, 3 slices\) is neither CT nor MR"):
            io.read(tmp_path / "p", series="2")


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "p", 4)
    (folder / "notes.txt").write_text("left leg")
    contours = pydicom.dcmread(get_testdata_file("rtstruct.dcm"), force=True)
    contours.save_as(folder / "contours.dcm", enforce_file_format=True)
    assert io.read(folder).grid.shape == (4, 6, 7)
    alone = tmp_path / "alone"
    alone.mkdir()
    (folder / "contours.dcm").rename(alone / "contours.dcm")
    assert io.holds_images(folder)
    assert not io.holds_images(alone)
    with pytest.raises(FormatError, match=r"alone: no DICOM image there, only RTSTRUCT; give the folder that holds"):
        io.read(alone)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no DICOM image there; give the folder that holds the slices$"):
        io.read(tmp_path)
    dicom_series(tmp_path / "disk" / "P1", 2)
    with pytest.raises(FormatError, match=r"give the folder that holds the slices: disk/P1$"):
        io.read(tmp_path)
    with pytest.raises(MissingFileError, match="no such file or folder"):
        io.list_series(tmp_path / "none")


def _only(which: int, **attributes: Any) -> Callable[[int], dict[str, Any]]:
    return lambda k: attributes if k == which else {}


@pytest.mark.parametrize(
    ("edit", "error", "parts"),
    [
        (
            lambda k: {"ImagePositionPatient": [0, 0, 3 * k + 3 * (k > 2)]},
            GeometryError,
            [
                "1 missing slice between 031.dcm (instance 3, position 0, 0, 6)",
                "and 101.dcm (instance 2, position 0, 0, 12): 6 mm apart where slices are 3 mm apart; copy the series",
            ],
        ),
        (
            lambda k: {"ImagePositionPatient": [0, 0, 3 * k + 9 * (k > 1)]},
            GeometryError,
            ["3 missing slices between", "12 mm apart where slices are 3 mm apart"],
        ),
        (
            _only(3, ImagePositionPatient=[-20.5, 10.25, -394.0]),
            GeometryError,
            ["repeated slice: 031.dcm (instance 3", "and 101.dcm (instance 2", "keep one image of each"],
        ),
        (
            lambda k: {"ImagePositionPatient": [0, 0, 3 * (k // 2)], "EchoTime": 1.5 + k % 2},
            GeometryError,
            ["repeated slice", "(echo times 1.5 and 2.5 ms)"],
        ),
        (
            _only(2, ImagePositionPatient=[-20.5, 10.25, -393.4]),
            GeometryError,
            ["uneven slices: 071.dcm (instance 4", "and 031.dcm (instance 3", "3.6 mm apart, others 3 mm"],
        ),
        (
            lambda k: {"ImagePositionPatient": [0, 0.5 * k, 3 * k]},
            GeometryError,
            ["gantry tilt: slices are stacked 9.5 degrees off their normal, from 001.dcm"],
        ),
        (
            _only(2, ImagePositionPatient=[-20.5, 12.25, -394.0]),
            GeometryError,
            ["slice 031.dcm (instance 3, position -20.5, 12.25, -394) is shifted by 2 mm against the others"],
        ),
        (
            _only(4, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
            GeometryError,
            ["slice 061.dcm (instance 1, position -20.5, 10.25, -388) lies in another direction than 001.dcm"],
        ),
        (
            _only(4, PixelSpacing=[0.9, 0.7]),
            GeometryError,
            ["slice 061.dcm (instance 1", "has pixels of 0.9 x 0.7 mm, 001.dcm"],
        ),
        (_only(1, PixelSpacing=[0, 0.7]), GeometryError, ["071.dcm: pixel sizes must be positive, PixelSpacing says"]),
        (_only(1, PixelSpacing=None), FormatError, ["071.dcm: no usable PixelSpacing (instance 4): not a slice"]),
        (_only(1, ImagePositionPatient=None), FormatError, ["071.dcm: no usable ImagePositionPatient (instance 4)"]),
        (
            lambda k: {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
            GeometryError,
            ["001.dcm: ImageOrientationPatient (0, 0, 0, 0, 0, 0) is not two directions at right angles"],
        ),
        (_only(1, SamplesPerPixel=3), FormatError, ["071.dcm: a colour image"]),
        (_only(1, NumberOfFrames=2), FormatError, ["071.dcm: 2 frames without a position each"]),
        (_only(1, Rows=60000, Columns=60000), GeometryError, ["has 60000 x 60000 pixels, 001.dcm"]),
        (lambda k: {"Rows": 60000, "Columns": 60000}, FormatError, ["001.dcm: truncated or damaged DICOM pixels"]),
    ],
)
def test_a_series_that_is_no_volume(tmp_path: Path, edit: Any, error: type, parts: list[str]) -> None:
    folder = dicom_series(tmp_path / "p", 5, edit)
    with pytest.raises(error) as caught:
        io.read(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_truncated_files(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "p", 3)
    file = folder / "071.dcm"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(FormatError, match=r"071\.dcm: truncated or damaged DICOM pixels"):
        io.read(folder)
    for length in (140, 200, 300, 500):
        file.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"071\.dcm: truncated or damaged DICOM"):
            io.read(folder)


def test_a_tag_that_is_no_number(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "p", 3)
    file = folder / "071.dcm"
    file.write_bytes(file.read_bytes().replace(b"0.8\\0.7", b"0.8\\zzz"))
    with pytest.raises(FormatError, match=r"071\.dcm: a DICOM tag holds no number where one must be|no usable Pixel"):
        io.read(folder)


def test_a_value_of_no_known_type(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "p", 3)
    file = folder / "071.dcm"
    file.write_bytes(file.read_bytes().replace(b"\x20\x00\x37\x00DS", b"\x20\x00\x37\x00D\xda"))
    with pytest.raises(FormatError, match=r"071\.dcm: truncated or damaged DICOM header"):
        io.read(folder)


def test_frames_that_are_not_described(tmp_path: Path) -> None:
    _enhanced(tmp_path / "enhanced.dcm")
    file = pydicom.dcmread(tmp_path / "enhanced.dcm")
    file.PerFrameFunctionalGroupsSequence = file.PerFrameFunctionalGroupsSequence[:2]
    file.save_as(tmp_path / "enhanced.dcm")
    with pytest.raises(FormatError, match="damaged: 4 frames, but 2 of them are described"):
        io.read(tmp_path / "enhanced.dcm")


def test_tags_that_contradict_the_contrast_given(tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "p", 3)
    with pytest.raises(ModalityError, match=r"p: given as MR, but its DICOM tags say CT"):
        io.read(folder, contrast=Contrast.T1W)
    assert io.open_scan(folder, Contrast.CT).contrast_source == "given"


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [
        ({"ScanningSequence": "SE", "RepetitionTime": 600, "EchoTime": 12}, Contrast.T1W),
        ({"ScanningSequence": "SE", "RepetitionTime": 4000, "EchoTime": 90}, Contrast.T2W),
        ({"ScanningSequence": "SE", "RepetitionTime": 4000, "EchoTime": 20}, Contrast.MR),
        ({"ScanningSequence": "SE", "RepetitionTime": 600, "EchoTime": 12, "ScanOptions": "FS"}, Contrast.MR),
        ({"ScanningSequence": "SE"}, Contrast.MR),
        ({"ScanningSequence": ["SE", "IR"], "InversionTime": 160, "RepetitionTime": 4000}, Contrast.STIR),
        ({"ScanningSequence": ["SE", "IR"], "InversionTime": 2500}, Contrast.MR),
        ({"ScanningSequence": "GR", "RepetitionTime": 6, "EchoTime": 2}, Contrast.MR),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"], "ScanningSequence": "GR"}, Contrast.WATER),
        ({"ImageType": ["DERIVED", "PRIMARY", "F", "F", "DERIVED"], "ScanningSequence": "GR"}, Contrast.FAT),
        ({"ImageType": ["DERIVED", "PRIMARY", "OPP_PHASE"], "ScanningSequence": "GR"}, Contrast.MR),
        ({}, Contrast.MR),
    ],
)
def test_contrast_from_tags(tmp_path: Path, tags: dict[str, Any], contrast: Contrast) -> None:
    folder = dicom_series(tmp_path / "p", 2, Modality="MR", **tags)
    for given in (None, Contrast.MR):
        scan = io.open_scan(folder, given)
        assert (scan.image.contrast, scan.contrast_source) == (contrast, "dicom")


def _enhanced(path: Path, n: int = 4) -> np.ndarray:
    """Write one multi-frame file, its frames out of order."""
    pixels = np.random.default_rng(0).integers(-1000, 400, size=(n, 6, 7))
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 3
    orientation = Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    groups = []
    for k in range(n):
        group, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, -3 * k]
        scale.RescaleSlope, scale.RescaleIntercept = 2, k
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([scale])
        groups.append(group)
    dicom_file(
        path,
        pixels,
        NumberOfFrames=n,
        PixelSpacing=None,
        ImageOrientationPatient=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
    )
    return pixels


def test_multi_frame_file(tmp_path: Path) -> None:
    pixels = _enhanced(tmp_path / "enhanced.dcm")
    image = io.read(tmp_path / "enhanced.dcm")
    np.testing.assert_allclose(image.grid.spacing, (3, 0.8, 0.7))
    expected = pixels[:, ::-1, ::-1] * 2 + np.arange(4)[:, None, None]
    np.testing.assert_array_equal(image.voxels, expected[::-1])


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_compressed_files(name: str) -> None:
    plain, packed = (io.read(Path(get_testdata_file(file))) for file in ("MR_small.dcm", name))
    np.testing.assert_array_equal(packed.voxels, plain.voxels)
    assert packed.grid.same_as(plain.grid)


def test_compressed_ct_is_rescaled_once(tmp_path: Path) -> None:
    file = pydicom.dcmread(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))
    stored = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    file.Modality, file.SOPClassUID, file.file_meta.MediaStorageSOPClassUID = "CT", CT, CT
    file.RescaleSlope, file.RescaleIntercept = 2, -1024
    file.save_as(tmp_path / "ct.dcm")
    scan = io.open_scan(tmp_path / "ct.dcm")
    np.testing.assert_array_equal(scan.source.to_stored(scan.image.voxels)[..., 0].T, stored * 2.0 - 1024)
