from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import LabelSet, label_set
from musclekit.quantify import Measures, measure

GRID = Grid.from_spacing((4, 10, 12), (5.0, 1.5, 2.0), origin=(-7, 20, 100))
PIXEL_MM2 = 3.0
VOXEL_ML = 0.015


def empty(label_set_name: str = "functional-3", grid: Grid = GRID) -> tuple[NDArray[np.uint8], LabelSet]:
    return np.zeros(grid.shape, np.uint8), label_set(label_set_name)


def row(frame: pd.DataFrame, structure: str, side: str = "", **where: object) -> pd.Series:
    chosen = (frame["structure"] == structure) & (frame["side"] == side)
    for name, value in where.items():
        chosen &= frame[name] == value
    assert chosen.sum() == 1
    return frame[chosen].iloc[0]


def naive(labels: LabelMap, image: Image) -> pd.DataFrame:
    """One row a label and slice, by boolean masks, straight from the definitions."""
    rows = []
    for label in labels.label_set:
        for z in range(labels.grid.shape[0]):
            mask = labels.voxels[z] == label.id
            values = image.voxels[z][mask].astype(np.float64)
            if values.size:
                whole = np.floor(values + 0.5)
                shares = [
                    np.mean((whole >= low) & (whole <= high)) for low, high in ((-190, -30), (-29, 29), (30, 150))
                ]
                quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
                rows.append([values.size, values.mean(), values.std(), *quantiles, *shares])
            else:
                rows.append([0, *[np.nan] * 10])
    names = ["voxels", "hu_mean", "hu_sd", "hu_p05", "hu_p25", "hu_median", "hu_p75", "hu_p95"]
    return pd.DataFrame(rows, columns=[*names, "hu_fat_fraction", "hu_low_fraction", "hu_normal_fraction"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 5, 6), (4, 7, 3), (3, 1, 5)]), st.floats(0, 1))
def test_slices_are_those_of_the_naive_loop(seed: int, shape: tuple[int, int, int], background: float) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing(shape, (3.0, 0.8, 0.8))
    ids = rng.integers(0, 12, shape).astype(np.uint8)
    ids[rng.random(shape) < background] = 0
    labels = LabelMap(ids, grid, label_set("thigh-11"))
    # Halves and whole numbers hit the edges of the HU classes.
    image = Image(rng.integers(-400, 400, shape) / 2, grid, Contrast.CT)
    expected = naive(labels, image)
    found = measure(labels, image).slices
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected, check_dtype=False, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_structure_is_measured_as_one_long_slice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, GRID.shape).astype(np.uint8)
    values = rng.normal(40, 60, GRID.shape)
    stacked = Grid.from_spacing((1, 40, 12), (5.0, 1.5, 2.0))
    apart = measure(LabelMap(ids, GRID, label_set("functional-3")), Image(values, GRID, Contrast.CT))
    together = measure(
        LabelMap(ids.reshape(stacked.shape), stacked, label_set("functional-3")),
        Image(values.reshape(stacked.shape), stacked, Contrast.CT),
    )
    names = [name for name in apart.structures if name.startswith(("hu_", "voxels", "volume"))]
    pd.testing.assert_frame_equal(apart.structures[names], together.structures[names], rtol=1e-9)


def test_sizes_of_a_box() -> None:
    ids, names = empty()
    ids[1, 2:6, 3:9] = 1  # 24 pixels
    ids[2, 2:4, 3:9] = 1  # 12 pixels
    measures = measure(LabelMap(ids, GRID, names), cosine=0.5)
    found = row(measures.structures, "extensor")
    assert found["status"] == "ok"
    assert found["voxels"] == 36
    assert found["volume_ml"] == pytest.approx(36 * VOXEL_ML)
    assert found["csa_max_mm2"] == pytest.approx(24 * PIXEL_MM2)
    assert found["csa_max_corrected_mm2"] == pytest.approx(12 * PIXEL_MM2)
    assert found["csa_mean_mm2"] == pytest.approx(18 * PIXEL_MM2)
    assert found["csa_mean_corrected_mm2"] == pytest.approx(9 * PIXEL_MM2)
    assert (found["slices_present"], found["slices_in_volume"]) == (2, 4)
    plane = row(measures.slices, "extensor", slice=2)
    assert plane["level_mm"] == pytest.approx(110)
    assert plane["csa_mm2"] == pytest.approx(12 * PIXEL_MM2)
    assert plane["csa_corrected_mm2"] == pytest.approx(6 * PIXEL_MM2)
    assert plane["volume_ml"] == pytest.approx(12 * VOXEL_ML)
    assert len(measures.slices) == 3 * 4


def test_what_is_absent_says_so_and_is_not_zero() -> None:
    ids, names = empty()
    ids[1, 2:6, 3:9] = 1
    values = np.ones(GRID.shape)
    measures = measure(LabelMap(ids, GRID, names), Image(values, GRID, Contrast.CT))
    for found in (row(measures.structures, "flexor"), row(measures.slices, "extensor", slice=0)):
        assert found["status"] == "absent"
        assert found["voxels"] == 0
        sizes = [name for name in found.index if name.startswith(("hu_", "volume", "csa"))]
        assert len(sizes) > 10
        assert found[sizes].isna().all()
    assert measures.warnings[0] == "not found in this scan: flexor, adductor"


def test_an_empty_label_map_is_measured() -> None:
    ids, names = empty()
    measures = measure(LabelMap(ids, GRID, names), Image(np.zeros(GRID.shape), GRID, Contrast.MR))
    assert list(measures.structures["status"]) == ["absent"] * 3
    assert len(measures.slices) == 12


@pytest.mark.parametrize(
    ("box", "flags", "warning"),
    [
        (np.s_[1:3, 3:6, 3:6], (False, False, False), None),
        (np.s_[0:2, 3:6, 3:6], (False, True, False), "1 of 1 structures reach the first or last slice"),
        (np.s_[2:4, 3:6, 3:6], (False, False, True), "1 of 1 structures reach the first or last slice"),
        (np.s_[1:3, 0:4, 3:6], (True, False, False), "cut by the border of the image: extensor"),
        (np.s_[1:3, 3:6, 8:12], (True, False, False), "cut by the border of the image: extensor"),
    ],
)
def test_coverage(box: tuple[slice, ...], flags: tuple[bool, bool, bool], warning: str | None) -> None:
    ids, names = empty()
    ids[box] = 1
    measures = measure(LabelMap(ids, GRID, names))
    found = row(measures.structures, "extensor")
    assert tuple(found[["touches_border", "in_first_slice", "in_last_slice"]]) == flags
    assert found["status"] == ("cut" if any(flags) else "ok")
    coverage = [text for text in measures.warnings if "structures reach" in text or "border" in text]
    assert coverage == [] if warning is None else coverage[0].startswith(warning)


def test_only_the_slices_that_touch_the_border_are_cut() -> None:
    ids, names = empty()
    ids[1, 3:6, 3:6] = ids[2, 3:6, 0:6] = 1
    status = measure(LabelMap(ids, GRID, names)).slices.query("structure == 'extensor'")["status"]
    assert list(status) == ["absent", "ok", "cut", "absent"]


def test_a_row_of_voxels_has_no_border_along_its_own_axis() -> None:
    grid = Grid.from_spacing((3, 1, 9), (5.0, 1.5, 2.0))
    ids = np.zeros(grid.shape, np.uint8)
    ids[1, 0, 3:6] = 1
    names = label_set("functional-3")
    assert row(measure(LabelMap(ids, grid, names)).structures, "extensor")["status"] == "ok"
    ids[1, 0, :6] = 1
    assert row(measure(LabelMap(ids, grid, names)).structures, "extensor")["status"] == "cut"


def test_sheared_and_oblique_grids_keep_their_volume() -> None:
    affine = np.array([[0.3, 0, 2, 0], [1.0, 1.5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
    ids, names = empty()
    ids[1, 2:6, 3:9] = 1
    found = row(measure(LabelMap(ids, Grid(GRID.shape, affine), names)).structures, "extensor")
    assert found["volume_ml"] == pytest.approx(24 * VOXEL_ML)  # the slices are shifted, not thickened
    assert found["csa_max_mm2"] == pytest.approx(24 * PIXEL_MM2)


def test_each_leg_has_its_own_axis() -> None:
    ids, names = empty()
    sided = names.sided()
    ids[1, 2:6, 2:4] = sided.ids_of("extensor", "left")[0]
    ids[1, 2:6, 7:9] = sided.ids_of("extensor", "right")[0]
    measures = measure(LabelMap(ids, GRID, sided), cosine={"left": 0.8})
    assert row(measures.slices, "extensor", "left", slice=1)["csa_corrected_mm2"] == pytest.approx(0.8 * 8 * PIXEL_MM2)
    assert np.isnan(row(measures.slices, "extensor", "right", slice=1)["csa_corrected_mm2"])
    assert not any("no femur axis" in text for text in measures.warnings)
    assert any("no femur axis" in text for text in measure(LabelMap(ids, GRID, sided)).warnings)


def test_hu_classes_meet_without_a_gap() -> None:
    values = [-191, -190.6, -190.5, -30, -29.6, -29.5, -29, 29, 29.4, 29.5, 30, 150, 150.4, 150.5, 151]
    expected = {"fat": 3, "low": 4, "normal": 4}
    grid = Grid.from_spacing((1, 3, 5), (10, 1, 1))
    measures = measure(
        LabelMap(np.ones(grid.shape, np.uint8), grid, label_set("muscle")),
        Image(np.reshape(values, grid.shape), grid, Contrast.CT),
    )
    for name, count in expected.items():
        assert measures.structures[f"hu_{name}_fraction"].item() == pytest.approx(count / 15)
        assert measures.structures[f"hu_{name}_ml"].item() == pytest.approx(count * 0.01)
        assert measures.slices[f"hu_{name}_mm2"].item() == pytest.approx(count)


def test_mr_has_signal_and_no_hounsfield_units() -> None:
    ids, names = empty()
    ids[1, 2:6, 3:9] = 1
    measures = measure(LabelMap(ids, GRID, names), Image(np.full(GRID.shape, 7.0), GRID, Contrast.T1W))
    found = row(measures.structures, "extensor")
    assert (found["signal_mean"], found["signal_sd"], found["signal_median"]) == (7, 0, 7)
    assert not [name for name in found.index if name.startswith("hu_")]


def test_fat_fractions_are_two_numbers() -> None:
    ids, names = empty()
    ids[1, 2, 2:6] = 1
    f, w = np.zeros(GRID.shape), np.zeros(GRID.shape)
    f[1, 2, 2:5] = [10, 90, 20]
    w[1, 2, 2:5] = [10, 10, 0]  # the fourth voxel has no signal at all
    measures = measure(
        LabelMap(ids, GRID, names), fat=Image(f, GRID, Contrast.FAT), water=Image(w, GRID, Contrast.WATER)
    )
    for found in (row(measures.structures, "extensor"), row(measures.slices, "extensor", slice=1)):
        assert found["fat_fraction_of_sums"] == pytest.approx(120 / 140)
        assert found["fat_fraction_voxel_mean"] == pytest.approx((0.5 + 0.9 + 1.0) / 3)
        assert found["fat_fraction_left_out"] == 1
    assert measures.warnings[-1].startswith("1 voxels have no signal in fat and water")


def test_tissue_has_unions_and_a_fat_fraction_of_the_mask() -> None:
    ids, names = empty("tissue")
    ids[1, 2:6, 3:9] = 1
    ids[1, 2:4, 3:6] = 5
    ids[1, 5, 3:9] = 2
    ids[1, 5, 4:6] = 3
    ids[2, 2:4, 2:4] = 1
    values = np.where(ids == 5, -100.0, 50.0)
    for sided in (False, True):
        labels = LabelMap(ids, GRID, names)
        if sided:
            left = np.array([0, *(names.sided().ids_of(label.name, "left")[0] for label in names)])
            labels = LabelMap(left[ids], GRID, names.sided())
        measures = measure(labels, Image(values, GRID, Contrast.CT))
        side = "left" if sided else ""
        compartment = row(measures.structures, "compartment", side)
        assert compartment["derived"]
        assert compartment["voxels"] == 22
        assert compartment["fat_fraction_of_mask"] == pytest.approx(6 / 22)
        assert compartment["hu_mean"] == pytest.approx((16 * 50 - 600) / 22)
        assert compartment["hu_p05"] == -100
        assert row(measures.slices, "compartment", side, slice=2)["fat_fraction_of_mask"] == 0
        assert np.isnan(row(measures.slices, "compartment", side, slice=0)["fat_fraction_of_mask"])
        assert row(measures.structures, "bone", side)["voxels"] == 6
        assert np.isnan(row(measures.structures, "muscle", side)["fat_fraction_of_mask"])
        assert measures.structures["derived"].sum() == (4 if sided else 2)


def test_the_body_is_one_more_structure() -> None:
    ids, names = empty()
    body = np.zeros(GRID.shape, bool)
    body[1:3, 1:9, 1:11] = True
    found = row(measure(LabelMap(ids, GRID, names), body=body).structures, "body")
    assert found["voxels"] == 160
    assert found["derived"]


def test_asymmetry_is_right_minus_left() -> None:
    names = label_set("functional-3-sided")
    ids = np.zeros(GRID.shape, np.uint8)
    ids[1, 2:6, 2:4] = names.ids_of("extensor", "left")[0]
    ids[1, 2:6, 6:9] = names.ids_of("extensor", "right")[0]
    ids[0:2, 7, 6:9] = names.ids_of("flexor", "right")[0]
    asymmetry = measure(LabelMap(ids, GRID, names)).asymmetry.set_index(["structure", "quantity"])
    volume = asymmetry.loc[("extensor", "volume_ml")]
    assert volume["left"] == pytest.approx(8 * VOXEL_ML)
    assert volume["right"] == pytest.approx(12 * VOXEL_ML)
    assert volume["index_percent"] == pytest.approx(40)
    assert volume["status"] == "ok"
    assert asymmetry.loc[("flexor", "volume_ml"), "status"] == "absent"
    assert np.isnan(asymmetry.loc[("flexor", "csa_max_mm2"), "index_percent"])


def test_sides_that_are_not_told_apart_have_no_asymmetry() -> None:
    ids, names = empty()
    measures = measure(LabelMap(ids, GRID, names), side="left")
    assert set(measures.structures["side"]) == {"left"}
    assert measures.asymmetry.empty
    assert list(measures.asymmetry) == ["structure", "quantity", "left", "right", "index_percent", "status"]


def test_plain_data_is_json_without_nan() -> None:
    names = label_set("functional-3-sided")
    ids = np.zeros(GRID.shape, np.uint8)
    ids[1, 2:6, 2:4] = 1
    data = measure(LabelMap(ids, GRID, names), Image(np.ones(GRID.shape), GRID, Contrast.CT)).as_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    assert again["structures"][0]["structure"] == "extensor"
    assert again["structures"][0]["hu_mean"] == 1.0
    assert again["structures"][1]["volume_ml"] is None
    assert len(again["slices"]) == 24


def measured(**changes: object) -> Measures:
    ids, names = empty()
    arguments = {
        "fat": Image(np.ones(GRID.shape), GRID, Contrast.FAT),
        "water": Image(np.ones(GRID.shape), GRID, Contrast.WATER),
    }
    return measure(LabelMap(ids, GRID, names), **(arguments | changes))  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    other = Grid.from_spacing(GRID.shape, (5.0, 1.5, 2.0))
    elsewhere = Image(np.ones(GRID.shape), other, Contrast.CT)
    with pytest.raises(
        GeometryError, match="the image and the labels lie on two grids: corners lie up to 102 mm apart"
    ):
        measured(image=elsewhere)
    with pytest.raises(GeometryError, match=r"the body mask has shape \(3, 3, 3\)"):
        measured(body=np.ones((3, 3, 3), bool))
    with pytest.raises(ParameterError, match="takes two images: fat was given, water was not"):
        measured(water=None)
    with pytest.raises(ParameterError, match="takes two images: water was given, fat was not"):
        measured(fat=None)
    with pytest.raises(ModalityError, match="the fat image is given as 'water'; read it as 'fat'"):
        measured(fat=Image(np.ones(GRID.shape), GRID, Contrast.WATER))
    for cosine in (0.0, -0.5, 1.2, {"": 2.0}):
        with pytest.raises(ParameterError, match="cosine must lie above 0 and not above 1"):
            measured(cosine=cosine)


def test_the_input_is_left_as_it_is() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.normal(size=GRID.shape).astype(np.float32)
    image = Image(voxels, GRID, Contrast.CT)
    before = voxels.copy()
    measure(LabelMap(rng.integers(0, 4, GRID.shape), GRID, label_set("functional-3")), image)
    np.testing.assert_array_equal(voxels, before)


#: Fat fractions published with the scans by the Huashan Neuromuscular Group, in the order of the label ids.
PUBLISHED = {
    "001": [0.183, 0.537, 0.309, 0.343, 0.301, 0.649, 0.235, 0.640, 0.649, 0.618, 0.418],
    "003": [0.205, 0.216, 0.331, 0.369, 0.350, 0.224, 0.127, 0.325, 0.202, 0.267, 0.198],
}


@pytest.mark.slow
@pytest.mark.parametrize("patient", sorted(PUBLISHED))
def test_published_fat_fractions_are_reproduced(shared_data: Path, patient: str) -> None:
    from musclekit.io import read, read_labels

    folder = shared_data / "huashan"
    labels = read_labels(folder / f"Thigh_{patient}_dseg.nii.gz", label_set("huashan-11"))
    fat = read(folder / f"Thigh_{patient}_fat.nii.gz", contrast=Contrast.FAT)
    water = read(folder / f"Thigh_{patient}_water.nii.gz", contrast=Contrast.WATER)
    found = measure(labels, fat=fat, water=water).structures
    np.testing.assert_allclose(found["fat_fraction_voxel_mean"], PUBLISHED[patient], atol=6e-4)
    assert (found["fat_fraction_of_sums"] - found["fat_fraction_voxel_mean"]).abs().between(1e-4, 0.06).all()
