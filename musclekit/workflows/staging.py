"""The files of one scan appear together or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musclekit.errors import OutputError

__all__ = ["together"]


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to write files to, and move them into their own when all are complete.

    Parameters
    ----------
    folder : Path
        Where the files belong; made if it is not there. Files of the same names are replaced, others stay.

    Yields
    ------
    Path
        The hidden folder, inside `folder`.

    Raises
    ------
    OutputError
        If something could not be written; nothing is left of what was, and a folder that was made for it is gone.
    """
    made = not folder.exists()
    hidden = folder / f".{secrets.token_hex(4)}.partial"
    try:
        try:
            hidden.mkdir(parents=True)
        except OSError as problem:
            raise OutputError(f"{folder}: cannot be made or written to ({problem.strerror})") from problem
        yield hidden
        for path in sorted(hidden.iterdir()):
            path.replace(folder / path.name)
    except OutputError as problem:
        # The person knows nothing of the hidden folder: the message names the file as it would have been called.
        raise OutputError(str(problem).replace(str(hidden), str(folder))) from problem
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if made:
            with suppress(OSError):
                folder.rmdir()
