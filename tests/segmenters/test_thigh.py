"""The segmenter of any contrast round its network: sides, slices without a thigh, label sets, what it refuses."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musclekit.errors import CheckpointError, LabelError, MissingFileError, ModalityError, ParameterError
from musclekit.image import Contrast, Grid, Image
from musclekit.labels import Side, label_mapping, label_set
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import read_card
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW
from musclekit.phantom import make_case
from musclekit.segmenters.thigh import ThighSegmenter
from musclekit.segmenters.thigh_side import guessed_side
from musclekit.segmenters.thigh_trust import CONTEXT, ThighTrust
from tests.tiny_segmenter import tiny_segmenter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: Takes every slice, and none.
ALL, NONE = (
    ThighTrust(np.zeros(6), 2.0, np.array([0.0, 1]), np.array([0.0, 1])),
    ThighTrust(np.zeros(6), -2.0, np.array([0.0, 1]), np.array([0.0, 1])),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thigh")
    for name, trust in (("all", ALL), ("none", NONE)):
        path = tiny_segmenter(
            folder / f"{name}.pt",
            "unet-2d",
            label_set=CONTEXT,
            windows={Contrast.CT: CT_WINDOW, Contrast.FAT: MR_WINDOW},
        )
        trust.save(folder / f"{name}.trust.json", read_card(path, SegmenterCard).weights_sha256)
    return folder


@pytest.fixture(scope="module")
def both() -> Image:
    return make_case(3, contrasts=(Contrast.CT,), shape=(4, 96, 128)).image


def method(folder: Path, name: str = "all", **settings: object) -> ThighSegmenter:
    return ThighSegmenter(checkpoint=folder / f"{name}.pt", **settings)  # type: ignore[arg-type]


def test_each_leg_has_labels_of_its_side(folder: Path, both: Image) -> None:
    found = method(folder).assess(both)
    assert found.labels.label_set.name == "thigh-context-sided"
    assert found.accepted.all()
    x = both.grid.world(np.argwhere(np.ones(both.grid.shape, dtype=bool)))[:, 0].reshape(both.grid.shape)
    odd = found.labels.voxels % 2 == 1
    assert x[odd].max() < x[(found.labels.voxels > 0) & ~odd].min() + 60
    assert x[odd].mean() < 0 < x[(found.labels.voxels > 0) & ~odd].mean()
    assert set(found.confidence) == {f"{CONTEXT[n].name} {side}" for n in range(1, 12) for side in ("left", "right")}


def test_a_slice_that_shows_no_thigh_has_no_labels(folder: Path, both: Image) -> None:
    found = method(folder, "none").assess(both)
    assert not found.accepted.any()
    assert not found.labels.voxels.any()
    assert np.isnan(list(found.confidence.values())).all()
    assert found.notes == (
        "no slice looks like a thigh: nothing is labelled (the method 'tissue' takes any slice of a limb)",
    )
    with pytest.warns(UserWarning, match="no slice looks like a thigh"):
        method(folder, "none").segment(both)
    with pytest.warns(UserWarning, match="no slice looks like a thigh"):
        nothing = method(folder, "none", labels="muscle").probabilities(both)
    assert nothing.voxels[0].min() == 1


@pytest.mark.parametrize(
    "name", ["muscle", "functional-3", "thigh-4", "huashan-11", "thigh-full-sided", "thigh-11-sided"]
)
def test_labels_come_in_any_set_that_is_led_to(folder: Path, both: Image, name: str) -> None:
    full = method(folder).segment(both)
    found = method(folder, labels=name).segment(both)
    assert found.label_set.name == name
    assert np.array_equal(found.voxels, full.mapped(label_mapping(full.label_set, found.label_set)).voxels)
    share = method(folder, labels=name).probabilities(both)
    own = method(folder).probabilities(both)
    for n, label in enumerate(found.label_set, start=1):
        parts = [
            channel
            for channel, part in enumerate(own.label_set, start=1)
            if label_mapping(own.label_set, found.label_set).ids.get(part.id) == label.id
        ]
        assert np.allclose(share.voxels[n], own.voxels[parts].sum(axis=0), atol=2e-3)
    if name == "muscle":
        assert np.array_equal(found.voxels > 0, full.mask(*(CONTEXT[n].name for n in (*range(1, 12), 15))))


def test_a_set_that_is_not_led_to_is_refused(folder: Path, both: Image) -> None:
    with pytest.raises(LabelError, match="no map from 'thigh-context' to 'hip-thigh-22'"):
        method(folder, labels="hip-thigh-22").segment(both)


def test_the_side_of_a_single_leg_is_the_one_that_looks_right(folder: Path) -> None:
    # A crop round one leg: nothing of the other one is in view, and nobody knows where it lay.
    leg = make_case(3, contrasts=(Contrast.CT,), shape=(4, 96, 96), legs="right").image
    image = replace(leg, grid=Grid.from_spacing(leg.grid.shape, leg.grid.spacing))
    unknown = method(folder).assess(image)
    assert any("does not tell the side of the leg" in note for note in unknown.notes)
    side = "left" if (unknown.labels.voxels % 2 == 1).any() else "right"
    told = method(folder, side=side).assess(image)
    assert np.array_equal(told.labels.voxels, unknown.labels.voxels)
    assert not any("does not tell" in note for note in told.notes)
    assert unknown.sides == (side,)
    # Mirrored, it is the other one.
    mirrored = method(folder).assess(image.with_voxels(image.voxels[:, :, ::-1]))
    other = "left" if (mirrored.labels.voxels % 2 == 1).any() else "right"
    assert {side, other} == {"left", "right"}


def test_a_single_leg_is_that_of_the_side_on_which_it_lay(folder: Path) -> None:
    image = make_case(3, contrasts=(Contrast.CT,), shape=(4, 96, 96), legs="right").image
    found = method(folder).assess(image)
    assert found.sides == ("right",)
    assert any("it lay on the right" in note for note in found.notes)
    affine = image.grid.affine.copy()
    affine[0, 3] -= 2 * image.grid.world((0, 48, 48))[0]
    moved = method(folder).assess(replace(image, grid=Grid(image.grid.shape, affine)))
    assert moved.sides == ("left",)
    assert any("it lay on the left" in note for note in moved.notes)


@pytest.mark.parametrize(
    ("leaning", "placed", "side", "note"),
    [
        (0.05, None, "right", "looks like a right one$"),
        (-0.05, None, "left", "looks like a left one$"),
        (-0.01, None, "left", r"looks like a left one, but not by much: say which it is \(side\)"),
        (0.01, "right", "right", "it lay on the right and looks like a right one"),
        (-0.03, "right", "right", "it lay on the right, but looks like a left one, and is taken for a right one: say"),
        (-0.13, "right", "left", "it lay on the right, but looks like a left one, and is taken for a left one: say"),
    ],
)
def test_where_a_leg_lay_goes_before_what_it_looks_like(
    leaning: float, placed: Side | None, side: Side, note: str
) -> None:
    guess = guessed_side(leaning, placed)
    assert guess.side == side
    assert re.search(note, guess.note)


def test_other_networks_are_refused(folder: Path, both: Image, tmp_path: Path) -> None:
    tiny_segmenter(tmp_path / "eleven.pt", "unet-2d")
    with pytest.raises(
        CheckpointError, match="takes a network that labels single legs in 'thigh-context'; this one labels 'thigh-11'"
    ):
        ThighSegmenter(checkpoint=tmp_path / "eleven.pt").segment(both)
    tiny_segmenter(tmp_path / "bare.pt", "unet-2d", label_set=label_set("thigh-context"))
    with pytest.raises(MissingFileError, match=r"bare\.trust\.json: no such file"):
        ThighSegmenter(checkpoint=tmp_path / "bare.pt").segment(both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"features"', "it does not say which of the network's answers can be trusted"),
        ("{}", "it does not say which"),
        ("[]", "it does not say which"),
    ],
)
def test_a_damaged_file_beside_the_weights_is_refused(
    folder: Path, both: Image, tmp_path: Path, content: str, message: str
) -> None:
    shutil.copy(folder / "all.pt", tmp_path / "all.pt")
    (tmp_path / "all.trust.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        method(tmp_path).segment(both)


def test_what_was_learnt_of_another_network_is_refused(folder: Path, both: Image, tmp_path: Path) -> None:
    shutil.copy(folder / "all.pt", tmp_path / "all.pt")
    ALL.save(tmp_path / "all.trust.json", "0" * 64)
    with pytest.raises(CheckpointError, match="learnt of the answers of another network than the one beside it"):
        method(tmp_path).segment(both)


def test_contrasts_of_the_checkpoint_and_sides_are_checked(folder: Path, both: Image) -> None:
    with pytest.raises(ModalityError, match="t1w"):
        method(folder).segment(Image(both.voxels - both.voxels.min(), both.grid, Contrast.T1W))
    with pytest.raises(ParameterError, match="side is 'left' or 'right', not 'Left'"):
        method(folder, side="Left").segment(both)


def test_a_muscle_without_a_voxel_has_no_confidence_and_is_named(folder: Path, both: Image) -> None:
    found = method(folder).assess(both)
    there = {f"{CONTEXT[n].name} {side}" for n in range(1, 12) for side in ("left", "right")
             if (found.labels.voxels == CONTEXT.sided_ids[n][("left", "right").index(side)]).any()}  # fmt: skip
    assert there == {name for name, value in found.confidence.items() if np.isfinite(value)}
    missing = sorted(set(found.confidence) - there)
    assert bool(missing) == any(note.startswith("not found: ") for note in found.notes)
    assert all(name in " ".join(found.notes) for name in missing)
