"""The tables of one scan: structures, slices, asymmetry.

Nothing is ever silently zero: a structure that is not there is a row whose status says ``absent``, and one that the
field of view cuts is a row whose status says ``cut``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.quantify.structures import Structure, StructureVoxels, structures_of
from musclekit.quantify.values import Columns, fat_fractions, grey_values, ratio

__all__ = ["Measures", "measure"]

#: Structures that a thigh need not show.
NEED_NOT_BE = ("other muscle", "other bone")

#: What the two sides are compared by, where it is measured.
COMPARED = ("volume_ml", "csa_max_mm2", "fat_fraction_of_sums")


@dataclass(frozen=True, eq=False)
class Measures:
    """The numbers of one scan; `measure` explains the columns.

    Parameters
    ----------
    structures : DataFrame
        One row a structure and side.
    slices : DataFrame
        One row a structure, side and slice, slices without the structure included.
    asymmetry : DataFrame
        One row a structure and quantity; empty where sides are not told apart.
    warnings : tuple of str
        What the reader of the numbers should know.
    """

    structures: pd.DataFrame
    slices: pd.DataFrame
    asymmetry: pd.DataFrame
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: each table a list of rows; a number that is not known (NaN) is None."""
        return {
            "structures": _records(self.structures),
            "slices": _records(self.slices),
            "asymmetry": _records(self.asymmetry),
            "warnings": list(self.warnings),
        }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [
        [None if isinstance(value, float) and not np.isfinite(value) else value for value in frame[name].tolist()]
        for name in frame.columns
    ]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def measure(
    labels: LabelMap,
    image: Image | None = None,
    *,
    fat: Image | None = None,
    water: Image | None = None,
    body: NDArray[np.bool_] | None = None,
    cosine: float | Mapping[str, float] | None = None,
    side: Literal["left", "right", "unknown"] | None = None,
) -> Measures:
    """Measure every structure of a label map, as a whole and slice by slice.

    Parameters
    ----------
    labels : LabelMap
        What is measured. Sides are told apart when its set does (`LabelSet.sided`).
    image : Image, optional
        Grey values to describe: columns ``hu_*`` for CT, ``signal_*`` for MR.
    fat, water : Image, optional
        Dixon images, both or neither: columns ``fat_fraction_*``.
    body : ndarray of bool, shape (Z, Y, X), optional
        Body mask; it becomes one more structure, ``body``.
    cosine : float or mapping of side to float, optional
        Cosine of the angle between the femur axis and the normal of the slices; a mapping gives each leg its own.
    side : {"left", "right", "unknown"}, optional
        Which leg the scan shows: the side of labels that have none. Labels of the other leg are left out where there
        is not a voxel of them, instead of being told of as absent.

    Returns
    -------
    Measures
        Its tables begin with ``structure``, ``abbreviation``, ``side`` (empty where sides are not told apart) and
        ``derived`` (a union of labels, or the body: it overlaps other rows); slices also with ``slice`` (index along
        axis 0) and ``level_mm`` (world z of the slice's centre). Then:

        ``status``
            ``ok``; ``cut``: it touches the border of the plane or (a structure) stands in the first or last slice of
            the volume, so that its size is a lower bound; ``absent``: no voxel, and every size is NaN, not 0.
        ``voxels``, ``volume_ml``
            The volume of a voxel is that of the parallelepiped, right for sheared grids too.
        ``csa_mm2``, ``csa_corrected_mm2``
            Cross-sectional area as it lies in the slice, and times the cosine: across the femur. Corrected areas are
            NaN where no femur axis is known. Of a structure: ``csa_mean_mm2`` and ``csa_mean_corrected_mm2`` over the
            slices it is present in, ``csa_max_mm2`` and ``csa_max_corrected_mm2``.
        ``slices_present``, ``slices_in_volume``, ``touches_border``, ``in_first_slice``, ``in_last_slice``
            Coverage: why a structure is ``cut``.
        ``hu_mean``, ``hu_sd``, ``hu_p05``, ``hu_p25``, ``hu_median``, ``hu_p75``, ``hu_p95``
            Of the voxels; ``signal_*`` for MR. Population sd; quantiles by linear interpolation.
        ``hu_fat_fraction``, ``hu_low_fraction``, ``hu_normal_fraction``
            Share of the voxels in each of `HU_CLASSES`, with its volume (``hu_fat_ml`` ...) or, in a slice, its area
            (``hu_fat_mm2`` ...). Values are rounded to whole HU first; those beyond the classes count in the total.
        ``fat_fraction_of_sums``, ``fat_fraction_voxel_mean``, ``fat_fraction_left_out``
            From Dixon: sum F / sum (F + W), the mean of F / (F + W) over voxels, and the number of voxels left out of
            both because F + W is not positive.
        ``fat_fraction_of_mask``
            Intermuscular fat / compartment; in the set ``tissue``, for the structure ``compartment``.

        Asymmetry has ``quantity``, ``left``, ``right``, ``index_percent`` = 100 (R - L) / ((R + L) / 2), and the
        worse ``status`` of the two sides.

    Raises
    ------
    GeometryError
        If image, fat, water or body lie on another grid than the labels.
    ModalityError
        If ``fat`` is not a fat image or ``water`` not a water image.
    ParameterError
        If only one of fat and water is given, or a cosine does not lie in (0, 1].

    Notes
    -----
    The HU classes are those of Yang et al.'s tissue masks: fat -190..-30, muscle of low attenuation -29..29, normal
    muscle 30..150. Both Dixon fat fractions are in use; in infiltrated muscle they differ by up to 0.05.
    """
    _check(labels, image, fat, water, body)
    structures = structures_of(labels, side, body)
    voxels = StructureVoxels.gather(structures, labels.grid)
    columns = [grey_values(voxels, image)] if image is not None else []
    if fat is not None and water is not None:
        columns.append(fat_fractions(voxels, fat, water))
    cosines = np.array([_cosine_of(structure.side, cosine) for structure in structures])
    touches = voxels.touches_border(labels.grid)
    by_slice = _slice_table(structures, labels.grid, voxels.counts, touches, cosines, columns)
    whole = _structure_table(structures, labels.grid, voxels.counts, touches, cosines, columns)
    if labels.label_set.unsided().name == "tissue":
        by_slice["fat_fraction_of_mask"] = _fat_fraction_of_mask(by_slice, ["side", "slice"])
        whole["fat_fraction_of_mask"] = _fat_fraction_of_mask(whole, ["side"])
    return Measures(whole, by_slice, _asymmetry(whole), _warnings(whole, cosines))


def _check(
    labels: LabelMap,
    image: Image | None,
    fat: Image | None,
    water: Image | None,
    body: NDArray[np.bool_] | None,
) -> None:
    if (fat is None) != (water is None):
        given, missing = ("fat", "water") if water is None else ("water", "fat")
        raise ParameterError(f"a fat fraction takes two images: {given} was given, {missing} was not")
    for scan, contrast in ((fat, Contrast.FAT), (water, Contrast.WATER)):
        if scan is not None and scan.contrast is not contrast:
            raise ModalityError(f"the {contrast} image is given as '{scan.contrast}'; read it as '{contrast}'")
    for what, scan in (("image", image), ("fat image", fat), ("water image", water)):
        if scan is not None and not labels.grid.same_as(scan.grid):
            raise GeometryError(f"the {what} and the labels lie on two grids: {labels.grid.difference(scan.grid)}")
    if body is not None and body.shape != labels.grid.shape:
        raise GeometryError(f"the body mask has shape {body.shape}, the labels {labels.grid.shape} (z, y, x)")


def _cosine_of(side: str, cosine: float | Mapping[str, float] | None) -> float:
    found = cosine.get(side) if isinstance(cosine, Mapping) else cosine
    if found is None:
        return float("nan")
    if not 0 < found <= 1:
        raise ParameterError(f"cosine must lie above 0 and not above 1, not {found:g}: take that of the acute angle")
    return float(found)


def _size(counts: NDArray[np.int64], unit: float) -> NDArray[np.float64]:
    """Voxels times the size of one; NaN where there is no voxel."""
    return np.where(counts > 0, counts * unit, np.nan)


def _pixel_area_mm2(grid: Grid) -> float:
    """Area of one voxel in its slice, the slice being spanned by axes 1 and 2."""
    return float(np.linalg.norm(np.cross(grid.affine[:3, 1], grid.affine[:3, 2])))


def _keys(structures: Sequence[Structure]) -> dict[str, NDArray[Any]]:
    return {
        "structure": np.array([structure.name for structure in structures], dtype=object),
        "abbreviation": np.array([structure.abbreviation for structure in structures], dtype=object),
        "side": np.array([structure.side for structure in structures], dtype=object),
        "derived": np.array([structure.derived for structure in structures]),
    }


def _status(counts: NDArray[np.int64], cut: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(counts == 0, "absent", np.where(cut, "cut", "ok")).astype(object)


def _described(
    columns: Mapping[str, NDArray[Any]], counts: NDArray[np.int64], unit: float, suffix: str
) -> dict[str, Any]:
    """Return the columns, the numbers of voxels in HU classes replaced by their share and their size."""
    table: dict[str, Any] = {}
    for name, values in columns.items():
        if name.endswith("_voxels"):
            stem = name.removesuffix("_voxels")
            table[f"{stem}_fraction"] = ratio(values, counts)
            table[f"{stem}_{suffix}"] = np.where(counts > 0, values * unit, np.nan)
        else:
            table[name] = values
    return table


def _slice_table(
    structures: Sequence[Structure],
    grid: Grid,
    counts: NDArray[np.int64],
    touches: NDArray[np.bool_],
    cosines: NDArray[np.float64],
    columns: Sequence[Columns],
) -> pd.DataFrame:
    planes, rows, width = grid.shape
    centres = [(z, (rows - 1) / 2, (width - 1) / 2) for z in range(planes)]
    area = _size(counts, _pixel_area_mm2(grid))
    table: dict[str, Any] = {name: np.repeat(key, planes) for name, key in _keys(structures).items()}
    table |= {
        "slice": np.tile(np.arange(planes), len(structures)),
        "level_mm": np.tile(grid.world(centres)[:, 2], len(structures)),
        "status": _status(counts, touches),
        "voxels": counts,
        "volume_ml": _size(counts, grid.voxel_volume_mm3 / 1000),
        "csa_mm2": area,
        "csa_corrected_mm2": area * cosines[:, None],
        "touches_border": touches,
    }
    for some in columns:
        table |= _described(some.slices, counts, _pixel_area_mm2(grid), "mm2")
    return pd.DataFrame({name: np.reshape(values, -1) for name, values in table.items()})


def _structure_table(
    structures: Sequence[Structure],
    grid: Grid,
    counts: NDArray[np.int64],
    touches: NDArray[np.bool_],
    cosines: NDArray[np.float64],
    columns: Sequence[Columns],
) -> pd.DataFrame:
    total, present = counts.sum(axis=1), (counts > 0).sum(axis=1)
    first, last, border = counts[:, 0] > 0, counts[:, -1] > 0, touches.any(axis=1)
    pixel = _pixel_area_mm2(grid)
    mean_area, largest = ratio(total * pixel, present), _size(counts.max(axis=1), pixel)
    ml = grid.voxel_volume_mm3 / 1000
    table: dict[str, Any] = _keys(structures)
    table |= {
        "status": _status(total, first | last | border),
        "voxels": total,
        "volume_ml": _size(total, ml),
        "csa_mean_mm2": mean_area,
        "csa_mean_corrected_mm2": mean_area * cosines,
        "csa_max_mm2": largest,
        "csa_max_corrected_mm2": largest * cosines,
        "slices_present": present,
        "slices_in_volume": grid.shape[0],
        "touches_border": border,
        "in_first_slice": first,
        "in_last_slice": last,
    }
    for some in columns:
        table |= _described(some.structures, total, ml, "ml")
    return pd.DataFrame(table)


def _fat_fraction_of_mask(table: pd.DataFrame, keys: list[str]) -> NDArray[np.float64]:
    """Intermuscular fat / compartment, in the rows of the compartment; NaN elsewhere."""
    voxels = table.set_index(["structure", *keys])["voxels"]
    found = np.full(len(table), np.nan)
    compartment = (table["structure"] == "compartment").to_numpy()
    found[compartment] = ratio(voxels["intermuscular fat"].to_numpy(), voxels["compartment"].to_numpy())
    return found


def _asymmetry(structures: pd.DataFrame) -> pd.DataFrame:
    worse = ("ok", "cut", "absent")
    quantities = [name for name in COMPARED if name in structures.columns]
    records = {(row["structure"], row["side"]): row for row in structures.to_dict("records")}
    rows = []
    for name in dict.fromkeys(structures["structure"]):
        if (name, "left") not in records or (name, "right") not in records:
            continue
        left, right = records[name, "left"], records[name, "right"]
        status = max(left["status"], right["status"], key=worse.index)
        for quantity in quantities:
            both = left[quantity] + right[quantity]
            index = 200 * (right[quantity] - left[quantity]) / both if both > 0 else float("nan")
            rows.append((name, quantity, left[quantity], right[quantity], index, status))
    return pd.DataFrame(rows, columns=["structure", "quantity", "left", "right", "index_percent", "status"])


def _warnings(structures: pd.DataFrame, cosines: NDArray[np.float64]) -> tuple[str, ...]:
    def named(rows: pd.DataFrame) -> str:
        return ", ".join(f"{row.structure} {row.side}".strip() for row in rows.itertuples())

    found = []
    absent = structures[(structures["status"] == "absent") & ~structures["structure"].isin(NEED_NOT_BE)]
    if len(absent):
        found.append(f"not found in this scan: {named(absent)}")
    beyond = structures[structures["in_first_slice"] | structures["in_last_slice"]]
    if len(beyond):
        found.append(
            f"{len(beyond)} of {len(structures) - len(absent)} structures reach the first or last slice: "
            "their volumes are lower bounds, compare areas at one level instead"
        )
    border = structures[structures["touches_border"]]
    if len(border):
        found.append(f"cut by the border of the image: {named(border)}; volumes and areas are lower bounds")
    if np.isnan(cosines).all():
        found.append("no femur axis is known: areas are as they lie in the slices, not across the femur")
    if "fat_fraction_left_out" in structures.columns:
        left_out = int(structures.loc[~structures["derived"], "fat_fraction_left_out"].sum())
        if left_out:
            found.append(f"{left_out} voxels have no signal in fat and water and are left out of the fat fractions")
    return tuple(found)
