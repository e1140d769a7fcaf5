"""Which format a file has, by what it holds and not by what it is called; and the name of a scan."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Literal

from musclekit.errors import FormatError, MissingFileError

__all__ = ["Format", "is_gzip", "largest_content", "sniff", "stem"]

Format = Literal["nifti", "nrrd", "meta", "dicom"]

#: Longer endings first.
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")

_READABLE = "NIfTI, NRRD, MHA/MHD or DICOM"

#: What people hand over by mistake: first bytes and name.
_OTHER_FORMATS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (unpack it first)"),
    (b"\x93NUMPY", "a NumPy array, which has no geometry"),
    (b"\x89HDF", "an HDF5 file"),
)

#: Bytes that one byte of a deflate stream can stand for, at most.
_LARGEST_DEFLATE = 1032

_HEAD = 540


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a scan without its folder and ending.

    Parameters
    ----------
    path : path-like
        File or DICOM folder.

    Returns
    -------
    str
        The name; only endings of image formats are cut, so dots inside it stay.

    Examples
    --------
    >>> stem("scans/sub-01.v2.nii.gz"), stem("scans/sub-01.v2")
    ('sub-01.v2', 'sub-01.v2')
    """
    name = Path(os.path.abspath(path)).name  # noqa: PTH100  a folder may be given as "."
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def largest_content(path: Path) -> int:
    """Bytes that a file can hold once unpacked, at most: known without unpacking it."""
    size = path.stat().st_size
    return size * _LARGEST_DEFLATE if is_gzip(path) else size


def sniff(path: Path) -> Format:
    """Tell the format of a file from its first bytes.

    Parameters
    ----------
    path : Path
        A file, compressed by gzip or not.

    Returns
    -------
    {"nifti", "nrrd", "meta", "dicom"}
        The format.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it may not be read, is empty, damaged, or of another format; the message says which.
    """
    head = _head(path)
    if not head:
        raise FormatError(f"{path}: the file is empty")
    if _is_nifti(path, head):
        return "nifti"
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if head[128:132] == b"DICM":
        return "dicom"
    if head.lstrip().startswith((b"ObjectType", b"NDims", b"Comment")) and b"=" in head:
        return "meta"
    raise FormatError(f"{path}: {_name_of_other(head)}; give {_READABLE}")


def _head(path: Path) -> bytes:
    try:
        if not is_gzip(path):
            with path.open("rb") as stream:
                return stream.read(_HEAD)
        with gzip.open(path, "rb") as unpacked:
            return unpacked.read(_HEAD)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file or folder") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise FormatError(f"{path}: the gzip file is truncated or damaged; copy it again") from None
    except OSError as problem:
        raise FormatError(f"{path}: cannot be read ({problem.strerror or problem})") from None


def _is_nifti(path: Path, head: bytes) -> bool:
    size = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")} & {348, 540}
    if not size:
        return False
    magic = head[344:348] if size == {348} else head[4:8]
    if magic[:3] in (b"n+1", b"n+2"):
        return True
    if magic[:3] in (b"ni1", b"ni2"):
        raise FormatError(f"{path}: a NIfTI header without its voxels (.hdr and .img); convert the pair to .nii.gz")
    raise FormatError(f"{path}: an ANALYZE or damaged NIfTI header, without orientation; convert it to .nii.gz")


def _name_of_other(head: bytes) -> str:
    for magic, name in _OTHER_FORMATS:
        if head.startswith(magic):
            return f"{name}, not a scan"
    text = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    return "a text file, not a scan" if text else "of no format known here"
