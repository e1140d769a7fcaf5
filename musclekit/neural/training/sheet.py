"""Sheets of samples: what a slice becomes, and what comes of it on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.io import replacing

__all__ = ["sheet_of", "write_sheet"]

#: White pixels between slices, and rows for the line of names above them.
GAP, HEADER = 4, 20


def sheet_of(names: Sequence[str], columns: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Put slices side by side.

    Parameters
    ----------
    names : sequence of str
        Above each column.
    columns : sequence of ndarray of float32, shape (n, rows, columns)
        Slices in -1..1, one below the other; all of one shape.

    Returns
    -------
    ndarray of uint8
        The picture, -1 black and 1 white.
    """
    n, rows, width = columns[0].shape
    sheet = np.full((HEADER + n * (rows + GAP), len(columns) * (width + GAP) - GAP), 255, dtype=np.uint8)
    for column, (name, slices) in enumerate(zip(names, columns, strict=True)):
        left = column * (width + GAP)
        sheet[:HEADER, left : left + width] = _title(name, width)
        for row, plane in enumerate(np.clip(slices, -1, 1)):
            top = HEADER + row * (rows + GAP)
            sheet[top : top + rows, left : left + width] = np.round((plane + 1) * 127.5)
    return sheet


def _title(text: str, width: int) -> NDArray[np.uint8]:
    strip = np.full((HEADER, width), 255, dtype=np.uint8)
    scale = min(0.45, 0.45 * width / max(1, cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]))
    cv2.putText(strip, text, (0, HEADER - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, 0, 1, cv2.LINE_AA)
    return strip


def write_sheet(sheet: NDArray[np.uint8], path: Path) -> None:
    """Write a sheet as PNG, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    data = cv2.imencode(".png", sheet)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
