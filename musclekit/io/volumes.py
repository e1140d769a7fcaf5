"""Reading scans and label maps as (z, y, x), and writing them back onto the grid they came from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from musclekit.checks import holds_hounsfield_units
from musclekit.errors import FormatError, GeometryError, LabelError, MissingFileError, ModalityError, OutputError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.io.atomic import replacing
from musclekit.io.dicom import read_dicom, read_dicom_source
from musclekit.io.formats import sniff, stem
from musclekit.io.itk import read_itk, read_itk_source, write_itk
from musclekit.io.nifti import read_nifti, read_nifti_source, write_nifti
from musclekit.io.orientation import geometry_warnings
from musclekit.io.source import Source, Stored, naming
from musclekit.labels import LabelSet

__all__ = [
    "ContrastSource",
    "Scan",
    "guess_contrast",
    "open_scan",
    "read",
    "read_labels",
    "write_image",
    "write_labels",
]

ContrastSource = Literal["given", "dicom", "guessed"]

_Path = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Scan:
    """An image, where it came from and what its reader should know.

    Parameters
    ----------
    image : Image
        Axes 0, 1 and 2 lie closest to S, A and R; values rescaled (HU in CT).
    path : Path
        The file or DICOM folder.
    source : Source
        The grid in the file's own terms, for writing back.
    contrast_source : {"given", "dicom", "guessed"}
        Where the contrast comes from.
    warnings : tuple of str
        What is unusual about the file; one line each.
    """

    image: Image
    path: Path
    source: Source
    contrast_source: ContrastSource
    warnings: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Name without folder and ending, for the files written about it."""
        return stem(self.path)


def open_scan(path: _Path, contrast: Contrast | None = None, series: str | None = None) -> Scan:
    """Read a scan with all that is known of it.

    The voxels are transposed and flipped, never resampled.

    Parameters
    ----------
    path : path-like
        NIfTI (``.nii``, ``.nii.gz``), NRRD (``.nrrd``, ``.nhdr``), MetaImage (``.mha``, ``.mhd``), a DICOM folder or a
        DICOM file. The content decides, not the name.
    contrast : Contrast, optional
        What it shows. Left out, DICOM tags are asked, then the grey values (`guess_contrast`). ``Contrast.MR`` gives
        way to a weighting that DICOM tags state.
    series : str, optional
        Which series of a DICOM folder: SeriesInstanceUID, series number or description.

    Returns
    -------
    Scan
        The image with its warnings and what is needed to write back.

    Raises
    ------
    MissingFileError
        If there is no such file or folder.
    FormatError
        If it is empty, truncated, damaged, or no scan.
    GeometryError
        If it is not 3-D, its affine is singular, a voxel size is not positive, or DICOM slices do not make a volume.
    VoxelError
        If a voxel is NaN or infinite.
    ModalityError
        If the DICOM tags contradict the contrast given.
    InputError
        If a DICOM folder holds several series and none was chosen; the message lists them.
    """
    where = Path(path)
    stored = _read_stored(where, series)
    with naming(where):
        voxels = np.ascontiguousarray(stored.source.to_array(stored.voxels), dtype=np.float32)
        said, contrast_source = _contrast(contrast, stored.contrast, voxels)
        image = Image(voxels, stored.source.grid, said)
    warnings = (*stored.warnings, *geometry_warnings(image.grid))
    if contrast_source == "guessed":
        reason = "its values are Hounsfield units" if said is Contrast.CT else "its values are not Hounsfield units"
        warnings = (
            *warnings,
            f"taken for {said.modality.upper()}, because {reason}; state the modality if that is wrong",
        )
    return Scan(image, where, stored.source, contrast_source, warnings)


def read(path: _Path, *, contrast: Contrast | None = None, series: str | None = None) -> Image:
    """Read an image: ``open_scan(path, contrast, series).image``.

    Parameters
    ----------
    path : path-like
        File or DICOM folder.
    contrast : Contrast, optional
        What it shows; read from DICOM tags or guessed if left out.
    series : str, optional
        Which series of a DICOM folder.

    Returns
    -------
    Image
        float32, axes 0, 1 and 2 closest to S, A and R.

    Raises
    ------
    InputError
        As `open_scan`.
    """
    return open_scan(path, contrast, series).image


def read_labels(path: _Path, label_set: LabelSet) -> LabelMap:
    """Read a label map from NIfTI, NRRD or MetaImage.

    Parameters
    ----------
    path : path-like
        Whole numbers; the file may store them as floating point.
    label_set : LabelSet
        What they mean.

    Returns
    -------
    LabelMap
        Axes 0, 1 and 2 closest to S, A and R.

    Raises
    ------
    LabelError
        If a value is no whole number or not an id of the set; the message names the values.
    MissingFileError, FormatError, GeometryError
        As `open_scan`.
    """
    where = Path(path)
    if where.is_dir() or (where.exists() and sniff(where) == "dicom"):
        raise FormatError(f"{where}: label maps are read from NIfTI, NRRD or MHA, not from DICOM")
    stored = _read_stored(where, None)
    with naming(where):
        return LabelMap(stored.source.to_array(_whole_numbers(stored.voxels)), stored.source.grid, label_set)


def guess_contrast(voxels: NDArray[np.floating[Any]]) -> Contrast:
    """Guess what an image shows: CT if its values are Hounsfield units, else MR of unknown weighting.

    Parameters
    ----------
    voxels : ndarray
        Grey values, of any shape.

    Returns
    -------
    Contrast
        ``CT`` or ``MR``.
    """
    return Contrast.CT if holds_hounsfield_units(voxels) else Contrast.MR


def write_labels(labels: LabelMap, path: _Path, *, like: _Path | Scan | None = None) -> None:
    """Write a label map, on the very grid of the scan it belongs to.

    Parameters
    ----------
    labels : LabelMap
        On the grid that `read` gives for ``like``.
    path : path-like
        ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``; compressed but for ``.nii``; uint8, or uint16 when the set has an
        id above 255.
    like : path-like or Scan, optional
        The scan. Its axis order and shape are restored; from NIfTI to NIfTI sform, qform, codes, pixdim and units are
        kept byte for byte, else the geometry agrees to 1e-6. A folder of several DICOM series needs the `Scan`, which
        knows the series. Left out, the labels are written as their grid has them.

    Raises
    ------
    GeometryError
        If the labels lie on another grid than ``like``.
    OutputError
        If the file cannot be written; nothing half-written is left.
    """
    _write(labels.voxels, labels.grid, Path(path), like, labels=True)


def write_image(image: Image, path: _Path, *, like: _Path | Scan | None = None) -> None:
    """Write an image as float32, on the very grid of a scan or on its own.

    Parameters
    ----------
    image : Image
        On the grid that `read` gives for ``like``.
    path : path-like
        ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.
    like : path-like or Scan, optional
        As for `write_labels`.

    Raises
    ------
    GeometryError
        If the image lies on another grid than ``like``.
    OutputError
        If the file cannot be written; nothing half-written is left.
    """
    _write(image.voxels, image.grid, Path(path), like, labels=False)


def _read_stored(path: Path, series: str | None) -> Stored:
    if path.is_dir():
        return read_dicom(path, series)
    match sniff(path):
        case "nifti":
            return read_nifti(path)
        case "dicom":
            return read_dicom(path, series)
        case form:
            return read_itk(path, form)


def _read_source(path: Path) -> Source:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if path.is_dir():
        return read_dicom_source(path)
    match sniff(path):
        case "nifti":
            return read_nifti_source(path)
        case "dicom":
            return read_dicom_source(path)
        case form:
            return read_itk_source(path, form)


def _contrast(
    given: Contrast | None, tagged: Contrast | None, voxels: NDArray[np.float32]
) -> tuple[Contrast, ContrastSource]:
    if given is None:
        return (guess_contrast(voxels), "guessed") if tagged is None else (tagged, "dicom")
    if tagged is not None and tagged.modality != given.modality:
        raise ModalityError(f"given as {given.modality.upper()}, but its DICOM tags say {tagged.modality.upper()}")
    if given is Contrast.MR and tagged is not None:
        return tagged, "dicom"
    return given, "given"


def _whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    odd = values[values != np.floor(values)]  # NaN among them
    if odd.size:
        some = ", ".join(f"{value:g}" for value in np.unique(odd)[:5])
        raise LabelError(f"label maps hold whole numbers; {odd.size} voxels do not ({some} ...); is it an image?")
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise LabelError(f"label ids lie between 0 and 65535, found {values.min():g} to {values.max():g}")
    return values.astype(np.uint16)


def _write(voxels: NDArray[Any], grid: Grid, path: Path, like: _Path | Scan | None, *, labels: bool) -> None:
    write = _writer(path, labels)
    if like is None:
        source = Source.of(grid)
        stored = voxels.transpose(2, 1, 0)
    else:
        source = like.source if isinstance(like, Scan) else _read_source(Path(like))
        if not source.grid.same_as(grid):
            name = like.path if isinstance(like, Scan) else like
            raise GeometryError(f"{path}: not written, for it lies on another grid than {name}: "
                                f"{grid.difference(source.grid)}")  # fmt: skip
        stored = source.to_stored(voxels)
    with replacing(path) as temporary:
        write(stored, temporary, source)


def _writer(path: Path, labels: bool) -> Callable[[NDArray[Any], Path, Source], None]:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return lambda stored, temporary, source: write_nifti(stored, temporary, source, labels=labels)
    if name.endswith((".nrrd", ".mha")):
        return write_itk
    raise OutputError(f"{path}: volumes are written as .nii.gz, .nii, .nrrd or .mha; give one of these endings")
