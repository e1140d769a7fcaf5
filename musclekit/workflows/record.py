"""The record of a run, ``run.json``: what was run, with which versions, on which input, how long, with which warnings.

It is the one file whose content changes from run to run: timings live here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import musclekit
from musclekit.errors import InputError
from musclekit.evaluation.files import file_digests
from musclekit.io import replacing

__all__ = ["RunRecord", "check_folder", "file_hash", "versions", "write_json"]

_LIBRARIES = ("numpy", "scipy", "pandas", "SimpleITK", "nibabel", "pydicom", "scikit-image", "scikit-learn",
              "opencv-python-headless", "PyMaxflow", "torch")  # fmt: skip

#: What is written before the first result, and by which command.
_BEGUN = {"plan.json": "search", "evaluation.json": "evaluate"}


def versions() -> dict[str, str]:
    """Return the versions of musclekit, Python and the libraries results rest on."""
    found = {"musclekit": musclekit.__version__, "python": platform.python_version()}
    return found | {name: version(name) for name in _LIBRARIES}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a scan: of its file, of the files of a folder by name, of a header and its data file."""
    digest = hashlib.sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path, *_detached_data(path)]:
        if part.is_file():
            with part.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _detached_data(path: Path) -> list[Path]:
    """Return the data file that a MetaImage or NRRD header names, where it is a file beside it."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return []
    for line in path.read_text(encoding="latin-1").splitlines():
        key, separator, value = line.partition("=" if path.suffix.lower() == ".mhd" else ":")
        if separator and key.strip().lower() in ("elementdatafile", "data file", "datafile"):
            return [path.parent / value.strip()] if (path.parent / value.strip()).is_file() else []
    return []


def write_json(data: Any, path: Path) -> None:
    """Write plain data as readable JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_folder(folder: Path, command: str, parameters: Mapping[str, Any]) -> None:
    """Refuse a folder that holds the results of another run, finished or not: two are never mixed.

    Parameters
    ----------
    folder : Path
        Where the run shall write.
    command : str
        What is run.
    parameters : mapping
        What its results depend on, as plain data.

    Raises
    ------
    InputError
        If the folder holds the record of another command, or of one with other values of these parameters; the message
        says what differs.
    """
    path = folder / "run.json"
    if not path.is_file():
        for name, other in _BEGUN.items():
            if other != command and (folder / name).is_file() and any((folder / "units").glob("[!.]*.zip")):
                raise InputError(
                    f"{folder} holds an unfinished 'musclekit {other}'; finish it, or give another folder with --out"
                )
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        other, had = known["command"], dict(known["parameters"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: not the record of a run; give another folder with --out") from None
    if other != command:
        raise InputError(f"{folder} holds the results of 'musclekit {other}'; give another folder with --out")
    wanted = json.loads(json.dumps(dict(parameters)))
    differs = [name for name, value in wanted.items() if had.get(name) != value]
    if differs:
        raise InputError(
            f"{folder} holds the results of another run (it differs in: {', '.join(differs)}); results are never "
            "mixed: give another folder with --out"
        )


@dataclass(frozen=True)
class RunRecord:
    """What a run was.

    Parameters
    ----------
    command : str
        The workflow: ``"segment"``.
    parameters : mapping
        Everything needed to run it again, as plain data; the SHA-256 of files named in it are written beside it.
    inputs : sequence of mapping
        One entry an input: name, path, SHA-256, seconds, status, warnings.
    device : str
        The device really used.
    started : datetime
        When it began (UTC).
    """

    command: str
    parameters: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    device: str
    started: datetime

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        seconds = (datetime.now(UTC) - self.started).total_seconds()
        write_json(
            {
                "command": self.command,
                "started": self.started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
                "versions": versions(),
                "machine": f"{platform.system()} {platform.machine()}",
                "device": self.device,
                "parameters": dict(self.parameters),
                "files": file_digests(self.parameters),
                "inputs": [dict(item) for item in self.inputs],
            },
            path,
        )
