"""Grey values of the tissues, and what a scanner adds to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musclekit.checks import check_voxels
from musclekit.errors import ModalityError, ParameterError
from musclekit.image import Contrast
from musclekit.phantom import (
    APPEARANCE,
    IDEAL,
    Anatomy,
    Phantom,
    Scanner,
    Tissue,
    acquire,
    default_scanner,
    make_thigh,
    proton_fat_fraction,
    render,
    signal,
)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_thigh(2, shape=(4, 128, 128), grade="moderate")


@pytest.fixture(scope="module")
def pure(phantom: Phantom) -> np.ndarray:
    """Tissue of the voxels that hold one alone, -1 elsewhere."""
    fractions = phantom.anatomy.fractions
    return np.where(fractions.max(axis=0) == 1, fractions.argmax(axis=0), -1)


@pytest.mark.parametrize("contrast", [c for c in Contrast if c is not Contrast.MR])
def test_pure_voxels_show_the_tissue(phantom: Phantom, pure: np.ndarray, contrast: Contrast) -> None:
    image = render(phantom, contrast, scanner=IDEAL)
    values = APPEARANCE[contrast].by_tissue()
    for tissue in (Tissue.AIR, Tissue.CORTICAL_BONE, Tissue.MARROW, Tissue.SUBCUTANEOUS_FAT):
        here = pure == tissue
        assert here.any()
        assert image.voxels[here] == pytest.approx(values[tissue], abs=1e-2), tissue.name


def test_muscle_lies_on_the_line_from_muscle_to_fat(phantom: Phantom, pure: np.ndarray) -> None:
    image = render(phantom, Contrast.CT, scanner=IDEAL)
    here = pure == Tissue.MUSCLE
    look = APPEARANCE[Contrast.CT]
    share = phantom.muscle_fat[here]
    assert image.voxels[here] == pytest.approx(look.muscle + share * (look.infiltrating_fat - look.muscle), abs=1e-2)


def test_partial_volume_is_the_weighted_mean(phantom: Phantom) -> None:
    fractions = phantom.anatomy.fractions
    edge = (fractions[Tissue.AIR] > 0.2) & (fractions[Tissue.AIR] < 0.8)
    assert edge.any()
    image = render(phantom, Contrast.CT, scanner=IDEAL)
    by_hand = np.tensordot(APPEARANCE[Contrast.CT].by_tissue(), fractions, axes=1)
    assert image.voxels[edge] == pytest.approx(by_hand[edge], abs=1e-2)


def test_dixon_gives_the_fat_fraction(phantom: Phantom) -> None:
    fat = render(phantom, Contrast.FAT, scanner=IDEAL).voxels
    water = render(phantom, Contrast.WATER, scanner=IDEAL).voxels
    body = fat + water > 10
    assert fat[body] / (fat[body] + water[body]) == pytest.approx(phantom.fat_fraction[body], abs=1e-4)
    assert phantom.fat_fraction.min() >= 0
    assert phantom.fat_fraction.max() <= 1
    assert (phantom.fat_fraction[phantom.anatomy.fractions[Tissue.AIR] == 1] == 0).all()


def test_fat_fraction_of_pure_muscle_follows_its_fat(phantom: Phantom, pure: np.ndarray) -> None:
    here = pure == Tissue.MUSCLE
    share = phantom.muscle_fat[here]
    fat, water = 0.05 + 0.90 * share, 0.80 - 0.58 * share
    assert phantom.fat_fraction[here] == pytest.approx(fat / (fat + water), abs=1e-3)


def test_hounsfield_units(phantom: Phantom, pure: np.ndarray) -> None:
    image = render(make_thigh(2, shape=(4, 128, 128)), Contrast.CT)
    anatomy = make_thigh(2, shape=(4, 128, 128)).anatomy
    check_voxels(image)
    medians = {
        tissue: float(np.median(image.voxels[anatomy.fractions[tissue] == 1]))
        for tissue in (Tissue.AIR, Tissue.MUSCLE, Tissue.CORTICAL_BONE, Tissue.MARROW, Tissue.SUBCUTANEOUS_FAT)
    }
    assert -1010 < medians[Tissue.AIR] < -990
    assert 45 < medians[Tissue.MUSCLE] < 60
    assert medians[Tissue.CORTICAL_BONE] > 1000
    assert -100 < medians[Tissue.MARROW] < 20
    assert -115 < medians[Tissue.SUBCUTANEOUS_FAT] < -90
    assert image.voxels.min() >= -1024


def test_ct_noise_has_the_deviation_asked_for_and_is_smooth(phantom: Phantom) -> None:
    ideal = render(phantom, Contrast.CT, scanner=IDEAL).voxels
    noisy = render(phantom, Contrast.CT, scanner=Scanner(noise=14, noise_grain_mm=4)).voxels
    inside = phantom.anatomy.fractions[Tissue.AIR] == 0
    noise = (noisy - ideal)[inside]
    assert noise.std() == pytest.approx(14, rel=0.1)
    assert noise.mean() == pytest.approx(0, abs=2)
    field = noisy - ideal
    both = inside[:, :, 1:] & inside[:, :, :-1]
    assert np.corrcoef(field[:, :, 1:][both], field[:, :, :-1][both])[0, 1] > 0.6


def test_streaks_lie_in_the_rows_of_bone_and_run_sideways(phantom: Phantom) -> None:
    ideal = render(phantom, Contrast.CT, scanner=IDEAL).voxels
    streaks = render(phantom, Contrast.CT, scanner=Scanner(streaks=20)).voxels - ideal
    bone = phantom.anatomy.fractions[Tissue.CORTICAL_BONE].sum(axis=2)
    inside = phantom.anatomy.fractions[Tissue.AIR] == 0
    assert streaks[(bone > 0.5 * bone.max())[:, :, None] & inside].std() > 5
    assert np.abs(streaks[(bone == 0)[:, :, None] & inside]).max() == pytest.approx(0, abs=1e-3)
    across = np.abs(np.diff(streaks, axis=1)).mean()
    along = np.abs(np.diff(streaks, axis=2)).mean()
    assert along < 0.3 * across


def test_magnitude_noise_is_rician(phantom: Phantom) -> None:
    image = render(phantom, Contrast.T1W, scanner=Scanner(noise=20))
    air = image.voxels[phantom.anatomy.fractions[Tissue.AIR] == 1]
    # Without signal it follows Rayleigh: mean s sqrt(pi / 2), second moment 2 s^2.
    assert air.mean() == pytest.approx(20 * np.sqrt(np.pi / 2), rel=0.02)
    assert (air**2).mean() == pytest.approx(2 * 20**2, rel=0.03)
    fat = phantom.anatomy.fractions[Tissue.SUBCUTANEOUS_FAT] == 1
    assert image.voxels[fat].std() == pytest.approx(20, rel=0.05)
    assert image.voxels.min() >= 0


def test_bias_is_smooth_and_as_strong_as_asked(phantom: Phantom) -> None:
    ideal = render(phantom, Contrast.T1W, scanner=IDEAL).voxels
    biased = render(phantom, Contrast.T1W, scanner=Scanner(bias=0.3)).voxels
    inside = ideal > 100
    gain = np.log(biased[inside] / ideal[inside])
    assert 0.1 < gain.std() < 0.6
    field = np.where(inside, np.log(np.maximum(biased, 1) / np.maximum(ideal, 1)), np.nan)
    assert np.nanmax(np.abs(np.diff(field, axis=2))) < 0.1


def test_shading_dims_the_middle(phantom: Phantom) -> None:
    ideal = render(phantom, Contrast.T1W, scanner=IDEAL).voxels
    shaded = render(phantom, Contrast.T1W, scanner=Scanner(shading=0.4)).voxels
    inside = ideal > 100
    ratio = np.where(inside, shaded / np.maximum(ideal, 1), np.nan)
    assert np.nanmin(ratio) < 0.75
    assert np.nanmax(ratio) <= 1
    outermost = inside & (np.arange(inside.shape[2]) == np.flatnonzero(inside.any(axis=(0, 1)))[0])
    assert ratio[outermost].mean() > np.nanmin(ratio) + 0.1


def test_couch_and_calibration_phantom_lie_under_the_legs(phantom: Phantom) -> None:
    plain = render(phantom, Contrast.CT, scanner=IDEAL)
    with_both = render(phantom, Contrast.CT, scanner=Scanner(table=True, calibration=True))
    body = phantom.anatomy.fractions[Tissue.AIR] == 0
    assert np.array_equal(plain.voxels[body], with_both.voxels[body]), "the legs are untouched"
    added = with_both.voxels > plain.voxels + 50
    y = plain.grid.world(np.argwhere(added))[:, 1]
    legs = plain.grid.world(np.argwhere(body))[:, 1]
    assert y.max() < np.median(legs)
    assert with_both.voxels[added].max() > 200, "the densest rod"
    slab = render(phantom, Contrast.CT, scanner=Scanner(calibration=True)).voxels
    assert np.count_nonzero(slab > plain.voxels + 900) < np.count_nonzero(added)
    assert np.array_equal(plain.voxels, render(phantom, Contrast.CT, scanner=Scanner(table=False)).voxels), (
        "only on request"
    )


def test_contrasts_differ_in_noise_and_agree_with_themselves(phantom: Phantom) -> None:
    one, two = (render(phantom, Contrast.FAT).voxels for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, render(phantom, Contrast.FAT, seed=99).voxels)
    fat = one - render(phantom, Contrast.FAT, scanner=replace(default_scanner(Contrast.FAT), noise=0)).voxels
    water = render(phantom, Contrast.WATER)
    quiet = render(phantom, Contrast.WATER, scanner=replace(default_scanner(Contrast.WATER), noise=0))
    # Where both are well above the noise, which is then normal.
    bright = (one > 200) & (water.voxels > 200)
    assert abs(np.corrcoef(fat[bright], (water.voxels - quiet.voxels)[bright])[0, 1]) < 0.15


def test_fat_and_water_share_their_bias(phantom: Phantom) -> None:
    scanner = Scanner(bias=0.3, shading=0.2)
    fat, water = (render(phantom, c, scanner=scanner).voxels for c in (Contrast.FAT, Contrast.WATER))
    body = fat + water > 50
    assert fat[body] / (fat + water)[body] == pytest.approx(phantom.fat_fraction[body], abs=1e-3)
    assert not np.allclose(fat, render(phantom, Contrast.FAT, scanner=IDEAL).voxels)


def test_a_made_up_appearance(phantom: Phantom) -> None:
    flat = replace(APPEARANCE[Contrast.T1W], muscle=500, infiltrating_fat=500)
    grey = signal(phantom.anatomy, phantom.muscle_fat, flat)
    assert grey[phantom.anatomy.fractions[Tissue.MUSCLE] == 1] == pytest.approx(500)


def test_what_cannot_be_scanned(phantom: Phantom) -> None:
    with pytest.raises(ModalityError, match="a phantom can be scanned as ct, fat, stir, t1w, t2w, water; not as mr"):
        render(phantom, Contrast.MR)
    with pytest.raises(ParameterError, match="not negative"):
        render(phantom, Contrast.T1W, scanner=Scanner(noise=-1))
    with pytest.raises(ParameterError, match="shading lies below 1"):
        render(phantom, Contrast.T1W, scanner=Scanner(shading=1.5))


def test_an_anatomy_is_left_as_it_was(phantom: Phantom) -> None:
    before = phantom.anatomy.fractions.copy()
    acquire(
        phantom.anatomy,
        phantom.muscle_fat,
        Contrast.CT,
        np.random.default_rng(0),
        scanner=Scanner(noise=10, streaks=5, table=True, calibration=True),
    )
    assert np.array_equal(before, phantom.anatomy.fractions)


def test_no_protons_no_fat_fraction() -> None:
    phantom = make_thigh(1, shape=(1, 40, 40))
    nothing = Anatomy(
        phantom.grid,
        np.zeros_like(phantom.anatomy.structure),
        np.stack([np.ones(phantom.grid.shape, np.float32), *np.zeros((8, *phantom.grid.shape), np.float32)]),
        phantom.anatomy.sides,
    )
    assert (proton_fat_fraction(nothing, phantom.muscle_fat) == 0).all()
