"""A network's answers brought from the grid of a frame back to the scan, in little memory.

Interpolating every class on the grid of a scan takes gigabytes, and is nearly all in vain: a voxel whose neighbours in
the network's grid agree on the most probable class has that class too. So only voxels between neighbours that disagree
are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

from musclekit.anatomy import Frame
from musclekit.errors import GeometryError
from musclekit.neural.winners import highest_channel

__all__ = ["most_probable", "restored"]

#: Stands where neighbours disagree; channels are numbered below it.
MIXED = 255
#: Voxels of the scan worked on at once; never less than a plane.
BLOCK = 1 << 18
#: What moves no voxel further than this many voxels over the whole grid is rounding.
ROUNDING = 1e-6


def most_probable(probabilities: NDArray[np.floating[Any]], frame: Frame) -> NDArray[np.uint8]:
    """Find the most probable channel at each voxel of a scan.

    Parameters
    ----------
    probabilities : ndarray of float32 or float16, shape (C, z, y, x)
        On the target grid of the frame; at most 255 channels. Any numbers will do of which the largest counts.
    frame : Frame
        From the scan to the network's grid.

    Returns
    -------
    ndarray of uint8, shape (Z, Y, X)
        On the source grid of the frame: the channel that is highest after linear interpolation, the first of equals;
        channel 0 where a voxel's centre lies beyond the target.

    Raises
    ------
    GeometryError
        If the probabilities do not lie on the target grid, or have no channel or too many.

    Notes
    -----
    These are the labels of `Frame.restore_probabilities`, but channels stay what they are: a frame that mirrors moves
    voxels only, so that sided channels of a mirrored leg are exchanged by whoever knows their sides.

    A linear interpolation is a weighted mean. Where one channel is the highest at all (up to eight) neighbours, it is
    the highest in their mean whatever the weights: leaving out such voxels changes nothing. The rest costs about
    0.1 s a million voxels and 12 channels; of random numbers, that is every voxel.
    """
    _check_shape("the probabilities", probabilities.shape[1:], frame)
    if not 1 <= len(probabilities) <= MIXED:
        raise GeometryError(f"probabilities have 1 to {MIXED} channels, not {len(probabilities)}")
    way = _Way(frame)
    highest = np.empty(way.shape, dtype=np.uint8)
    for z, plane in enumerate(highest):
        plane[...] = highest_channel(probabilities[:, z].astype(np.float32, copy=False))
    cells = way.merged(highest)
    rows, table = _table(probabilities, way.neighbours(cells == MIXED))
    result = np.zeros(frame.source.shape, dtype=np.uint8)
    for here, positions in way.blocks():
        index, inside = way.corners(positions)
        found = cells.take(index) * inside
        mixed = np.flatnonzero(found == MIXED)
        if len(mixed):
            at = np.unravel_index(mixed, found.shape)
            steps, weights = way.weights([np.broadcast_to(position, found.shape)[at] for position in positions])
            corners = rows.take(index.take(mixed)[:, None] + steps)
            means = embedding_bag(
                torch.from_numpy(corners), table, per_sample_weights=torch.from_numpy(weights), mode="sum"
            )
            np.put(found, mixed, means.numpy().argmax(axis=1))
        result[here] = found
    return result


def restored(values: NDArray[np.floating[Any]], frame: Frame, fill: float = 0.0) -> NDArray[np.float32]:
    """Bring one map of values, such as a predictive variance, back to a scan by linear interpolation.

    Parameters
    ----------
    values : ndarray of float32 or float16, shape (z, y, x)
        On the target grid of the frame.
    frame : Frame
        From the scan to the network's grid.
    fill : float
        Value of voxels whose centre lies beyond the target.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        On the source grid of the frame; interpolated as in `most_probable`, copied where the frame moves whole voxels.

    Raises
    ------
    GeometryError
        If the values do not lie on the target grid.
    """
    _check_shape("the values", values.shape, frame)
    way = _Way(frame)
    known = np.ascontiguousarray(values, dtype=np.float32)
    result = np.full(frame.source.shape, fill, dtype=np.float32)
    for here, positions in way.blocks():
        index, inside = way.corners(positions)
        parts = [(step, way.fraction(axis, positions[axis])) for axis, step in way.steps.items()]
        result[here] = np.where(inside, _interpolated(known, index, parts), np.float32(fill))
    return result


def _interpolated(
    known: NDArray[np.float32], index: NDArray[np.intp], parts: Sequence[tuple[int, NDArray[np.float32]]]
) -> NDArray[np.float32]:
    """Values between neighbours that lie a step apart in the flat array, along one axis after the other."""
    if not parts:
        return known.take(index)
    (step, fraction), *rest = parts
    first, second = (_interpolated(known, here, rest) for here in (index, index + step))
    second -= first
    second *= fraction
    second += first
    return second


def _check_shape(what: str, shape: tuple[int, ...], frame: Frame) -> None:
    if shape != frame.target.shape:
        raise GeometryError(
            f"{what} have shape {shape}, the grid that the frame leads to {frame.target.shape} (z, y, x)"
        )


def _table(probabilities: NDArray[Any], needed: NDArray[np.bool_]) -> tuple[NDArray[np.int32], torch.Tensor]:
    """Channels of the voxels needed, one voxel a row, and the row of each voxel of the grid."""
    table = np.empty((int(needed.sum()), len(probabilities)), dtype=np.float32)
    last = 0
    for z, plane in enumerate(needed):
        first, last = last, last + int(plane.sum())
        table[first:last] = probabilities[:, z][:, plane].T
    return np.cumsum(needed, dtype=np.int32) - 1, torch.from_numpy(table)


class _Way:
    """Where the voxels of a scan (the source of a frame) lie among those of the network's grid (its target).

    Attributes
    ----------
    shape : (int, int, int)
        Of the target.
    steps : dict of int to int
        Axes of the target along which voxels of the scan lie between two of its own, and how far apart these two are
        in its flat array. The other axes are copied.
    """

    def __init__(self, frame: Frame) -> None:
        back = frame.inverse()
        self.shape = frame.target.shape
        self._window = back.reached()
        pull = back.pull[:3].copy()
        far = np.append(np.asarray(frame.source.shape) - 1, 1)
        pull[np.abs(pull * far) < ROUNDING] = 0
        is_whole = np.abs((pull - np.rint(pull)) * far).max(axis=1) < ROUNDING
        pull[is_whole] = np.rint(pull[is_whole])
        self._pull = pull
        self._strides = (self.shape[1] * self.shape[2], self.shape[2], 1)
        self.steps = {axis: self._strides[axis] for axis in range(3) if not is_whole[axis] and self.shape[axis] > 1}

    def merged(self, highest: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Channel on which a voxel agrees with its next neighbours along the axes of `steps`, or `MIXED`."""
        cells = highest.copy()
        for axis in self.steps:
            along = np.moveaxis(cells, axis, 0)
            along[:-1][along[:-1] != along[1:]] = MIXED
        return cells

    def neighbours(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask with the next neighbours along the axes of `steps`."""
        grown = mask.copy()
        for axis in self.steps:
            along = np.moveaxis(grown, axis, 0)
            along[1:] |= along[:-1].copy()
        return grown

    def blocks(self) -> Iterator[tuple[tuple[slice, slice, slice], list[NDArray[np.float64]]]]:
        """Parts of the scan, some planes each, and the positions of their voxels along each axis of the target.

        Only what the target can reach is handed out. Positions are constant along axes of length 1, as those of a
        frame that does not turn.
        """
        z, rows, columns = self._window
        if min(part.stop - part.start for part in self._window) < 1:
            return
        planes = max(1, BLOCK // ((rows.stop - rows.start) * (columns.stop - columns.start)))
        for first in range(z.start, z.stop, planes):
            here = (slice(first, min(first + planes, z.stop)), rows, columns)
            yield here, [self._position(axis, here) for axis in range(3)]

    def _position(self, axis: int, here: tuple[slice, slice, slice]) -> NDArray[np.float64]:
        *turns, shift = self._pull[axis]
        position = np.full((1, 1, 1), shift)
        for turn, along in zip(turns, np.ogrid[here], strict=True):
            if turn:
                position = position + turn * along
        return position

    def corners(self, positions: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """First neighbour of each voxel in the flat array of the target, and whether the voxel lies in the target."""
        index = np.zeros((1, 1, 1), dtype=np.intp)
        inside = np.ones((1, 1, 1), dtype=np.bool_)
        for axis, (position, size) in enumerate(zip(positions, self.shape, strict=True)):
            index = index + self._strides[axis] * self._first(axis, position).astype(np.intp)
            inside = inside & (position >= -0.5) & (position < size - 0.5)
        return index, inside

    def weights(self, positions: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Find the way from the first to every neighbour, and the weight of each at points: shapes (K) and (n, K)."""
        steps = np.zeros(1, dtype=np.intp)
        weights = np.ones((1, len(positions[0])), dtype=np.float32)
        for axis, step in self.steps.items():
            second = weights * self.fraction(axis, positions[axis])
            steps = np.concatenate([steps, steps + step])
            weights = np.concatenate([weights - second, second])
        return steps, np.ascontiguousarray(weights.T)

    def fraction(self, axis: int, position: NDArray[np.float64]) -> NDArray[np.float32]:
        """How far positions lie from the first neighbour towards the second, 0 to 1; beyond the outermost, at it."""
        return (position - self._first(axis, position)).clip(0, 1).astype(np.float32)

    def _first(self, axis: int, position: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.floor(position).clip(0, self.shape[axis] - (2 if axis in self.steps else 1))
