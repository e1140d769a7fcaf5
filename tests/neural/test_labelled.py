from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musclekit.errors import InputError, LabelError, ModalityError, SegmentationError
from musclekit.image import Case, Contrast, Grid, LabelMap
from musclekit.labels import label_set
from musclekit.neural.labelled import (
    UNLABELLED,
    LabelledScan,
    LabelledView,
    check_classes,
    class_table,
    labelled_views,
)
from musclekit.neural.views import AIR, ViewSpec, unit_image, views_of
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_case

WHOLE, LEG = ViewSpec("whole", 5.0, (40, 40)), ViewSpec("leg", 5.0, (40, 40))
WINDOWS = {Contrast.T1W: MR_WINDOW, Contrast.CT: CT_WINDOW}
THIGH = label_set("thigh-4")


def case(seed: int = 1, **options: object) -> Case:
    return make_case(seed, **{"shape": (5, 60, 100), "spacing": (10, 4, 4), **options})  # type: ignore[arg-type]


def labels_of(one: Case) -> LabelMap:
    assert one.reference is not None
    return one.reference


def with_labels(one: Case, voxels: np.ndarray, name: str | None = None) -> Case:
    labels = labels_of(one)
    return replace(one, reference=LabelMap(voxels, labels.grid, label_set(name) if name else labels.label_set))


def test_the_nth_label_of_a_set_is_class_n() -> None:
    for name in ("thigh-4", "hip-thigh-22", "huashan-11-sided"):
        labels = label_set(name)
        table = class_table(labels)
        assert table[0] == 0
        assert [int(table[label.id]) for label in labels] == list(range(1, len(labels) + 1))


def test_a_scan_is_brought_to_the_view_that_a_network_is_shown() -> None:
    one = case(reference="thigh-4")
    (scan,) = labelled_views([one], THIGH, WHOLE, WINDOWS)
    assert (scan.id, scan.subject, scan.contrast) == (one.id, one.subject, Contrast.T1W)
    (view,) = views_of(one.image, WHOLE)
    (seen,) = scan.views
    assert (seen.image.dtype, seen.classes.dtype) == (np.float16, np.uint8)
    assert seen.image.shape == seen.classes.shape == view.frame.target.shape
    expected = unit_image(one.image, view, MR_WINDOW.scale_of(one.image))
    np.testing.assert_array_equal(seen.image, expected.astype(np.float16))
    for n, label in enumerate(THIGH, start=1):
        there = view.frame.apply_mask((labels_of(one).voxels == label.id) & view.mask)
        np.testing.assert_array_equal(seen.classes == n, there)


def test_each_leg_is_a_view_of_one_scan() -> None:
    (scan,) = labelled_views([case()], THIGH, LEG, WINDOWS, multiple=16)
    assert [view.side for view in scan.views] == ["right", "left"]
    assert all(side % 16 == 0 for view in scan.views for side in view.image.shape[1:])
    assert scan.warnings == ()


def test_every_image_of_a_known_contrast_is_a_scan() -> None:
    dixon = case(contrasts=(Contrast.FAT, Contrast.WATER, Contrast.T1W), reference="thigh-4")
    windows = {Contrast.FAT: MR_WINDOW, Contrast.WATER: MR_WINDOW}
    scans = labelled_views([dixon, case(2, contrasts=(Contrast.WATER,), reference="thigh-4")], THIGH, WHOLE, windows)
    assert [(scan.contrast, scan.subject) for scan in scans] == [
        (Contrast.FAT, "phantom0001"),
        (Contrast.WATER, "phantom0001"),
        (Contrast.WATER, "phantom0002"),
    ]
    counts = [np.bincount(scan.views[0].classes.ravel(), minlength=5)[1:] for scan in scans[:2]]
    np.testing.assert_allclose(counts[0], counts[1], rtol=0.01)


def test_labels_without_a_place_in_the_set_become_background_and_are_named() -> None:
    one = case()
    (scan,) = labelled_views([one], THIGH, WHOLE, WINDOWS)
    assert {"subcutaneous fat", "femur"} <= set(scan.dropped)
    assert not any("gracilis" in name for name in scan.dropped)
    (direct,) = labelled_views([case(reference="thigh-4")], THIGH, WHOLE, WINDOWS)
    assert direct.dropped == ()
    np.testing.assert_array_equal(scan.views[0].classes, direct.views[0].classes)


def test_what_a_case_does_not_show_is_not_said_to_be_dropped() -> None:
    one = case()
    voxels = labels_of(one).voxels.copy()
    lost = labels_of(one).label_set.ids_of("subcutaneous fat")
    voxels[np.isin(voxels, lost)] = 0
    (scan,) = labelled_views([with_labels(one, voxels)], THIGH, WHOLE, WINDOWS)
    assert not any("subcutaneous" in name for name in scan.dropped)


def test_sides_are_told_apart_for_a_set_that_has_them() -> None:
    sided = label_set("thigh-4-sided")
    told, given = (
        labelled_views([case(reference=name)], sided, WHOLE, WINDOWS)[0].views[0].classes
        for name in ("thigh-4", "thigh-4-sided")
    )
    np.testing.assert_array_equal(told, given)
    alone = case(legs="left", shape=(4, 60, 60), reference="thigh-4")
    (scan,) = labelled_views([alone], sided, WHOLE, WINDOWS)
    found = {sided.labels[int(c) - 1].side for c in np.unique(scan.views[0].classes) if 0 < c < UNLABELLED}
    assert found == {"left"}
    with pytest.raises(LabelError, match="case 'phantom0001': cannot tell left from right: the side of a leg is not k"):
        labelled_views([replace(alone, side=None)], sided, WHOLE, WINDOWS)


def test_beyond_the_labelled_slices_nothing_is_known_unless_it_is_background() -> None:
    one = case(reference="thigh-4")
    voxels = labels_of(one).voxels.copy()
    voxels[[0, 1, 4]] = 0
    partly = with_labels(one, voxels)
    (scan,) = labelled_views([partly], THIGH, WHOLE, WINDOWS)
    classes = scan.views[0].classes
    assert (classes[[0, 1, 4]] == UNLABELLED).all()
    assert not (classes[2:4] == UNLABELLED).any()
    (scan,) = labelled_views([partly], THIGH, WHOLE, WINDOWS, unlabelled_is_background=True)
    assert (scan.views[0].classes[[0, 1, 4]] == 0).all()


def test_of_slices_between_labelled_ones_nothing_is_known_and_it_is_told() -> None:
    one = case(reference="thigh-4")
    voxels = labels_of(one).voxels.copy()
    voxels[[1, 2]] = 0
    (scan,) = labelled_views([with_labels(one, voxels)], THIGH, WHOLE, WINDOWS)
    assert (scan.views[0].classes[[1, 2]] == UNLABELLED).all()
    assert not (scan.views[0].classes[[0, 3]] == UNLABELLED).any()
    assert scan.warnings == (
        "2 slices between labelled ones show no label of the single leg, and are not learnt from "
        "(unlabelled_is_background = true makes them background)",
    )
    (scan,) = labelled_views([with_labels(one, voxels)], THIGH, WHOLE, WINDOWS, unlabelled_is_background=True)
    assert (scan.views[0].classes[[1, 2]] == 0).all()
    assert scan.warnings == ()


def test_in_a_turned_view_what_is_not_known_lies_as_the_slices_of_the_scan_do() -> None:
    one = make_case(2, shape=(36, 30, 52), spacing=(6, 8, 8), contrasts=(Contrast.CT,), reference="thigh-4")
    voxels = labels_of(one).voxels.copy()
    voxels[:18] = 0
    (scan,) = labelled_views([with_labels(one, voxels)], THIGH, ViewSpec("femur", 8.0, (32, 24, 24)), WINDOWS)
    for view in scan.views:
        z, y, x = np.meshgrid(*[np.arange(n) for n in view.classes.shape], indexing="ij")
        slices = np.tensordot(view.frame.pull[0, :3], np.stack([z, y, x]), axes=1) + view.frame.pull[0, 3]
        assert (view.classes[slices < 16.5] == UNLABELLED).all()
        assert not (view.classes[(slices > 18.5) & (slices < 34)] == UNLABELLED).any()


def test_a_leg_without_a_label_is_left_out_and_told_of() -> None:
    one = case(reference="thigh-4-sided")
    voxels = labels_of(one).voxels.copy()
    left = [label.id for label in labels_of(one).label_set if label.side == "left"]
    voxels[np.isin(voxels, left)] = 0
    (scan,) = labelled_views([with_labels(one, voxels)], THIGH, LEG, WINDOWS)
    assert [view.side for view in scan.views] == ["right"]
    assert scan.warnings == ("the left leg shows no label, and is not learnt from",)


def test_the_side_of_a_single_leg_is_that_of_its_case() -> None:
    alone = case(legs="left", shape=(4, 60, 60))
    (scan,) = labelled_views([alone], THIGH, LEG, WINDOWS)
    assert (scan.views[0].side, scan.views[0].frame.is_mirrored, scan.warnings) == ("left", True, ())
    (scan,) = labelled_views([replace(alone, side=None)], THIGH, LEG, WINDOWS)
    assert scan.views[0].side is None
    assert scan.warnings == ("a leg of unknown side was not mirrored: say which it is (side)",)


def test_deciles_are_those_of_what_is_seen() -> None:
    image = np.full((1, 10, 10), -1, dtype=np.float16)
    image[0, 0] = np.linspace(-0.5, 0.4, 10)
    grid = Grid.from_spacing((1, 10, 10), (1, 1, 1))
    frame = views_of(case().image, WHOLE)[0].frame
    view = LabelledView(image, np.zeros(image.shape, np.uint8), frame, None)
    scan = LabelledScan("c", "s", Contrast.CT, (view, view))
    np.testing.assert_allclose(scan.deciles, np.quantile(image[0, 0].astype(float).repeat(2), np.arange(1, 10) / 10))
    dark = replace(scan, views=(replace(view, image=np.full(grid.shape, AIR, np.float16)),))
    assert dark.deciles.tolist() == [-1] * 9


def test_cases_that_nothing_can_be_learnt_from_are_refused_by_name() -> None:
    one = case(reference="thigh-4")
    with pytest.raises(InputError, match="there is no labelled case to learn from"):
        labelled_views([], THIGH, WHOLE, WINDOWS)
    with pytest.raises(InputError, match="case 'phantom0001' has no labels: a segmenter learns from labelled scans"):
        labelled_views([replace(one, reference=None)], THIGH, WHOLE, WINDOWS)
    with pytest.raises(InputError, match="case 'phantom0001' has no image of ct, only t1w: the network is trained on"):
        labelled_views([one], THIGH, WHOLE, {Contrast.CT: CT_WINDOW})
    empty = with_labels(one, np.zeros_like(labels_of(one).voxels))
    with pytest.raises(InputError, match="case 'phantom0001': none of its labels lies in the body"):
        labelled_views([empty], THIGH, WHOLE, WINDOWS)
    corner = np.zeros_like(labels_of(one).voxels)
    corner[:, 0, 0] = 1
    with pytest.raises(InputError, match="case 'phantom0001': none of its labels lies in the body"):
        labelled_views([with_labels(one, corner)], THIGH, LEG, WINDOWS)


def test_labels_that_cannot_be_mapped_are_refused_with_the_case() -> None:
    with pytest.raises(LabelError, match="case 'phantom0001': no map from 'tissue' to 'thigh-4'"):
        labelled_views([case(reference="tissue")], THIGH, WHOLE, WINDOWS)
    one = case()
    fat = np.where(np.isin(labels_of(one).voxels, labels_of(one).label_set.ids_of("subcutaneous fat")),
                   labels_of(one).voxels, 0)  # fmt: skip
    with pytest.raises(
        LabelError,
        match=r"case 'phantom0001': none of its labels \(subcutaneous fat\) has a place in 'thigh-4'",
    ):
        labelled_views([with_labels(one, fat)], THIGH, WHOLE, WINDOWS)


def test_a_bad_image_is_named() -> None:
    one = case(reference="thigh-4")
    femur = ViewSpec("femur", 8.0, (40, 32, 32))
    with pytest.raises(ModalityError, match=r"case 'phantom0001': the femur is found by its Hounsfield units"):
        labelled_views([one], THIGH, femur, WINDOWS)
    speck = np.zeros(one.image.grid.shape)
    speck[2, 30, 30] = 1
    with pytest.raises(SegmentationError, match="case 'phantom0001': no body found"):
        labelled_views([replace(one, images={Contrast.T1W: one.image.with_voxels(speck)})], THIGH, WHOLE, WINDOWS)


def test_a_class_that_nobody_shows_is_refused_by_name() -> None:
    one = case(reference="thigh-4")
    voxels = labels_of(one).voxels.copy()
    voxels[np.isin(voxels, [*THIGH.ids_of("gracilis"), *THIGH.ids_of("sartorius")])] = 0
    lacking = labelled_views([with_labels(one, voxels)], THIGH, WHOLE, WINDOWS)
    with pytest.raises(
        LabelError,
        match="the cases to train on show no gracilis, sartorius: a network cannot learn what it is never shown; "
        "choose a smaller label set, or add cases",
    ):
        check_classes(lacking, THIGH)
    with pytest.raises(LabelError, match="fold 2 show no gracilis, sartorius: "):
        check_classes(lacking, THIGH, "the cases of fold 2")
    check_classes((*lacking, *labelled_views([case(2, reference="thigh-4")], THIGH, WHOLE, WINDOWS)), THIGH)
