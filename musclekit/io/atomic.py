"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musclekit.errors import MusclekitError, OutputError

__all__ = ["replacing"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and give it its own name when it is complete.

    Folders that are missing are made. The temporary name keeps the file's whole ending, so that writers that go by it
    (``.nii.gz``) work. An interrupted or failed run leaves neither a half-written file nor the temporary one, and a
    file that stood there before stays as it was.

    Parameters
    ----------
    path : path-like
        The file to write.

    Yields
    ------
    Path
        The temporary file, not yet there; write to it.

    Raises
    ------
    OutputError
        If the file cannot be written: the disk is full, the folder may not be written to, the path is a folder.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "notes" / "scores.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("0.9")
    >>> target.read_text()
    '0.9'
    """
    target = Path(path)
    temporary = target.parent / f".{secrets.token_hex(4)}.{target.name}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        yield temporary
        temporary.replace(target)
    except MusclekitError:  # some of them are OSErrors too, and say already what to do
        raise
    except OSError as problem:
        raise OutputError(_reason(target, problem)) from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _reason(target: Path, problem: OSError) -> str:
    if problem.errno in _NO_ROOM:
        return f"{target}: the disk is full{_free(target.parent)}; make room or choose another folder"
    if problem.errno in _NO_PERMISSION:
        return f"{target}: no permission to write there; choose another folder"
    if isinstance(problem, IsADirectoryError):
        return f"{target}: cannot be written, a folder stands there; choose another name"
    if isinstance(problem, (NotADirectoryError, FileExistsError)):
        return f"{target}: cannot be written, a parent of it is a file; choose another folder"
    return f"{target}: cannot be written ({problem.strerror or problem})"


def _free(folder: Path) -> str:
    """Say what is left on the disk that a folder, which may not exist yet, belongs to."""
    for place in (folder, *folder.absolute().parents):
        with suppress(OSError):
            return f" ({shutil.disk_usage(place).free / 1e6:.1f} MB free)"
    return ""
