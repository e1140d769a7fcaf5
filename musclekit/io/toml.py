"""Plans as files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from musclekit.errors import FormatError, MissingFileError

__all__ = ["read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Its tables, nested.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise FormatError(f"{path}: not TOML: {problem}") from None
