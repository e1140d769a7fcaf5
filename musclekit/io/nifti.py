"""NIfTI files: header by nibabel, geometry kept byte for byte."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import FormatError, GeometryError
from musclekit.io.formats import is_gzip, largest_content
from musclekit.io.source import Source, Stored, naming

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = ["read_nifti", "read_nifti_source", "write_nifti"]

#: Millimetres in the units of xyzt_units: unknown (taken for mm), metre, millimetre, micrometre.
_MILLIMETRES = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}

#: How far the two affines of a header may lie apart before it is said.
_DISAGREEMENT_MM = 1.0

#: gzip's levels: at 4 a float image takes a quarter of the time of 6 and a tenth more room; label maps gain from 6.
_LABEL_COMPRESSION, _IMAGE_COMPRESSION = 6, 4

_LABEL_INTENT = 1002


def read_nifti(path: Path) -> Stored:
    """Read a NIfTI-1 or NIfTI-2 file, compressed or not whatever it is called.

    Which affine holds follows nibabel: the sform where its code is above 0, else the qform where its code is above 0,
    else the voxel size alone, with the axes to L, A and S as in ANALYZE and the world's origin in the middle; that last
    case is reported, because then left and right are a guess. Metres and micrometres are converted.

    Returns
    -------
    Stored
        Voxels as stored, times ``scl_slope`` plus ``scl_inter``.

    Raises
    ------
    FormatError
        If the file is truncated or damaged, or holds colours or complex numbers.
    GeometryError
        If it is not 3-D, or a voxel size is not positive.
    """
    try:
        with naming(path), _open(path) as stream:
            header = _read_header(stream)
            source, warnings = _geometry(header)
            dtype = _dtype(header)
            expected = int(np.prod(source.shape, dtype=np.float64)) * dtype.itemsize
            if expected > largest_content(path):
                raise FormatError(
                    f"truncated: the header declares {expected / 1e6:.3g} MB of voxels, more than fit in the file"
                )
            raw = _read_voxels(stream, header, expected)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise FormatError(f"{path}: the gzip file is truncated or damaged; copy it again") from None
    voxels = np.frombuffer(raw, dtype=dtype).reshape(source.shape, order="F")
    return Stored(_rescaled(voxels, header), source, warnings)


def read_nifti_source(path: Path) -> Source:
    """Read the geometry alone, as `read_nifti` does."""
    with naming(path), _open(path) as stream:
        return _geometry(_read_header(stream))[0]


def write_nifti(stored: NDArray[Any], path: Path, source: Source, *, labels: bool) -> None:
    """Write voxels on the grid of a source.

    Parameters
    ----------
    stored : ndarray
        In the order and shape of the source.
    path : Path
        Compressed if it ends in ``.gz``.
    source : Source
        Where it comes from a NIfTI file, everything of its header that speaks of geometry is kept byte for byte
        (shape, sform, qform, codes, pixdim, units).
    labels : bool
        Whether the voxels are label ids; said in the header's intent.
    """
    header = _new_header(source) if source.nifti_header is None else _header_of(source.nifti_header)
    single = 352 if header.sizeof_hdr == 348 else 544
    header.set_data_dtype(stored.dtype.newbyteorder("="))
    for key in ("cal_max", "cal_min", "intent_p1", "intent_p2", "intent_p3", "scl_inter"):
        header[key] = 0
    header["scl_slope"] = 1
    header["vox_offset"] = single
    header["intent_code"] = _LABEL_INTENT if labels else 0
    header["intent_name"] = b""
    header["descrip"] = b"musclekit"
    for key in ("aux_file", "db_name"):  # old programs keep the patient's name in db_name
        if key in header:
            header[key] = b""
    header["magic"] = b"n+1" if single == 352 else b"n+2"
    # No extension follows: the input's may hold anything, patient data included.
    content = header.binaryblock + bytes(single - header.sizeof_hdr)
    voxels = stored.astype(header.get_data_dtype(), copy=False).tobytes(order="F")
    with path.open("wb") as file:
        if not path.name.endswith(".gz"):
            file.write(content)
            file.write(voxels)
            return
        level = _LABEL_COMPRESSION if labels else _IMAGE_COMPRESSION
        # Neither name nor time goes into the file: the same labels give the same bytes.
        with gzip.GzipFile("", "wb", level, file, mtime=0) as packed:
            packed.write(content)
            packed.write(voxels)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if is_gzip(path) else path.open("rb"))


def _header_of(block: bytes) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    # Nothing is checked here, for nibabel's checks mend what they find; `_geometry` refuses instead.
    return Nifti1Header(block, check=False) if len(block) == 348 else Nifti2Header(block, check=False)


def _read_header(stream: BinaryIO) -> Nifti1Header:
    start = stream.read(348)
    nifti2 = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    block = start + stream.read(540 - 348) if nifti2 else start
    if len(block) not in (348, 540):
        raise FormatError("truncated inside the header")
    return _header_of(block)


def _geometry(header: Nifti1Header) -> tuple[Source, tuple[str, ...]]:
    shape = _shape(header)
    warnings = []
    pixdim = np.array(header["pixdim"][1:4], dtype=np.float64)
    if len(shape) == 2 and pixdim[2] == 0:
        pixdim[2] = 1
        warnings.append("the file states no slice thickness: 1 mm is assumed, volumes mean nothing")
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        sizes = ", ".join(f"{size:g}" for size in pixdim)
        raise GeometryError(f"voxel sizes must be positive, the header (pixdim) says {sizes} mm; correct the header")
    scale = np.diag([*[_MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)] * 3, 1.0])
    affines = {name: scale @ affine for name, affine in _affines(header, shape, pixdim).items()}
    name = next(iter(affines))
    affine = affines[name]
    if name == "pixdim":
        warnings.append("the file states no orientation (sform and qform codes are 0): left and right are a guess")
    source = Source(shape, affine, header.binaryblock)
    if not np.isfinite(affine).all():
        raise GeometryError(f"the {name} holds numbers that are not finite; correct the header")
    apart = _apart(source, affines)
    if apart > _DISAGREEMENT_MM:
        warnings.append(f"sform and qform disagree by up to {apart:.3g} mm: the sform is used")
    source.grid  # noqa: B018  a singular affine is refused here, before any voxel is read
    return source, tuple(warnings)


def _affines(
    header: Nifti1Header, shape: tuple[int, ...], pixdim: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Affines that the header says are valid, the one that holds first."""
    from nibabel.spatialimages import HeaderDataError

    found: dict[str, NDArray[np.float64]] = {}
    if header["sform_code"] > 0:
        found["sform"] = np.asarray(header.get_sform(), dtype=np.float64)
    if header["qform_code"] > 0:
        copy = header.copy()
        copy["pixdim"][1:4] = pixdim
        # -1 and 1 are the only values; the standard takes 0 for 1.
        copy["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
        try:
            found["qform"] = np.asarray(copy.get_qform(), dtype=np.float64)
        except (HeaderDataError, ValueError):
            if not found:
                raise GeometryError("the qform is not a rotation; correct the header") from None
    if not found:
        found["pixdim"] = np.diag([-pixdim[0], pixdim[1], pixdim[2], 1.0])
        found["pixdim"][:3, 3] = -found["pixdim"][:3, :3] @ (np.asarray((*shape, 1)[:3]) - 1) / 2
    return found


def _apart(source: Source, affines: dict[str, NDArray[np.float64]]) -> float:
    """How far, in mm, the corners of sform and qform lie apart at most."""
    if len(affines) < 2:
        return 0.0
    first, second = affines.values()
    far = np.asarray(source.shape3) - 1
    corners = np.array([[i, j, k, 1] for i in (0, far[0]) for j in (0, far[1]) for k in (0, far[2])])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise FormatError(f"damaged header: it declares the dimensions {dim}")
    shape = tuple(dim[1 : dim[0] + 1])
    if len(shape) < 2:
        raise GeometryError(f"1-D ({shape[0]} voxels), not a scan")
    volumes = int(np.prod(shape[3:], dtype=np.int64))
    if volumes > 1:
        raise GeometryError(
            f"{len(shape)}-D: it holds {volumes} volumes of {' x '.join(map(str, shape[:3]))}; give one of them "
            "(split it with nibabel.four_to_three, fslsplit or 3D Slicer)"
        )
    return shape


def _dtype(header: Nifti1Header) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        raise FormatError(f"damaged header: voxel type {int(header['datatype'])} does not exist") from None
    if dtype.kind == "V" and dtype.names:
        raise FormatError("a colour image (RGB); give a scan of grey values")
    if dtype.kind == "c":
        raise FormatError("complex numbers; give the magnitude image")
    if dtype.kind not in "iuf":
        raise FormatError(f"voxels of type {int(header['datatype'])} cannot be read")
    return dtype


def _read_voxels(stream: BinaryIO, header: Nifti1Header, expected: int) -> bytes:
    read = header.sizeof_hdr
    offset = int(header["vox_offset"])
    if offset < read + 4:
        raise FormatError(f"damaged header: voxels are said to begin at byte {offset}, inside the header")
    while read < offset:
        skipped = len(stream.read(min(offset - read, 1 << 20)))
        if not skipped:
            raise FormatError("truncated before its voxels")
        read += skipped
    raw = stream.read(expected)
    if len(raw) < expected:
        raise FormatError(f"truncated: {len(raw)} of {expected} bytes of voxels are there; copy it again")
    # To the end, where gzip keeps its checksum.
    while stream.read(1 << 20):
        pass
    return raw


def _rescaled(voxels: NDArray[Any], header: Nifti1Header) -> NDArray[Any]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    # A slope of 0 (or one that is not a number) means none, by the standard.
    if slope == 0 or not np.isfinite(slope) or (slope == 1 and inter == 0):
        return voxels
    return voxels * slope + (inter if np.isfinite(inter) else 0.0)


def _new_header(source: Source) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header

    header = Nifti1Header()
    header.set_data_shape(source.shape)
    # The nearest rotation as qform, for readers that prefer it; both in scanner coordinates.
    header.set_qform(source.affine, code=1, strip_shears=True)
    header.set_sform(source.affine, code=1)
    header.set_xyzt_units("mm", "sec")
    return header
