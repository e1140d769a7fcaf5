"""What the grey values inside structures are like: their distribution, their HU classes, their fat fraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.image import Contrast, Image
from musclekit.quantify.structures import Floats, StructureVoxels

__all__ = ["HU_CLASSES", "Columns", "fat_fractions", "grey_values"]

#: Classes of tissue in whole Hounsfield units, both ends included: fat, muscle of low attenuation, normal muscle.
HU_CLASSES: Mapping[str, tuple[int, int]] = {"fat": (-190, -30), "low": (-29, 29), "normal": (30, 150)}

#: The classes follow on each other: value v belongs to the class between the edges around it, rounded half up.
HU_EDGES = np.array([low - 0.5 for low, _ in HU_CLASSES.values()] + [150.5])

QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True, eq=False)
class Columns:
    """Numbers by name, per structure and slice, and per structure.

    Parameters
    ----------
    slices : mapping of str to ndarray of shape (structures, Z)
        Of each structure in each slice.
    structures : mapping of str to ndarray of shape (structures,)
        Of each structure as a whole.
    """

    slices: Mapping[str, NDArray[Any]]
    structures: Mapping[str, NDArray[Any]]


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Return ``above / below``; NaN where nothing stands below."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _quantiles(values: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Floats:
    """Quantiles by linear interpolation of segments that are sorted; NaN where one is empty. Shape (quantiles, n)."""
    counts = ends - starts
    filled = counts > 0
    found = np.full((len(QUANTILES), counts.size), np.nan)
    position = np.array(list(QUANTILES.values()))[:, None] * (counts[filled] - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, counts[filled] - 1)
    low = values[starts[filled] + below].astype(np.float64)
    high = values[starts[filled] + above].astype(np.float64)
    found[:, filled] = low + (position - below) * (high - low)
    return found


def grey_values(voxels: StructureVoxels, image: Image) -> Columns:
    """Mean, standard deviation and quantiles of the grey values, and the HU classes of a CT.

    Parameters
    ----------
    voxels : StructureVoxels
        Of the structures.
    image : Image
        On their grid.

    Returns
    -------
    Columns
        ``hu_mean`` ... (``signal_mean`` ... for MR) as `musclekit.quantify.measure` explains them, and for CT the
        number of voxels in each class, ``hu_fat_voxels`` ...
    """
    is_ct = image.contrast is Contrast.CT
    prefix = "hu" if is_ct else "signal"
    shape = voxels.counts.shape
    values = image.voxels.reshape(-1)[voxels.index]
    sums = voxels.sums(values)
    means, whole_means = ratio(sums, voxels.counts), ratio(sums.sum(axis=1), voxels.counts.sum(axis=1))
    quantiles, whole_quantiles = np.empty((len(QUANTILES), *shape)), np.empty((len(QUANTILES), shape[0]))
    below = np.zeros((*shape, HU_EDGES.size), dtype=np.int64)
    for n, starts in enumerate(voxels.starts):
        mine = values[starts[0] : starts[-1]]
        first = starts - starts[0]
        for z in np.flatnonzero(voxels.counts[n]):
            piece = mine[first[z] : first[z + 1]]
            piece.sort()
            below[n, z] = piece.searchsorted(HU_EDGES)
        quantiles[:, n] = _quantiles(mine, first[:-1], first[1:])
        mine = np.sort(mine)
        whole_quantiles[:, n] = _quantiles(mine, first[:1], first[-1:])[:, 0]
    # About the mean of the slice, so that nothing cancels; then about that of the structure, by the parallel axes.
    squares = voxels.sums((values - np.repeat(np.nan_to_num(means).reshape(-1), voxels.counts.reshape(-1))) ** 2)
    about = squares + voxels.counts * np.nan_to_num(means - whole_means[:, None]) ** 2
    slices: dict[str, NDArray[Any]] = {"mean": means, "sd": np.sqrt(ratio(squares, voxels.counts))}
    structures: dict[str, NDArray[Any]] = {
        "mean": whole_means,
        "sd": np.sqrt(ratio(about.sum(axis=1), voxels.counts.sum(axis=1))),
    }
    slices |= dict(zip(QUANTILES, quantiles, strict=True))
    structures |= dict(zip(QUANTILES, whole_quantiles, strict=True))
    if is_ct:
        for k, name in enumerate(HU_CLASSES):
            count = below[..., k + 1] - below[..., k]
            slices[f"{name}_voxels"] = count
            structures[f"{name}_voxels"] = count.sum(axis=1)
    return Columns(
        {f"{prefix}_{name}": value for name, value in slices.items()},
        {f"{prefix}_{name}": value for name, value in structures.items()},
    )


def fat_fractions(voxels: StructureVoxels, fat: Image, water: Image) -> Columns:
    """Fat fraction from Dixon images, as the ratio of sums and as the mean of the voxels' ratios.

    Parameters
    ----------
    voxels : StructureVoxels
        Of the structures.
    fat, water : Image
        On their grid.

    Returns
    -------
    Columns
        ``fat_fraction_of_sums``, ``fat_fraction_voxel_mean`` and ``fat_fraction_left_out``: the number of voxels whose
        F + W is not positive, which neither of the two counts.
    """
    f = fat.voxels.reshape(-1)[voxels.index].astype(np.float64)
    total = f + water.voxels.reshape(-1)[voxels.index]
    used = total > 0
    f[~used] = total[~used] = 0
    parts = {
        "used": voxels.sums(used),
        "fat": voxels.sums(f),
        "total": voxels.sums(total),
        "ratios": voxels.sums(np.divide(f, total, out=np.zeros_like(f), where=used)),
    }

    def columns(part: Mapping[str, Floats], counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {
            "fat_fraction_of_sums": ratio(part["fat"], part["total"]),
            "fat_fraction_voxel_mean": ratio(part["ratios"], part["used"]),
            "fat_fraction_left_out": counts - part["used"].astype(np.int64),
        }

    counts = voxels.counts
    wholes = {name: part.sum(axis=1) for name, part in parts.items()}
    return Columns(columns(parts, counts), columns(wholes, counts.sum(axis=1)))
