"""Functional groups of the thigh, and their volumes: total, lean, fat."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from musclekit.errors import ParameterError
from musclekit.image import Contrast, Image, LabelMap
from musclekit.labels import label_mapping, label_set
from musclekit.quantify.measures import measure

__all__ = ["GROUPS", "VOLUMES", "functional_groups", "group_volumes"]

#: Label set of the functional groups: extensor, flexor, adductor.
GROUPS = "functional-3"

#: The volumes of a group, in ml.
VOLUMES = ("total_ml", "lean_ml", "fat_ml")


def functional_groups(labels: LabelMap, *, groups: str = GROUPS) -> LabelMap:
    """Gather muscles into functional groups.

    Parameters
    ----------
    labels : LabelMap
        In any set that has a way to the groups; sides are kept where the set tells them apart.
    groups : str
        Label set of the groups, unsided; ``"muscle"`` gathers all of them.

    Returns
    -------
    LabelMap
        In the set of the groups, or its sided version. Muscles of no group (tensor fasciae latae, those of the hip) and
        what is no muscle become background.

    Raises
    ------
    LabelError
        If no way leads to the groups; the message lists where ways lead.
    UnknownNameError
        If there is no such set.

    Notes
    -----
    The groups are those of Kim et al. (2025), who name extensors, flexors and adductors but, in what is open to read,
    not their muscles. Here the sartorius counts as a flexor and the gracilis as an adductor, as in
    ``data_schemas/labels.json``. A group is what its set annotates: in ``thigh-4`` the adductor is the gracilis alone.
    """
    target = label_set(groups)
    if labels.label_set.is_sided:
        target = target.sided()
    return labels if labels.label_set == target else labels.mapped(label_mapping(labels.label_set, target))


def group_volumes(
    labels: LabelMap,
    image: Image | None = None,
    *,
    fat: Image | None = None,
    water: Image | None = None,
    side: Literal["left", "right", "unknown"] | None = None,
    groups: str = GROUPS,
) -> pd.DataFrame:
    """Measure the total, lean and fat volume of each functional group.

    Parameters
    ----------
    labels : LabelMap
        Muscles, as `functional_groups` takes them, or the groups themselves.
    image : Image, optional
        The scan. CT tells lean from fat; other scans give the total alone.
    fat, water : Image, optional
        Dixon images, both or neither, in place of CT.
    side : {"left", "right", "unknown"}, optional
        Which leg, for labels that do not tell sides apart.
    groups : str
        Label set of the groups, unsided.

    Returns
    -------
    DataFrame
        One row a group and side:

        ``group``, ``side``
            Name of the group; side, empty where it is not told.
        ``total_ml``
            Voxels times their volume.
        ``lean_ml``, ``fat_ml``
            From CT, the voxels of -29 to 150 HU and those of -190 to -30 HU: of `musclekit.quantify.measure`, its
            classes ``low`` and ``normal`` together, and ``fat``. Voxels beyond both (calcification, metal, air) count
            in the total alone. From Dixon, the sum over voxels of W / (F + W) and of F / (F + W), times the volume of
            a voxel; voxels without signal count in the total alone. NaN for every other scan.
        ``lean_and_fat_from``
            ``HU`` or ``Dixon``; empty where they are not told.
        ``status``
            ``ok``, ``cut`` (the field of view ends within it) or ``absent``, where every volume is NaN, not 0.

    Raises
    ------
    GeometryError
        If labels and images do not share a grid.
    ModalityError
        If ``fat`` is not a fat image or ``water`` not a water image.
    ParameterError
        If only one of fat and water is given, or they are given beside CT.
    LabelError
        If no way leads from the labels to the groups.

    Notes
    -----
    The classes of HU are a convention of the field (Aubrey et al., Acta Physiologica 2014;210:489-497). Fat is that
    inside the labels: whether it holds intermuscular fat depends on whether the outlines do.
    """
    is_ct = image is not None and image.contrast is Contrast.CT
    if is_ct and (fat is not None or water is not None):
        raise ParameterError("lean and fat volume are told from CT or from Dixon images, not from both: leave one out")
    found = functional_groups(labels, groups=groups)
    table = measure(found, image, fat=fat, water=water, side=side).structures
    total = table["volume_ml"].to_numpy()
    lean, fatty, source = np.full(len(table), np.nan), np.full(len(table), np.nan), ""
    if is_ct:
        lean, fatty = (table["hu_low_ml"] + table["hu_normal_ml"]).to_numpy(), table["hu_fat_ml"].to_numpy()
        source = "HU"
    elif fat is not None:
        # The mean of the voxels' fractions, not the fraction of the sums: volumes add up over voxels, signals do not.
        with_signal = (table["voxels"] - table["fat_fraction_left_out"]) * (found.grid.voxel_volume_mm3 / 1000.0)
        fatty = (with_signal * table["fat_fraction_voxel_mean"]).to_numpy()
        lean, source = with_signal.to_numpy() - fatty, "Dixon"
    return pd.DataFrame(
        {
            "group": table["structure"],
            "side": table["side"],
            "total_ml": total,
            "lean_ml": lean,
            "fat_ml": fatty,
            "lean_and_fat_from": source,
            "status": table["status"],
        }
    )
