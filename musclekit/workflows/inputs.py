"""From what a person names on the command line to the scans that are meant, each with a name of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from musclekit.errors import InputError, MissingFileError
from musclekit.io import holds_images, stem

__all__ = ["VOLUME_SUFFIXES", "find_scans", "scan_names"]

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

#: Endings of label maps and masks: in a folder they are never taken for scans.
_DERIVED = ("_dseg", "_probseg", "_mask", "_seg", "_label", "_labels")


def _is_volume(path: Path) -> bool:
    """Whether a file is a volume by its name; hidden ones are what interrupted runs and macOS leave behind."""
    if path.name.startswith(".") or stem(path).endswith(_DERIVED):
        return False
    return path.is_file() and path.name.lower().endswith(VOLUME_SUFFIXES)


def find_scans(paths: Sequence[Path]) -> list[Path]:
    """Return the scans meant by files and folders.

    Parameters
    ----------
    paths : sequence of Path
        A volume file stands for itself; a folder that holds DICOM files is one scan; any other folder stands for the
        volumes in it or, when it holds none, for those of its subfolders. Label maps and masks
        (``*_dseg``, ``*_mask`` ...) are passed over in folders.

    Returns
    -------
    list of Path
        Each once, in the order given and, within a folder, of the names.

    Raises
    ------
    MissingFileError
        If a path does not exist.
    InputError
        If a folder holds no scan, or may not be read.
    """
    found: list[Path] = []
    for path in paths:
        try:
            if not path.exists():
                raise MissingFileError(f"{path}: no such file or folder")
            scans = _scans_of(path) if path.is_dir() else [path]
        except PermissionError:
            raise InputError(f"{path}: no permission to read it") from None
        if not scans:
            raise InputError(f"{path}: the folder holds no scan (NIfTI, NRRD, MHA or DICOM)")
        found += scans
    return list(dict.fromkeys(found))


def _scans_of(folder: Path) -> list[Path]:
    volumes = [path for path in sorted(folder.iterdir()) if _is_volume(path)]
    if volumes:
        return volumes
    if holds_images(folder):
        return [folder]
    return [scan for inner in sorted(folder.iterdir()) if inner.is_dir() for scan in _scans_of(inner)]


def scan_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each scan: its stem, with as many parent folders in front as tell all of them apart.

    Raises
    ------
    InputError
        If two paths cannot be told apart.
    """
    resolved = [path.resolve() for path in paths]
    for depth in range(max((len(path.parts) - 1 for path in resolved), default=1)):
        names = ["_".join([*path.parts[len(path.parts) - 1 - depth : -1], stem(path)]) for path in resolved]
        if max(Counter(names).values(), default=1) == 1:
            return names
    raise InputError(f"scans cannot be told apart by their paths: {', '.join(str(path) for path in paths)}")
