"""The picture: orientation, colours, frame, determinism."""

from __future__ import annotations

import itertools
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musclekit.errors import GeometryError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image, LabelMap
from musclekit.labels import label_set
from musclekit.report.montage import choose_slices, draw_slices, grey_window, montage

ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def leg(contrast: Contrast = Contrast.T1W, shape=(5, 60, 48), spacing=(4.0, 1.0, 1.0)):
    """One round leg, a bright marker at its right-front edge labelled 1, another muscle labelled 2 in the middle."""
    _, y, x = np.indices(shape)
    radius = 18 / spacing[1], 18 / spacing[2]
    body = ((y - shape[1] / 2) / radius[0]) ** 2 + ((x - shape[2] / 2) / radius[1]) ** 2 < 1
    voxels = np.where(body, 50.0, -1000.0 if contrast is Contrast.CT else 0.0)
    labels = np.zeros(shape, np.uint8)
    # `Grid.from_spacing`: rows grow to the front, columns to the patient's right.
    marker = np.s_[:, int(shape[1] * 0.6) : int(shape[1] * 0.7), int(shape[2] * 0.6) : int(shape[2] * 0.7)]
    voxels[marker], labels[marker] = 200.0, 1
    labels[:, shape[1] // 2 - 4 : shape[1] // 2, shape[2] // 2 - 4 : shape[2] // 2] = 2
    grid = Grid.from_spacing(shape, spacing, origin=(-20, 10, 300))
    return Image(voxels, grid, contrast), LabelMap(labels, grid, label_set("huashan-11"))


def reoriented(image: Image, labels: LabelMap, order, flips):
    """The same voxels at the same places of the world, in an array of other axes."""
    index = np.array([0 if f > 0 else n - 1 for f, n in zip(flips, image.grid.shape, strict=True)])
    affine = image.grid.affine.copy()
    affine[:3, 3] = image.grid.world(index)
    affine[:3, :3] = (affine[:3, :3] * np.asarray(flips))[:, order]
    cut = tuple(slice(None, None, f) for f in flips)
    voxels, ids = (a[cut].transpose(order) for a in (image.voxels, labels.voxels))
    grid = Grid(voxels.shape, affine)
    return Image(voxels, grid, image.contrast), LabelMap(ids, grid, labels.label_set)


def decode(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def hex_rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def where(rgb: np.ndarray, color: str, within: int = 30) -> np.ndarray:
    return np.argwhere(np.abs(rgb.astype(int) - hex_rgb(color)).max(axis=2) <= within)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_the_patients_right_front_is_at_the_top_left_whatever_the_axes(order, flips):
    plain, turned = leg(), reoriented(*leg(), order, flips)
    # Plane 1 of the plain array, wherever it lies in the other.
    index = 1 if flips[0] > 0 else 3
    (expected,) = draw_slices(*plain, [1], panel_px=96)
    (panel,) = draw_slices(*turned, [index], panel_px=96)

    rows, columns = where(panel.rgb, "#f28e2b", within=60).T
    assert rows.size
    assert rows.mean() < panel.rgb.shape[0] / 2 - 5
    assert columns.mean() < panel.rgb.shape[1] / 2 - 5
    np.testing.assert_array_equal(panel.rgb, expected.rgb)
    assert panel.level_mm == pytest.approx(304.0)


def test_an_oblique_grid_is_seen_along_its_nearest_axes():
    image, labels = leg()
    turn = np.deg2rad(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = image.grid.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    grid = Grid(image.grid.shape, affine)
    (panel,) = draw_slices(
        Image(image.voxels, grid, image.contrast), LabelMap(labels.voxels, grid, labels.label_set), [2]
    )
    np.testing.assert_array_equal(panel.rgb, draw_slices(image, labels, [2])[0].rgb)


def test_contours_have_the_colours_of_the_label_set_and_the_legend_names_what_is_drawn():
    image, labels = leg()
    picture = decode(montage(image, labels))
    for label in labels.label_set:
        found = len(where(picture, label.color, within=2))
        if label.id in (1, 2):
            assert found > 100, label.name
        else:
            assert found == 0, label.name


def test_sides_share_one_entry_in_the_legend():
    image, labels = leg()
    sided = LabelMap(np.where(labels.voxels == 1, 1, np.where(labels.voxels == 2, 2, 0)), labels.grid,
                     label_set("huashan-11-sided"))  # fmt: skip
    (panel,) = draw_slices(image, sided, [0])
    assert [label.full_name for label in panel.labels] == ["sartorius left", "sartorius right"]
    one = LabelMap((labels.voxels > 0).astype(np.uint8), labels.grid, label_set("huashan-11"))
    assert decode(montage(image, sided)).shape == decode(montage(image, one)).shape


@pytest.mark.parametrize("spacing", [(4.0, 1.0, 1.0), (4.0, 0.5, 1.0), (10.0, 1.0, 0.4)])
def test_a_round_leg_is_round_whatever_the_pixels(spacing):
    shape = (3, round(60 / spacing[1]), round(48 / spacing[2]))
    image, labels = leg(shape=shape, spacing=spacing)
    (panel,) = draw_slices(image, labels.with_voxels(labels.voxels * 0), [1], panel_px=300)
    body = panel.rgb.max(axis=2) > 40
    height, width = np.ptp(np.argwhere(body), axis=0)
    assert height / width == pytest.approx(1, abs=0.05)
    # The scale is the true one, too: 36 mm across.
    assert width / panel.px_per_mm == pytest.approx(36, abs=1.5)


def test_the_frame_is_the_body_with_a_margin_and_leaves_the_couch_out():
    shape = (4, 200, 200)
    _, y, x = np.indices(shape)
    body = (y - 120) ** 2 + (x - 100) ** 2 < 40**2
    voxels = np.where(body, 40.0, -1000.0)
    voxels[:, 20:22, 10:190] = 100.0  # the couch: a thin bright line behind the body
    grid = Grid.from_spacing(shape, (5, 1, 1))
    labels = LabelMap(((y - 120) ** 2 + (x - 100) ** 2 < 20**2).astype(np.uint8), grid, label_set("muscle"))
    (panel,) = draw_slices(Image(voxels, grid, Contrast.CT), labels, [0], panel_px=190)
    rows, columns = panel.rgb.shape[:2]
    assert rows / panel.px_per_mm == pytest.approx(79 + 16, abs=3)
    assert columns / panel.px_per_mm == pytest.approx(79 + 16, abs=3)


def test_ct_has_a_fixed_window_and_mr_one_that_outliers_do_not_move():
    values = np.concatenate([np.linspace(100, 200, 10_000), [1e6] * 20])
    assert grey_window(values, Contrast.CT) == (-160.0, 240.0)
    low, high = grey_window(values, Contrast.T1W)
    assert 100 <= low < 105
    assert 195 < high <= 200
    low, high = grey_window(np.full(10, 7.0), Contrast.MR)
    assert low < high


def test_hounsfield_units_become_the_grey_they_should():
    image, labels = leg(Contrast.CT)
    (panel,) = draw_slices(image, labels.with_voxels(labels.voxels * 0), [0])
    greys, counts = np.unique(panel.rgb[..., 0], return_counts=True)
    common = greys[np.argsort(counts)[-2:]]
    assert sorted(common.tolist()) == [0, int((50 + 160) / 400 * 255)]


def test_a_structure_of_one_voxel_is_drawn():
    shape = (2, 512, 512)
    grid = Grid.from_spacing(shape, (5, 1, 1))
    ids = np.zeros(shape, np.uint8)
    ids[0, 300, 200] = 3
    _, y, x = np.indices(shape)
    image = Image(((y - 256) ** 2 + (x - 256) ** 2 < 240**2) * 100.0, grid, Contrast.T1W)
    (panel,) = draw_slices(image, LabelMap(ids, grid, label_set("huashan-11")), [0], panel_px=60)
    assert len(where(panel.rgb, "#4e79a7", within=40))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20)),
    spacing=st.tuples(*[st.floats(0.3, 30)] * 3),
    seed=st.integers(0, 99),
    contrast=st.sampled_from([Contrast.CT, Contrast.FAT, Contrast.MR]),
)
def test_any_small_volume_makes_a_picture(shape, spacing, seed, contrast):
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing(shape, spacing)
    image = Image(rng.normal(0, 300, shape), grid, contrast)
    labels = LabelMap(rng.integers(0, 23, shape), grid, label_set("hip-thigh-22"))
    panels = draw_slices(image, labels, range(shape[0]), panel_px=80)
    (size,) = {panel.rgb.shape for panel in panels}
    assert size[0] <= 160
    assert size[1] <= 80


@pytest.mark.parametrize("contrast", [Contrast.CT, Contrast.T1W])
def test_a_constant_image_of_one_voxel_makes_a_picture(contrast):
    grid = Grid.from_spacing((1, 1, 1), (3, 1, 1))
    png = montage(
        Image(np.zeros((1, 1, 1)), grid, contrast), LabelMap(np.ones((1, 1, 1), int), grid, label_set("muscle"))
    )
    assert decode(png).ndim == 3


def test_without_labels_the_picture_shows_the_scan_all_the_same():
    image, labels = leg()
    empty = decode(montage(image, labels.with_voxels(labels.voxels * 0)))
    assert empty.max() > 200
    assert len(where(empty, "#f28e2b", within=2)) == 0


def test_slices_are_spread_over_the_labelled_ones_from_the_hip_down():
    image, labels = leg(shape=(40, 60, 48))
    ids = labels.voxels.copy()
    ids[:5] = ids[30:] = 0
    found = labels.with_voxels(ids)
    assert choose_slices(found, 6) == [29, 24, 19, 15, 10, 5]
    assert choose_slices(found, 100) == list(range(29, 4, -1))
    assert choose_slices(found, 1) == [17]
    assert choose_slices(labels.with_voxels(ids * 0), 3) == [39, 20, 0]
    # The head is up even where the array runs the other way.
    assert choose_slices(reoriented(image, found, (0, 1, 2), (-1, 1, 1))[1], 2) == [10, 34]


def test_columns_and_width_are_obeyed():
    image, labels = leg(shape=(12, 60, 48))
    one = decode(montage(image, labels, columns=1, width_px=300))
    six = decode(montage(image, labels, columns=6, width_px=900))
    assert one.shape[1] <= 300
    assert 600 < six.shape[1] <= 900
    assert one.shape[0] > 3 * six.shape[0]


def test_the_same_input_gives_the_same_bytes_and_is_left_alone():
    image, labels = leg(Contrast.CT)
    before = image.voxels.copy(), labels.voxels.copy()
    assert montage(image, labels) == montage(image, labels)
    np.testing.assert_array_equal(image.voxels, before[0])
    np.testing.assert_array_equal(labels.voxels, before[1])


def test_labels_on_another_grid_are_refused():
    image, labels = leg()
    moved = LabelMap(labels.voxels, Grid.from_spacing(labels.grid.shape, (4, 1, 1)), labels.label_set)
    with pytest.raises(GeometryError, match="different grids: corners lie up to"):
        montage(image, moved)


@pytest.mark.parametrize(("name", "value"), [("columns", 0), ("max_slices", 0), ("width_px", 10)])
def test_numbers_out_of_range_are_refused(name, value):
    image, labels = leg()
    with pytest.raises(ParameterError, match=f"{name} must be .* or more, not {value}"):
        montage(image, labels, **{name: value})


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.WATER, Contrast.CT])
def test_a_translation_is_green_where_it_became_muscle_red_where_it_was_and_yellow_elsewhere(contrast):
    image, labels = leg(contrast)
    # Two patches of one grey, between dark and bright ones: one becomes darker, the other brighter.
    shape = image.grid.shape
    _, y, x = np.indices(shape)
    inside = image.voxels > 0
    middle = image.with_voxels(np.where(inside, np.select([x < 16, x > 32], [5.0, 195.0], 100.0), image.voxels))
    near = np.abs(x - shape[2] // 2) < 4
    darker, brighter = near & (np.abs(y - 22) < 4), near & (np.abs(y - 38) < 4)
    fake = middle.with_voxels(middle.voxels + 90.0 * brighter - 90.0 * darker)
    nothing = labels.with_voxels(labels.voxels * 0)
    (panel,) = draw_slices(middle, nothing, [1], panel_px=240, fake=fake)
    red, green, blue = (panel.rgb[..., c].astype(int) for c in range(3))
    assert not blue.any()
    became, was = np.argwhere(green - red > 40), np.argwhere(red - green > 40)
    assert len(became) > 100
    assert len(was) > 100
    # The front is on top, and rows of the array run to the front: row 38 lies above row 22.
    assert (became[:, 0].mean() > was[:, 0].mean()) == (contrast.fat_is_bright is True)
    assert (red == green).mean() > 0.8
    assert decode(montage(middle, nothing, fake=fake)).shape[2] == 3


def test_a_translation_to_another_contrast_or_grid_cannot_be_laid_over_its_image():
    image, labels = leg()
    with pytest.raises(ModalityError, match="a translation from t1w to ct cannot be laid over its image"):
        montage(image, labels, fake=image.with_voxels(image.voxels, Contrast.CT))
    other = Image(image.voxels, Grid.from_spacing(image.grid.shape, (4, 1, 1)), image.contrast)
    with pytest.raises(GeometryError, match="image and translation lie on different grids"):
        montage(image, labels, fake=other)


@pytest.mark.slow
def test_a_large_ct_takes_little_time():
    image, labels = leg(Contrast.CT, shape=(60, 512, 512), spacing=(3, 0.08, 0.08))
    montage(image, labels)
    started = time.perf_counter()
    montage(image, labels)
    assert time.perf_counter() - started < 5  # about 0.5 s; a bound that no busy machine breaks
