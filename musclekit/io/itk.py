"""NRRD and MetaImage (MHA, MHD) files, through SimpleITK."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import FormatError, GeometryError, MissingFileError
from musclekit.io.formats import largest_content
from musclekit.io.source import Source, Stored, naming

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["quiet_itk", "read_itk", "read_itk_source", "write_itk"]

_IMAGE_IO = {"nrrd": "NrrdImageIO", "meta": "MetaImageIO"}

#: LPS (ITK) to RAS+ and back.
_LPS = np.diag([-1.0, -1.0, 1.0])

#: Without these MetaImage's reader gives up, and says so on stderr.
_META_KEYS = (b"NDims", b"DimSize", b"ElementType", b"ElementDataFile")

#: Lines of a header that name a file for the voxels: NRRD's ``data file:``, MetaImage's ``ElementDataFile =``.
_DATA_FILE = re.compile(rb"^\s*(?:data ?file\s*:|ElementDataFile\s*=)[ \t]*([^\r\n]+)", re.MULTILINE | re.IGNORECASE)
_ENCODED = re.compile(
    rb"^\s*(?:encoding\s*:[ \t]*(?!raw)\S|CompressedData\s*=[ \t]*True)", re.MULTILINE | re.IGNORECASE
)
_LONGEST_HEADER = 1 << 16


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings off stderr for a while; its errors come as exceptions."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def read_itk(path: Path, form: Literal["nrrd", "meta"]) -> Stored:
    """Read an NRRD or MetaImage file, whatever it is called.

    Returns
    -------
    Stored
        Voxels in the order (i, j, k) of the file.

    Raises
    ------
    FormatError
        If the file is truncated or damaged, or holds colours or complex numbers.
    GeometryError
        If it is not 3-D, or a voxel size is not positive.
    MissingFileError
        If the header names a file of voxels that is not there.
    """
    import SimpleITK as sitk

    with quiet_itk():
        reader, source, warnings = _open(path, form)
        with _as_format_error(path):
            image = reader.Execute()
    return Stored(sitk.GetArrayFromImage(image).T, source, warnings)


def read_itk_source(path: Path, form: Literal["nrrd", "meta"]) -> Source:
    """Read the geometry alone."""
    with quiet_itk():
        return _open(path, form)[1]


def write_itk(stored: NDArray[Any], path: Path, source: Source) -> None:
    """Write voxels on the grid of a source, compressed; the ending says in which format.

    Raises
    ------
    OSError
        If ITK cannot write it.
    """
    import SimpleITK as sitk

    two_d = stored.ndim == 2 and _in_plane(source.affine)
    array = stored if two_d else stored.reshape(source.shape3, order="F")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    n = array.ndim
    matrix = (_LPS @ source.affine[:3, :3])[:n, :n]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((_LPS @ source.affine[:3, 3])[:n].tolist())
    # ITK does not say why it could not write: whether it may is asked first, whether there was room afterwards.
    path.touch()
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as problem:
        if shutil.disk_usage(path.parent).free < stored.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise OSError(_last_line(problem)) from None


def _in_plane(affine: NDArray[np.float64]) -> bool:
    """Whether a 2-D file can say where the plane lies: in the world's own x-y plane, at z = 0."""
    return bool(np.array_equal(affine[2], (0, 0, 1, 0)) and np.array_equal(affine[:2, 2], (0, 0)))


def _open(path: Path, form: Literal["nrrd", "meta"]) -> tuple[sitk.ImageFileReader, Source, tuple[str, ...]]:
    import SimpleITK as sitk

    available, packed = _available(path, form)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO[form])
    reader.SetFileName(str(path))
    with _as_format_error(path):
        reader.ReadImageInformation()
    with naming(path):
        _check_voxel_type(reader)
        source = _source(reader)
        value = _bytes_per_value(reader.GetPixelID())
        expected = int(np.prod(reader.GetSize(), dtype=np.float64)) * value
        if expected > available:
            raise FormatError(
                f"truncated: the header declares {expected / 1e6:.3g} MB of voxels, "
                f"{'at most ' if packed else ''}{available / 1e6:.3g} MB are there"
            )
    warnings: tuple[str, ...] = ()
    if form == "nrrd" and "NRRD_space" not in reader.GetMetaDataKeys():
        warnings = ("the file states no orientation (NRRD space): left and right are a guess",)
    return reader, source, warnings


def _available(path: Path, form: Literal["nrrd", "meta"]) -> tuple[int, bool]:
    """Bytes of voxels that can be there at most, and whether they are compressed."""
    with path.open("rb") as stream:
        start = stream.read(_LONGEST_HEADER)
    lacking = [key.decode() for key in _META_KEYS if key not in start] if form == "meta" else []
    if lacking:
        raise FormatError(f"{path}: damaged header: it does not state {', '.join(lacking)}; copy it again")
    packed = _ENCODED.search(start) is not None
    named = _DATA_FILE.search(start)
    name = named.group(1).strip().decode("utf-8", "replace") if named else "LOCAL"
    if name.upper() == "LOCAL":
        # The header is counted too: only ITK knows to the byte where it ends.
        size = path.stat().st_size
        if not packed:
            size -= start.find(b"\n", named.end() - 1) + 1 if named else max(start.find(b"\n\n"), 0)
        return (size * 1032 if packed else size), packed
    files = [path.parent / name]
    if " " in name or "%" in name or name.upper().startswith("LIST"):
        # A pattern or a list: any file of the folder may belong to it.
        files = [file for file in path.parent.iterdir() if file.is_file()]
    for file in files:
        if not file.is_file():
            raise MissingFileError(f"{path}: its voxels should be in {file.name}, which is not there")
    return sum(largest_content(file) for file in files) * (1032 if packed else 1), packed


def _check_voxel_type(reader: sitk.ImageFileReader) -> None:
    import SimpleITK as sitk

    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise FormatError("complex numbers; give the magnitude image")
    values = reader.GetNumberOfComponents()
    if values > 1:
        raise FormatError(f"it holds {values} values a voxel (a colour image, or several volumes); give one volume")


def _source(reader: sitk.ImageFileReader) -> Source:
    shape = tuple(int(n) for n in reader.GetSize())
    if len(shape) > 3 and max(shape[3:]) > 1:
        volumes = int(np.prod(shape[3:]))
        raise GeometryError(
            f"{len(shape)}-D: it holds {volumes} volumes of {' x '.join(map(str, shape[:3]))}; give one of them "
            "(split it with SimpleITK.Extract or 3D Slicer)"
        )
    n = len(shape)
    spacing = np.asarray(reader.GetSpacing(), dtype=np.float64)
    direction = np.asarray(reader.GetDirection(), dtype=np.float64).reshape(n, n)
    origin = np.asarray(reader.GetOrigin(), dtype=np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GeometryError(
            f"voxel sizes must be positive, the header says {', '.join(f'{s:g}' for s in spacing)} mm; correct it"
        )
    affine = np.eye(4)
    d = min(n, 3)
    affine[:d, :d] = (direction * spacing)[:d, :d]
    affine[:d, 3] = origin[:d]
    affine[:3] = _LPS @ affine[:3]
    source = Source(shape, affine)
    source.grid  # noqa: B018  a singular affine is refused here, before any voxel is read
    return source


def _bytes_per_value(pixel_id: int) -> int:
    import SimpleITK as sitk

    size = re.search(r"(\d+)-bit", sitk.GetPixelIDValueAsString(pixel_id))
    return int(size.group(1)) // 8 if size else 1


@contextmanager
def _as_format_error(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        if "spacing" in str(problem).lower():
            raise GeometryError(f"{path}: voxel sizes must be positive ({_last_line(problem)}); correct it") from None
        raise FormatError(f"{path}: damaged or not readable ({_last_line(problem)}); copy it again") from None


def _last_line(problem: RuntimeError) -> str:
    """Return the line of ITK's message that says what happened."""
    return [line.strip() for line in str(problem).splitlines() if line.strip()][-1]
