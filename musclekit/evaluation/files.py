"""Files that a method names: what stands in a checkpoint or a template is a part of the method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from musclekit.weights import checkpoint_path

__all__ = ["file_digests"]


def file_digests(value: Any) -> dict[str, str]:
    """Return the SHA-256 of every file that plain data name.

    Parameters
    ----------
    value : object
        Descriptions of methods, values of a grid: mappings, lists and tuples of text, paths and numbers.

    Returns
    -------
    dict of str to str
        By path as it is named, or by name for weights that ship; sorted.
    """
    digests = {}
    for name in sorted(set(_files_in(value))):
        with checkpoint_path(name).open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _files_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _files_in(item)
    elif isinstance(value, (str, Path)) and _is_file(str(value)):
        yield str(value)


def _is_file(name: str) -> bool:
    try:
        return bool(name) and checkpoint_path(name).is_file()
    except (OSError, ValueError):  # too long for the name of a file, or a NUL in it: it is some other text
        return False
