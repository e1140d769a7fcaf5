"""Sheets of single slices of legs: each as it is, and with the outlines of what is labelled in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musclekit.errors import GeometryError
from musclekit.labels import LabelSet

__all__ = ["LegColumn", "leg_sheet"]

#: Pixels that every slice is at least enlarged to, white ones between slices, and rows for a line of text.
LEAST_PX, GAP, LINE = 192, 4, 18
#: How much of a label's colour fills it.
FILL = 0.25


@dataclass(frozen=True, eq=False)
class LegColumn:
    """One column of a sheet.

    Parameters
    ----------
    title : str
        What stands above it.
    images : ndarray, shape (n, rows, columns)
        Grey values, -1 black to 1 white.
    classes : ndarray of uint8, shape (n, rows, columns), optional
        The n-th label of the set is class n; what is no class is not drawn.
    """

    title: str
    images: NDArray[np.floating[Any]]
    classes: NDArray[np.uint8] | None = None


def leg_sheet(columns: Sequence[LegColumn], names: Sequence[str], label_set: LabelSet) -> bytes:
    """Draw slices side by side and one below the other.

    Parameters
    ----------
    columns : sequence of LegColumn
        From left to right, each with as many slices.
    names : sequence of str
        Of the slices of a row.
    label_set : LabelSet
        Whose colours outlines have.

    Returns
    -------
    bytes
        PNG. Rows are drawn with the front of the leg on top.

    Raises
    ------
    GeometryError
        If columns differ in the number or the size of their slices.
    """
    shapes = {column.images.shape for column in columns}
    if len(shapes) != 1 or any(c.classes is not None and c.classes.shape != c.images.shape for c in columns):
        raise GeometryError("the columns of a sheet have as many slices, all of one size")
    n, rows, width = shapes.pop()
    if len(names) != n:
        raise GeometryError(f"there are {n} slices and {len(names)} names")
    zoom = max(1, -(-LEAST_PX // max(rows, width)))
    high, wide = rows * zoom, width * zoom
    sheet = np.full((LINE + n * (high + LINE + GAP), len(columns) * (wide + GAP) - GAP, 3), 255, dtype=np.uint8)
    for at, column in enumerate(columns):
        left = at * (wide + GAP)
        sheet[:LINE, left : left + wide] = _text(column.title, wide)
        for k in range(n):
            top = LINE + k * (high + LINE + GAP)
            if at == 0:
                line = _text(names[k], sheet.shape[1])
                sheet[top : top + LINE] = line
            classes = None if column.classes is None else column.classes[k]
            sheet[top + LINE : top + LINE + high, left : left + wide] = _drawn(
                column.images[k], classes, label_set, zoom
            )
    _, encoded = cv2.imencode(".png", sheet[:, :, ::-1])
    return bytes(encoded)


def _drawn(
    image: NDArray[np.floating[Any]], classes: NDArray[np.uint8] | None, label_set: LabelSet, zoom: int
) -> NDArray[np.uint8]:
    """One slice in red, green and blue, its front on top."""
    grey = np.round((np.clip(np.asarray(image, dtype=np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    large = np.asarray(cv2.resize(np.flipud(grey), size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    rgb: NDArray[np.uint8] = np.repeat(large[:, :, None], 3, axis=2)
    if classes is None:
        return rgb
    told = cv2.resize(np.ascontiguousarray(np.flipud(classes)), size, interpolation=cv2.INTER_NEAREST)
    for number, label in enumerate(label_set, start=1):
        mask = (told == number).astype(np.uint8)
        if not mask.any():
            continue
        color = np.array([int(label.color[k : k + 2], 16) for k in (1, 3, 5)])
        inside = mask > 0
        rgb[inside] = np.round((1 - FILL) * rgb[inside] + FILL * color).astype(np.uint8)
        edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0)
        rgb[edge > 0] = color
    return rgb


def _text(text: str, width: int) -> NDArray[np.uint8]:
    strip = np.full((LINE, width, 3), 255, dtype=np.uint8)
    size = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
    scale = min(0.42, 0.42 * width / max(1, size))
    cv2.putText(strip, text, (1, LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
