"""DICOM folders: from the slices of a series to one volume, or a line that says which slice is wrong."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import FormatError, GeometryError, InputError, MissingFileError, ModalityError
from musclekit.image import Contrast
from musclekit.io.itk import quiet_itk
from musclekit.io.source import Source, Stored

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Series", "holds_images", "list_series", "read_dicom", "read_dicom_source"]

_TAGS = (
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
    "ScanningSequence", "ScanOptions", "RepetitionTime", "EchoTime", "InversionTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip

#: Angle between the normal of the slices and the line they are stacked along from which they are tilted.
_TILT_DEGREES = 0.5

#: Departure of a slice distance from the median, as a share of it, from which slices are not evenly spaced.
_UNEVEN = 0.05

#: Slices further than this beside the line of the others are shifted.
_SHIFT_MM = 0.1

_LPS = np.diag([-1.0, -1.0, 1.0])

#: Encapsulated, yet pydicom decodes it without any plug-in.
_RLE = "1.2.840.10008.1.2.5"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, eq=False)
class _Plane:
    """One slice: a file, or a frame of one."""

    path: Path
    frame: int
    instance: int | None
    shape: tuple[int, int]
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float | None
    slope: float
    intercept: float
    echo_time: float | None

    def __str__(self) -> str:
        at = ", ".join(f"{x:g}" for x in self.position)
        frame = f", frame {self.frame + 1}" if self.frame else ""
        return f"{self.path.name}{frame} (instance {self.instance}, position {at})"


@dataclass(frozen=True, eq=False)
class Series:
    """One series of a folder.

    Parameters
    ----------
    uid : str
        SeriesInstanceUID.
    number : str
        SeriesNumber; empty where the files do not say.
    description : str
        SeriesDescription.
    modality : str
        As DICOM writes it: ``"CT"``, ``"MR"``, ``"PT"`` ...
    files : tuple of (Path, Dataset)
        Its image files with their headers, in the order of the file names.
    """

    uid: str
    number: str
    description: str
    modality: str
    files: tuple[tuple[Path, Dataset], ...]

    @property
    def n_slices(self) -> int:
        """How many slices its files hold."""
        return sum(int(header.get("NumberOfFrames") or 1) for _, header in self.files)

    def __str__(self) -> str:
        slices = f"{self.n_slices} slice{'s' * (self.n_slices != 1)}"
        return f"{self.number or '(no number)'} '{self.description}' ({self.modality}, {slices})"


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Leave out pydicom's warnings of values that break the standard: what matters here is checked here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        yield


@_quiet_pydicom()
def holds_images(folder: Path) -> bool:
    """Whether a folder, its subfolders aside, holds a DICOM image.

    Contours and reports are none; a damaged file counts, for whoever reads it is to be told.

    Raises
    ------
    FormatError
        If a file may not be read.
    """
    return any(_is_image(file) for file in sorted(folder.iterdir()) if file.is_file() and _is_dicom(file))


@_quiet_pydicom()
def list_series(path: Path) -> tuple[Series, ...]:
    """List the image series of a folder; contours, reports and whatever holds no pixels are passed over.

    Parameters
    ----------
    path : Path
        A folder, whose subfolders are not looked into, or one DICOM file.

    Returns
    -------
    tuple of Series
        By number, then by UID.

    Raises
    ------
    MissingFileError
        If there is no such folder or file.
    FormatError
        If it holds no DICOM image.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    others: Counter[str] = Counter()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and _is_dicom(file):
            header = _read_header(file)
            if "Rows" in header and "Columns" in header:
                found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
            elif _should_be_image(header):
                raise FormatError(f"{file}: truncated or damaged DICOM header (it ends early); copy it again")
            else:
                others[str(header.get("Modality", "unknown"))] += 1
    if not found:
        only = f", only {', '.join(sorted(others))}" if others else ""
        raise FormatError(f"{path}: no DICOM image there{only}; give the folder that holds the slices{_below(path)}")
    series = [
        Series(
            uid,
            str(files[0][1].get("SeriesNumber") if files[0][1].get("SeriesNumber") is not None else ""),
            str(files[0][1].get("SeriesDescription", "")),
            str(files[0][1].get("Modality", "")),
            tuple(files),
        )
        for uid, files in found.items()
    ]
    return tuple(sorted(series, key=lambda one: (one.number.zfill(12), one.uid)))


@_quiet_pydicom()
def read_dicom(path: Path, series: str | None = None) -> Stored:
    """Read one series of a DICOM folder, or a DICOM file.

    Parameters
    ----------
    path : Path
        Folder or file.
    series : str, optional
        SeriesInstanceUID, series number or description; not needed where there is one series of CT or MR.

    Returns
    -------
    Stored
        float32 voxels in the order (column, row, slice), slices sorted along their normal, each with the
        RescaleSlope and RescaleIntercept of its own file; also for MR, where ITK passes them over.

    Raises
    ------
    MissingFileError, FormatError
        If there is nothing to read, or a file is damaged.
    InputError
        If there are several series and none was chosen, or the one chosen does not exist; the message lists them.
    ModalityError
        If the series is neither CT nor MR.
    GeometryError
        If a slice is missing, repeated, tilted, shifted, or differs in size or orientation; the message names it.
    """
    chosen, passed_over = _choose(path, series)
    planes = _planes(chosen)
    source, notes = _source(planes)
    return Stored(_read_voxels(planes), source, (*passed_over, *notes), _contrast(chosen.files[0][1]))


@_quiet_pydicom()
def read_dicom_source(path: Path, series: str | None = None) -> Source:
    """Read the geometry alone, as `read_dicom` does."""
    return _source(_planes(_choose(path, series)[0]))[0]


def _is_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            stream.seek(128)
            return stream.read(4) == b"DICM"
    except OSError as problem:
        raise FormatError(f"{file}: cannot be read ({problem.strerror or problem})") from None


def _below(path: Path) -> str:
    """Name some subfolders that begin with a DICOM file, for the message that a folder holds none."""
    if not path.is_dir():
        return ""
    inner = [folder for folder in sorted(path.rglob("*")) if folder.is_dir()]
    firsts = ((folder, min((file for file in folder.iterdir() if file.is_file()), default=None)) for folder in inner)
    found = [str(folder.relative_to(path)) for folder, first in firsts if first is not None and _is_dicom(first)]
    if not found:
        return ""
    return f": {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"


def _read_header(file: Path) -> Dataset:
    from pydicom import dcmread

    try:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        # pydicom parses a value when it is first asked for: here, where the file can be named.
        for _ in header.iterall():
            pass
        return header
    except Exception as problem:  # pydicom raises whatever its parsing ran into
        raise FormatError(f"{file}: truncated or damaged DICOM header ({problem}); copy it again") from None


def _is_image(file: Path) -> bool:
    try:
        header = _read_header(file)
    except FormatError:
        return True
    return "Rows" in header or _should_be_image(header)


def _should_be_image(header: Dataset) -> bool:
    """Whether a file without a size must be a damaged image: it says that it is one, or nothing at all."""
    uid = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return uid is None or "Image Storage" in uid.name


def _choose(path: Path, wanted: str | None) -> tuple[Series, tuple[str, ...]]:
    found = list_series(path)
    listed = "; ".join(map(str, found))
    if wanted is not None:
        matching = [one for one in found if wanted in (one.uid, one.number)]
        matching = matching or [one for one in found if wanted.casefold() == one.description.casefold()]
        if not matching:
            raise InputError(f"{path}: no series '{wanted}'; there are: {listed}")
    else:
        # What is neither cannot be meant.
        matching = [one for one in found if one.modality in ("CT", "MR")] or list(found)
    if len(matching) > 1:
        same = len({str(one) for one in matching}) < len(matching)
        listed = "; ".join(f"{one} {one.uid}" if same else str(one) for one in matching)
        raise InputError(
            f"{path}: {len(matching)} series; choose one by number, description or UID (--series): {listed}"
        )
    chosen = matching[0]
    if chosen.modality not in ("CT", "MR"):
        raise ModalityError(f"{path}: the series {chosen} is neither CT nor MR")
    others = [str(one) for one in found if one is not chosen]
    return chosen, (f"other series of the folder were passed over: {'; '.join(others)}",) if others else ()


def _planes(series: Series) -> list[_Plane]:
    """Planes of a series, sorted along their normal, checked to be one regular stack."""
    planes = []
    for file, header in series.files:
        try:
            planes += _planes_of(file, header)
        except (ValueError, TypeError, OverflowError) as problem:
            raise FormatError(f"{file}: a DICOM tag holds no number where one must be ({problem})") from None
    first = planes[0]
    for plane in planes[1:]:
        if plane.shape != first.shape:
            raise GeometryError(
                f"{first.path.parent}: slice {plane} has {plane.shape[0]} x {plane.shape[1]} pixels, "
                f"{first} has {first.shape[0]} x {first.shape[1]}; remove what does not belong to the stack"
            )
        if np.abs(plane.orientation - first.orientation).max() > 1e-3:
            raise GeometryError(
                f"{first.path.parent}: slice {plane} lies in another direction than {first}; "
                "remove what does not belong to the stack (a localiser?)"
            )
        if np.abs(plane.spacing - first.spacing).max() > 1e-3:
            raise GeometryError(
                f"{first.path.parent}: slice {plane} has pixels of {plane.spacing[0]:g} x {plane.spacing[1]:g} mm, "
                f"{first} of {first.spacing[0]:g} x {first.spacing[1]:g} mm; remove what does not belong to the stack"
            )
    normal = _normal(first)
    planes.sort(key=lambda plane: float(plane.position @ normal))
    if len(planes) > 1:
        _check_stack(planes, normal)
    return planes


def _check_stack(planes: Sequence[_Plane], normal: NDArray[np.float64]) -> None:
    folder = planes[0].path.parent
    positions = np.array([plane.position for plane in planes])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps[gaps > 1e-3])) if (gaps > 1e-3).any() else 0.0
    for before, after, gap in zip(planes, planes[1:], gaps, strict=False):
        if gap <= max(1e-3, 0.01 * usual):
            echoes = ""
            if before.echo_time != after.echo_time:
                echoes = f" (echo times {before.echo_time:g} and {after.echo_time:g} ms)"
            raise GeometryError(
                f"{folder}: repeated slice: {before} and {after} lie at one place{echoes}; "
                "keep one image of each (several echoes, phases or times in one series?)"
            )
    for before, after, gap in zip(planes, planes[1:], gaps, strict=False):
        if gap > (1 + _UNEVEN) * usual or gap < (1 - _UNEVEN) * usual:
            missing = round(gap / usual) - 1
            if missing > 0 and abs(gap / usual - missing - 1) < 2 * _UNEVEN:
                raise GeometryError(
                    f"{folder}: {missing} missing slice{'s' * (missing > 1)} between {before} and {after}: "
                    f"{gap:g} mm apart where slices are {usual:g} mm apart; copy the series again"
                )
            raise GeometryError(
                f"{folder}: uneven slices: {before} and {after} are {gap:g} mm apart, others {usual:g} mm; "
                "resample the series first (dcm2niix does)"
            )
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if tilt > _TILT_DEGREES:
        raise GeometryError(
            f"{folder}: gantry tilt: slices are stacked {tilt:.1f} degrees off their normal, from {planes[0]} to "
            f"{planes[1]}; correct the tilt first (dcm2niix does)"
        )
    beside = np.linalg.norm(positions - positions[0] - np.arange(len(planes))[:, None] * step, axis=1)
    worst = int(beside.argmax())
    # Uneven distances within the tolerance count along the normal only.
    if beside[worst] > max(_SHIFT_MM, _UNEVEN * usual):
        raise GeometryError(f"{folder}: slice {planes[worst]} is shifted by {beside[worst]:.2g} mm against the others")


def _normal(plane: _Plane) -> NDArray[np.float64]:
    return np.cross(plane.orientation[:3], plane.orientation[3:])


def _source(planes: Sequence[_Plane]) -> tuple[Source, tuple[str, ...]]:
    first, last = planes[0], planes[-1]
    notes: tuple[str, ...] = ()
    if len(planes) > 1:
        step = (last.position - first.position) / (len(planes) - 1)
    else:
        if not first.thickness:
            notes = ("the one slice states no thickness: 1 mm is assumed, volumes mean nothing",)
        step = _normal(first) * (first.thickness or 1.0)
    affine = np.eye(4)
    # The first three cosines run along a row (from column to column), PixelSpacing begins with the rows.
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine[:3] = _LPS @ affine[:3]
    rows, columns = first.shape
    return Source((columns, rows, len(planes)), affine), notes


def _planes_of(file: Path, header: Dataset) -> list[_Plane]:
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise FormatError(f"{file}: a colour image; give a scan of grey values")
    frames = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame and frames > 1:
        raise FormatError(f"{file}: {frames} frames without a position each; convert the file with dcm2niix first")
    if not per_frame:
        return [_plane(file, 0, header, [header])]
    if len(per_frame) != frames:
        raise FormatError(f"{file}: damaged: {frames} frames, but {len(per_frame)} of them are described")
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    return [_plane(file, i, header, [group, *shared, header]) for i, group in enumerate(per_frame)]


#: Where multi-frame files keep what single-frame ones have at the top.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "EchoTime": "MRTimingAndRelatedParametersSequence",
}


def _numbers(groups: Sequence[Dataset], keyword: str) -> NDArray[np.float64] | None:
    """Value of an attribute as numbers: of the first group that states it."""
    for group in groups:
        inner = group.get(_GROUPS[keyword])
        for place in ([inner[0]] if inner else []) + [group]:
            value = place.get(keyword)
            if value not in (None, ""):
                return np.atleast_1d(np.asarray(value, dtype=np.float64))
    return None


def _number(groups: Sequence[Dataset], keyword: str) -> float | None:
    value = _numbers(groups, keyword)
    return None if value is None or value.size == 0 else float(value[0])


def _plane(file: Path, frame: int, header: Dataset, groups: Sequence[Dataset]) -> _Plane:
    geometry = {}
    for keyword, size in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        value = _numbers(groups, keyword)
        if value is None or value.size != size or not np.isfinite(value).all():
            raise FormatError(f"{file}: no usable {keyword} (instance {header.get('InstanceNumber')}): not a slice")
        geometry[keyword] = value
    axes = geometry["ImageOrientationPatient"].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 0.01:
        raise GeometryError(
            f"{file}: ImageOrientationPatient ({', '.join(f'{x:g}' for x in axes.ravel())}) is not two directions at "
            "right angles; correct the header"
        )
    if (geometry["PixelSpacing"] <= 0).any():
        sizes = " x ".join(f"{size:g}" for size in geometry["PixelSpacing"])
        raise GeometryError(f"{file}: pixel sizes must be positive, PixelSpacing says {sizes} mm")
    thickness = _number(groups, "SpacingBetweenSlices") or _number(groups, "SliceThickness")
    slope, intercept = _number(groups, "RescaleSlope"), _number(groups, "RescaleIntercept")
    instance = header.get("InstanceNumber")
    return _Plane(
        file,
        frame,
        None if instance is None else int(instance),
        (int(header.Rows), int(header.Columns)),
        geometry["ImagePositionPatient"],
        geometry["ImageOrientationPatient"],
        geometry["PixelSpacing"],
        abs(thickness) if thickness else None,
        1.0 if slope is None else slope,
        intercept or 0.0,
        _number(groups, "EchoTime"),
    )


def _read_voxels(planes: Sequence[_Plane]) -> NDArray[np.float32]:
    path, frames = planes[0].path, _read_frames(planes[0])
    # Only now is it known that a slice holds what its header declares.
    volume = np.empty((len(planes), *planes[0].shape), dtype=np.float32)
    for k, plane in enumerate(planes):
        if plane.path != path:
            path, frames = plane.path, _read_frames(plane)
        volume[k] = frames[plane.frame] * plane.slope + plane.intercept
    return volume.T


def _read_frames(plane: _Plane) -> NDArray[Any]:
    """Return the stored values of a file, before any rescaling, shape (frames, rows, columns)."""
    from pydicom import dcmread

    try:
        header = dcmread(plane.path)
        syntax = header.file_meta.TransferSyntaxUID
        values = _decompress(header) if syntax.is_compressed and syntax != _RLE else header.pixel_array
    except Exception as problem:  # pydicom and its decoders raise whatever they ran into
        reason = str(problem).strip().splitlines()
        raise FormatError(
            f"{plane.path}: truncated or damaged DICOM pixels ({reason[-1] if reason else type(problem).__name__}); "
            "copy it again"
        ) from None
    return values.reshape(-1, *plane.shape)


def _decompress(header: Dataset) -> NDArray[Any]:
    """Return the stored values of a JPEG, JPEG-LS or JPEG 2000 file, by the decoders that SimpleITK brings.

    ITK rescales CT and leaves MR as it is; a copy that says nothing of rescaling leaves that to us in both.
    """
    import SimpleITK as sitk
    from pydicom.uid import UID

    for keyword in ("RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence",
                    "PerFrameFunctionalGroupsSequence"):  # fmt: skip
        if keyword in header:
            delattr(header, keyword)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID(_SECONDARY_CAPTURE)
    with tempfile.TemporaryDirectory() as folder, quiet_itk():
        copy = Path(folder) / "copy.dcm"
        header.save_as(copy)
        values: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO"))
    return values


def _contrast(header: Dataset) -> Contrast:
    """Contrast that the tags state beyond doubt; ``MR`` where they leave room for any.

    Spin echo counts as T1 weighted with TR up to 1000 and TE up to 30 ms, as T2 weighted with TR from 2000 and TE from
    60 ms; an inversion time of 80 to 260 ms as STIR; fat and water by the image type of a Dixon reconstruction. Fat
    saturation and gradient echoes leave it open, because fat may be dark there.
    """
    if header.get("Modality") == "CT":
        return Contrast.CT
    kinds = _words(header, "ImageType")
    if kinds & {"WATER", "W"}:
        return Contrast.WATER
    if kinds & {"FAT", "F"}:
        return Contrast.FAT
    sequence, options = _words(header, "ScanningSequence"), _words(header, "ScanOptions")
    tr, te, ti = (_milliseconds(header, key) for key in ("RepetitionTime", "EchoTime", "InversionTime"))
    if "IR" in sequence:
        return Contrast.STIR if ti is not None and 80 <= ti <= 260 else Contrast.MR
    if sequence != {"SE"} or any(option.startswith(("FS", "SFS", "FAT")) for option in options):
        return Contrast.MR
    if tr is None or te is None:
        return Contrast.MR
    if tr <= 1000 and te <= 30:
        return Contrast.T1W
    return Contrast.T2W if tr >= 2000 and te >= 60 else Contrast.MR


def _words(header: Dataset, keyword: str) -> set[str]:
    value = header.get(keyword) or []
    return {str(word).strip().upper() for word in ([value] if isinstance(value, str) else value)}


def _milliseconds(header: Dataset, keyword: str) -> float | None:
    value = header.get(keyword)
    return None if value in (None, "") else float(value)
