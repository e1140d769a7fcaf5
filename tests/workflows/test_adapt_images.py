"""The images that an adaptation learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from musclekit.errors import FormatError, InputError, LabelError
from musclekit.image import Case, Contrast, LabelMap
from musclekit.io import ManifestRow
from musclekit.labels import label_mapping, label_set
from musclekit.neural.adaptation.plan import AdaptPlan, Part
from musclekit.neural.views import ViewSpec
from musclekit.phantom import make_case
from musclekit.workflows.adapt_images import LegImages, leg_images, planes_named, read_images, write_images

FOUR = label_set("thigh-4")
PLAN = AdaptPlan(Part(Contrast.WATER), Part(Contrast.CT), FOUR, view=ViewSpec("leg", 2.0, (96, 96)))


def row(case: Case, **extra: str) -> list[ManifestRow]:
    return [ManifestRow(case.id, case.subject, None, extra=extra)]


@pytest.fixture(scope="module")
def mr() -> Case:
    return make_case(3, contrasts=(Contrast.WATER,), shape=(5, 120, 200))


@pytest.fixture(scope="module")
def ct() -> Case:
    return make_case(4, contrasts=(Contrast.CT,), shape=(4, 120, 200))


def of(
    case: Case, *, labelled: bool = True, room: bool = False, plan: AdaptPlan = PLAN, **extra: str
) -> list[LegImages]:
    part = plan.source if labelled else plan.target
    return list(leg_images(case, row(case, **extra), plan, part, labelled=labelled, with_room=room))


def test_each_leg_is_an_image_that_looks_like_a_right_one(mr: Case) -> None:
    right, left = sorted(of(mr), key=lambda leg: leg.side, reverse=True)
    assert (right.side, left.side) == ("right", "left")
    for leg in (right, left):
        assert leg.images.shape == leg.classes.shape == (5, 96, 96)
        assert leg.images.min() == -1
        assert leg.images.max() <= 1
        assert set(np.unique(leg.classes)) == {0, 1, 2, 3, 4}
        near = np.stack([cv2.dilate(plane.astype(np.uint8), np.ones((7, 7), np.uint8)) for plane in leg.body]) > 0
        assert np.all(leg.images[~near] == -1)
        # The gracilis lies on the inner side, which is that of lower columns.
        gracilis, quadriceps = (
            np.argwhere(leg.classes == FOUR.ids_of(name)[0]) for name in ("gracilis", "quadriceps femoris")
        )
        assert gracilis[:, 2].mean() < quadriceps[:, 2].mean()
    assert right.ids[0] == f"{mr.id}_right_000"
    assert not right.room.any()


def test_images_of_the_target_have_room_and_no_labels(ct: Case) -> None:
    truth = ct.reference
    assert truth is not None
    for leg in of(ct, labelled=False, room=True):
        assert not leg.classes.any()
        assert leg.room.any(axis=(1, 2)).all()
        assert not (leg.room & ~leg.body).any()
    muscle = truth.mapped(label_mapping(truth.label_set, label_set("muscle"))).mask()
    spacing = truth.grid.spacing
    volume = sum(int(leg.room.sum()) for leg in of(ct, labelled=False, room=True)) * 4.0 * spacing[0]
    # All inside the fascia but bone is more than the muscles, and not twice as much.
    assert muscle.sum() * truth.grid.voxel_volume_mm3 * 0.95 < volume < muscle.sum() * truth.grid.voxel_volume_mm3 * 1.6


def test_labels_that_keep_a_margin_are_grown_to_the_muscle(mr: Case) -> None:
    truth = mr.reference
    assert truth is not None
    inner = np.zeros_like(truth.voxels)
    for label in truth.label_set:
        for z, plane in enumerate(truth.voxels == label.id):
            depth = cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 5) * truth.grid.spacing[1]
            inner[z][depth > 4.0] = label.id
    eroded = replace(mr, reference=LabelMap(inner, truth.grid, truth.label_set))
    whole, plain, grown = (
        {leg.side: leg for leg in found} for found in (of(mr), of(eroded), of(eroded, margin_mm="4"))
    )
    quadriceps, gracilis = FOUR.ids_of("quadriceps femoris")[0], FOUR.ids_of("gracilis")[0]
    for side in ("left", "right"):
        assert grown[side].grown > 0.1
        assert plain[side].grown == 0

        def agreement(found: LegImages, label: int = quadriceps, side: str = side) -> float:
            a, b = (leg.classes == label for leg in (found, whole[side]))
            return float(2 * (a & b).sum() / (a.sum() + b.sum()))

        assert agreement(grown[side]) > agreement(plain[side]) + 0.05
        assert np.array_equal(grown[side].classes == gracilis, plain[side].classes == gracilis)
        kept = plain[side].classes > 0
        assert np.array_equal(grown[side].classes[kept], plain[side].classes[kept])


def test_a_manifest_may_name_slices(mr: Case) -> None:
    assert [leg.planes for leg in of(mr, slices="1-2 4")] == [(1, 2, 4)] * 2
    assert planes_named(row(mr, slices="0,3;4"), 5).tolist() == [True, False, False, True, True]
    for text, message in (("two", "'two' names no slices"), ("3-9", "'3-9' lies outside the scan"), ("4-2", "outside")):
        with pytest.raises(InputError, match=f"case '{mr.id}': column slices: .*{message.split(' ', 1)[-1]}"):
            of(mr, slices=text)


def test_a_single_leg_is_mirrored_by_where_it_lay() -> None:
    case = make_case(3, contrasts=(Contrast.WATER,), shape=(3, 120, 110), legs="left")
    (leg,) = of(replace(case, side=None))
    assert leg.side == "left"
    assert any("taken for a left leg by where it lay in the scanner" in note for note in leg.notes)
    across = [np.argwhere(leg.classes == FOUR.ids_of(name)[0])[:, 2].mean() for name in FOUR.names]
    assert across[FOUR.names.index("gracilis")] < across[FOUR.names.index("quadriceps femoris")]


def test_what_does_not_fit_is_left_out_and_named(mr: Case) -> None:
    small = replace(PLAN, view=ViewSpec("leg", 2.0, (32, 32)))
    for leg in of(mr, plan=small):
        assert leg.planes == ()
        assert any("is left out, being larger than the window: it needs" in note for note in leg.notes)


def test_what_cannot_be_used_is_refused_with_its_case(mr: Case, ct: Case) -> None:
    with pytest.raises(InputError, match=f"case '{mr.id}': column margin_mm: 'much' is no distance"):
        of(mr, margin_mm="much")
    with pytest.raises(InputError, match=f"case '{mr.id}'.*has no labels"):
        of(replace(mr, reference=None))
    with pytest.raises(InputError, match=f"case '{ct.id}' has no ct image, only t1w"):
        of(replace(ct, images={Contrast.T1W: replace(ct.image, contrast=Contrast.T1W)}), labelled=False)
    truth = mr.reference
    assert truth is not None
    other = LabelMap((truth.voxels > 0).astype(np.uint8), truth.grid, label_set("muscle"))
    with pytest.raises(LabelError, match=f"case '{mr.id}'.*muscle"):
        of(replace(mr, reference=other))


def test_images_come_back_from_the_disk(mr: Case, tmp_path: Path) -> None:
    legs = of(mr)
    write_images(legs, tmp_path, "source")
    found = read_images(tmp_path, "source")
    assert found.ids == legs[0].ids + legs[1].ids
    assert set(found.subjects) == {mr.subject}
    assert np.array_equal(found.images, np.concatenate([leg.images for leg in legs]))
    assert found.as_source().classes.dtype == np.uint8
    (tmp_path / "source_room.npy").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="prepared images of the source are missing or damaged"):
        read_images(tmp_path, "source")
    np.save(tmp_path / "source_room.npy", np.zeros((3, 96, 96), dtype=bool))
    with pytest.raises(FormatError, match="do not belong together"):
        read_images(tmp_path, "source")
    with pytest.raises(InputError, match="there is no image of the target"):
        write_images([], tmp_path, "target")
