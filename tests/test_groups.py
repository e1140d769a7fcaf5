"""Functional groups and their volumes: total, lean, fat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from musclekit.errors import LabelError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_mapping, label_set, label_set_names
from musclekit.phantom import make_thigh, render
from musclekit.quantify import functional_groups, group_volumes, measure

#: A voxel of 2 ml.
GRID = Grid.from_spacing((3, 5, 8), (20.0, 10.0, 10.0))
REACHING = [
    name
    for name in label_set_names()
    if not name.endswith("-sided")
    and name not in ("functional-3", "tissue", "compartment", "muscle")
]  # fmt: skip


def of(table: pd.DataFrame, group: str, side: str = "") -> pd.Series:
    (row,) = [row for _, row in table.iterrows() if (row["group"], row["side"]) == (group, side)]
    return row


@pytest.mark.parametrize("sided", [False, True])
@pytest.mark.parametrize("name", REACHING)
def test_every_muscle_set_leads_to_the_groups_and_keeps_sides(name: str, sided: bool) -> None:
    meaning = label_set(name).sided() if sided else label_set(name)
    voxels = np.zeros((1, 1, 64), np.uint8)
    ids = sorted(meaning.ids)
    voxels[0, 0, : len(ids)] = ids
    found = functional_groups(LabelMap(voxels, Grid.from_spacing(voxels.shape, (1, 1, 1)), meaning))
    assert found.label_set == (label_set("functional-3").sided() if sided else label_set("functional-3"))
    for id_, group in zip(ids, found.voxels[0, 0, : len(ids)].tolist(), strict=True):
        label = meaning[id_]
        wanted = label.group if label.group in found.label_set.names else None
        assert (found.label_set[group].name if group else None) == wanted, label
        assert not group or found.label_set[group].side == label.side


def test_groups_are_groups_already_and_a_set_without_a_way_is_refused() -> None:
    voxels = np.ones(GRID.shape, np.uint8)
    groups = LabelMap(voxels, GRID, label_set("functional-3"))
    assert functional_groups(groups) is groups
    assert functional_groups(groups, groups="muscle").label_set.name == "muscle"
    with pytest.raises(LabelError, match="no map from 'tissue' to 'functional-3'"):
        functional_groups(LabelMap(voxels, GRID, label_set("tissue")))


def test_volumes_of_hand_counted_hounsfield_units() -> None:
    # Rectus (extensor) 7 voxels in a row: one each of fat at both ends of the class, of low and normal muscle, of
    # what lies beyond the classes; vastus medialis (extensor) 1 normal; semitendinosus (flexor) 2 fat.
    voxels = np.zeros(GRID.shape, np.uint8)
    values = np.full(GRID.shape, 40.0)
    names = label_set("huashan-11")
    voxels[1, 1, :7] = names.ids_of("rectus femoris")[0]
    values[1, 1, :7] = [-190, -30, -29, 29, 150, -191, 151]
    voxels[1, 3, 3] = names.ids_of("vastus medialis")[0]
    voxels[1, 3, 5:7] = names.ids_of("semitendinosus")[0]
    values[1, 3, 5:7] = -100
    table = group_volumes(LabelMap(voxels, GRID, names), Image(values, GRID, Contrast.CT), side="left")
    extensor, flexor, adductor = (of(table, group, "left") for group in ("extensor", "flexor", "adductor"))
    assert (extensor["total_ml"], extensor["lean_ml"], extensor["fat_ml"]) == pytest.approx((16.0, 8.0, 4.0))
    assert (flexor["total_ml"], flexor["lean_ml"], flexor["fat_ml"]) == pytest.approx((4.0, 0.0, 4.0))
    assert np.isnan(adductor[["total_ml", "lean_ml", "fat_ml"]].astype(float)).all()
    assert table["status"].tolist() == ["cut", "ok", "absent"]  # the rectus touches the border
    assert set(table["lean_and_fat_from"]) == {"HU"}


def test_volumes_agree_with_measure_on_a_phantom() -> None:
    phantom = make_thigh(3, shape=(3, 64, 64))
    scan = render(phantom, Contrast.CT)
    table = group_volumes(phantom.labels, scan)
    measured = measure(functional_groups(phantom.labels), scan).structures
    assert table["total_ml"].tolist() == measured["volume_ml"].tolist()
    np.testing.assert_allclose(table["lean_ml"], measured["hu_low_ml"] + measured["hu_normal_ml"])
    np.testing.assert_allclose(table["fat_ml"], measured["hu_fat_ml"])
    assert set(table["side"]) == {"left", "right"}


def test_dixon_volumes_are_weighted_by_the_fat_fraction_of_each_voxel() -> None:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[1, 2, 2:6] = 2
    fat, water = np.zeros(GRID.shape), np.ones(GRID.shape)
    # Fractions 0.5, 0.25 and 0, of signals that differ a hundredfold; the last voxel has no signal.
    fat[1, 2, 2:6] = [100, 1, 0, 0]
    water[1, 2, 2:6] = [100, 3, 5, 0]
    labels = LabelMap(voxels, GRID, label_set("functional-3"))
    table = group_volumes(labels, fat=Image(fat, GRID, Contrast.FAT), water=Image(water, GRID, Contrast.WATER))
    flexor = of(table, "flexor")
    assert (flexor["total_ml"], flexor["lean_ml"], flexor["fat_ml"]) == pytest.approx((8.0, 4.5, 1.5))
    assert flexor["lean_and_fat_from"] == "Dixon"


def test_other_scans_give_the_total_alone() -> None:
    labels = LabelMap(np.ones(GRID.shape, np.uint8), GRID, label_set("functional-3"))
    for scan in (None, Image(np.ones(GRID.shape), GRID, Contrast.T1W)):
        extensor = of(group_volumes(labels, scan), "extensor")
        assert extensor["total_ml"] == pytest.approx(240.0)
        assert np.isnan(extensor["lean_ml"])
        assert np.isnan(extensor["fat_ml"])
        assert extensor["lean_and_fat_from"] == ""


def test_ct_and_dixon_are_not_mixed() -> None:
    labels = LabelMap(np.ones(GRID.shape, np.uint8), GRID, label_set("functional-3"))
    scans = {c: Image(np.ones(GRID.shape), GRID, c) for c in (Contrast.CT, Contrast.FAT, Contrast.WATER)}
    with pytest.raises(ParameterError, match="from CT or from Dixon"):
        group_volumes(labels, scans[Contrast.CT], fat=scans[Contrast.FAT], water=scans[Contrast.WATER])
    with pytest.raises(ParameterError, match="takes two images"):
        group_volumes(labels, fat=scans[Contrast.FAT])


def test_the_gracilis_alone_makes_the_adductor_of_four_muscles() -> None:
    mapping = label_mapping(label_set("thigh-4"), label_set("functional-3"))
    adductor = label_set("functional-3").ids_of("adductor")[0]
    assert [label_set("thigh-4")[id_].name for id_, group in mapping.ids.items() if group == adductor] == ["gracilis"]
