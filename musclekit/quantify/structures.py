"""Which voxels belong to which structure: labels, unions of labels, and the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.image import Grid, LabelMap
from musclekit.labels import SIDES

__all__ = ["UNIONS", "Structure", "StructureVoxels", "structures_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Structures that overlap the labels of a set and are measured beside them: label set -> name -> labels.
UNIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "tissue": {"compartment": ("muscle", "intermuscular fat"), "bone": ("cortical bone", "marrow")},
}


@dataclass(frozen=True, eq=False)
class Structure:
    """One structure on one side.

    Parameters
    ----------
    name, abbreviation : str
        Of the label.
    side : str
        ``"left"``, ``"right"``, ``"unknown"``, or empty where sides are not told apart.
    derived : bool
        Whether it is a union of labels, or the body, and overlaps other structures.
    index : ndarray of int64
        Its voxels in the flat array, ascending.
    """

    name: str
    abbreviation: str
    side: str
    derived: bool
    index: Ints


def structures_of(labels: LabelMap, side: str | None, body: NDArray[np.bool_] | None) -> list[Structure]:
    """Return every label of the set, the unions it is measured by, and the body if there is one.

    Parameters
    ----------
    labels : LabelMap
        Labels; one that has no voxel is a structure all the same.
    side : str, optional
        Side of the labels that have none. Of labels that have one, those of the other leg are left out where there is
        not a voxel of them.
    body : ndarray of bool, optional
        Body mask.

    Returns
    -------
    list of Structure
        Labels in the order of their set, then unions, then the body.
    """
    flat = labels.voxels.reshape(-1)
    # NumPy finds the true ones of booleans three times faster than what is not 0 among bytes.
    index = np.flatnonzero(flat != 0)
    ids = flat[index]
    # A stable sort of small integers is a counting sort: each label's voxels stay in the order of the array.
    index = index[np.argsort(ids, kind="stable")]
    ends = np.cumsum(np.bincount(ids, minlength=max(labels.label_set.ids) + 1))
    found = [
        Structure(
            label.name, label.abbreviation, label.side or side or "", False, index[ends[label.id - 1] : ends[label.id]]
        )
        for label in labels.label_set
    ]
    shown = {structure.side for structure in found if len(structure.index)}
    if side in SIDES:
        found = [structure for structure in found if structure.side in ("", side) or structure.side in shown]
    sides = list(dict.fromkeys(structure.side for structure in found))
    for name, members in UNIONS.get(labels.label_set.unsided().name, {}).items():
        for one in sides:
            parts = [structure.index for structure in found if structure.side == one and structure.name in members]
            found.append(Structure(name, name[:3].upper(), one, True, np.sort(np.concatenate(parts), kind="stable")))
    if body is not None:
        found.append(Structure("body", "BODY", "", True, np.flatnonzero(body)))
    return found


@dataclass(frozen=True, eq=False)
class StructureVoxels:
    """The voxels of several structures, one structure after the other and within each slice after slice.

    Parameters
    ----------
    index : ndarray of int64, shape (N,)
        Into the flat array of voxels.
    starts : ndarray of int64, shape (structures, Z + 1)
        Where the voxels of each structure and slice begin in `index`; they end where the next begin.
    """

    index: Ints
    starts: Ints

    @classmethod
    def gather(cls, structures: Sequence[Structure], grid: Grid) -> StructureVoxels:
        """Lay the voxels of the structures end to end."""
        planes, rows, columns = grid.shape
        plane_starts = np.arange(planes + 1) * (rows * columns)
        starts = np.empty((len(structures), planes + 1), dtype=np.int64)
        offset = 0
        for row, structure in zip(starts, structures, strict=True):
            row[:] = offset + np.searchsorted(structure.index, plane_starts)
            offset += structure.index.size
        return cls(np.concatenate([structure.index for structure in structures]), starts)

    @property
    def counts(self) -> Ints:
        """Voxels of each structure in each slice, shape (structures, Z)."""
        return np.diff(self.starts, axis=1)

    def sums(self, values: NDArray[Any]) -> Floats:
        """Sum, over each structure and slice, of one value a voxel; shape (structures, Z)."""
        filled = self.counts > 0
        total = np.zeros(filled.shape)
        # The segments lie end to end: each ends where the next one that is not empty begins.
        total[filled] = np.add.reduceat(values, self.starts[:, :-1][filled], dtype=np.float64)
        return total

    def touches_border(self, grid: Grid) -> NDArray[np.bool_]:
        """Whether each structure touches the border of the plane in each slice; shape (structures, Z)."""
        planes, rows, columns = grid.shape
        border = np.zeros((rows, columns), dtype=np.bool_)
        # An axis of one voxel is all border, which would say nothing.
        if rows > 1:
            border[[0, -1]] = True
        if columns > 1:
            border[:, [0, -1]] = True
        return self.sums(np.tile(border.reshape(-1), planes)[self.index]) > 0
