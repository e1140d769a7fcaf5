"""Where the fat in muscle lies, and how much of it there is."""

from __future__ import annotations

import numpy as np
import pytest

from musclekit.errors import ParameterError
from musclekit.image import Grid
from musclekit.phantom import (
    GRADES,
    MUSCLES,
    Anatomy,
    Texture,
    Tissue,
    draw_fat_shares,
    infiltrate,
    make_thigh,
    smooth_noise,
)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return make_thigh(3, shape=(4, 110, 110), legs="right").anatomy


def shares_of(value: float) -> dict:
    return {side: dict.fromkeys(MUSCLES, value) for side in ("left", "right")}


def correlation(field: np.ndarray, inside: np.ndarray, shift: int) -> float:
    """Correlation of pairs of voxels that lie some columns apart, both inside."""
    one, two = field[:, :, :-shift], field[:, :, shift:]
    both = inside[:, :, :-shift] & inside[:, :, shift:]
    return float(np.corrcoef(one[both], two[both])[0, 1])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6, 0.9])
def test_each_muscle_holds_the_share_asked_for(anatomy: Anatomy, share: float) -> None:
    fat = infiltrate(anatomy, shares_of(share), np.random.default_rng(1))
    for muscle in range(1, 12):
        inside = anatomy.structure == muscle
        assert fat[inside].mean() == pytest.approx(share, abs=2e-3)
    assert fat.min() >= 0
    assert fat.max() <= 1
    elsewhere = (anatomy.fractions[Tissue.MUSCLE] == 0) & ~anatomy.is_muscle
    assert (fat[elsewhere] == 0).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(anatomy: Anatomy, share: float) -> None:
    fat = infiltrate(anatomy, shares_of(share), np.random.default_rng(1))
    assert (fat[anatomy.is_muscle] == share).all()


def test_muscles_differ(anatomy: Anatomy) -> None:
    shares = shares_of(0.1)
    shares["right"]["sartorius"] = 0.7
    fat = infiltrate(anatomy, shares, np.random.default_rng(1))
    assert fat[anatomy.structure == 1].mean() == pytest.approx(0.7, abs=2e-3)
    assert fat[anatomy.structure == 2].mean() == pytest.approx(0.1, abs=2e-3)


def test_fat_comes_from_the_septa_inwards(anatomy: Anatomy) -> None:
    from scipy.ndimage import distance_transform_edt

    fat = infiltrate(anatomy, shares_of(0.3), np.random.default_rng(2))
    plane = anatomy.structure[2]
    depth = distance_transform_edt(plane == 3, sampling=anatomy.grid.spacing[1:])
    rim, core = (depth > 0) & (depth < 4), depth > 9
    assert fat[2][rim].mean() > 1.15 * fat[2][core].mean()
    none = infiltrate(anatomy, shares_of(0.3), np.random.default_rng(2), Texture(border=0.0))
    assert none[2][rim].mean() / none[2][core].mean() < fat[2][rim].mean() / fat[2][core].mean()


def test_coarser_mottling_has_a_coarser_grain(anatomy: Anatomy) -> None:
    fine, coarse = (
        infiltrate(anatomy, shares_of(0.4), np.random.default_rng(2), Texture(mottle_mm=scale, streaks=0, grain=0))
        for scale in (3.0, 12.0)
    )
    assert correlation(coarse, anatomy.is_muscle, 3) > correlation(fine, anatomy.is_muscle, 3) + 0.1


def test_the_same_chance_gives_the_same_fat(anatomy: Anatomy) -> None:
    one, two = (infiltrate(anatomy, shares_of(0.3), np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, two)


def test_an_impossible_share(anatomy: Anatomy) -> None:
    with pytest.raises(ParameterError, match=r"a share of fat lies between 0 and 1, not 1\.2 \(sartorius\)"):
        infiltrate(anatomy, shares_of(1.2), np.random.default_rng(0))


def test_grades_rise() -> None:
    means = [
        np.mean([list(draw_fat_shares(np.random.default_rng(seed), grade).values()) for seed in range(20)])
        for grade in GRADES
    ]
    assert means == sorted(means)
    assert means[0] < 0.05
    assert means[-1] > 0.5
    with pytest.raises(ParameterError, match="grade is one of"):
        draw_fat_shares(np.random.default_rng(0), "extreme")


def test_spared_muscles() -> None:
    shares = [draw_fat_shares(np.random.default_rng(seed), "severe") for seed in range(20)]
    assert np.mean([s["gracilis"] for s in shares]) < np.mean([s["semimembranosus"] for s in shares]) - 0.2


def test_noise_is_standard_and_as_smooth_as_asked() -> None:
    grid = Grid.from_spacing((6, 160, 160), (5, 1, 1))
    noise = smooth_noise(np.random.default_rng(0), grid, 3.0, 20.0)
    assert noise.dtype == np.float32
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-4)
    # White noise through a Gaussian of deviation s has the autocorrelation exp(-d^2 / 4 s^2).
    inside = np.ones(grid.shape, dtype=bool)
    assert correlation(noise, inside, 3) == pytest.approx(np.exp(-9 / 36), abs=0.08)
    assert correlation(noise, inside, 6) == pytest.approx(np.exp(-36 / 36), abs=0.12)
    along = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert along == pytest.approx(np.exp(-5 / 20), abs=0.1)


def test_noise_drawn_on_fewer_points_is_as_smooth() -> None:
    grid = Grid.from_spacing((1, 240, 240), (5, 1, 1))
    noise = smooth_noise(np.random.default_rng(0), grid, 10.0, 20.0)
    assert correlation(noise, np.ones(grid.shape, dtype=bool), 10) == pytest.approx(np.exp(-100 / 400), abs=0.12)


def test_noise_on_one_voxel() -> None:
    assert smooth_noise(np.random.default_rng(0), Grid.from_spacing((1, 1, 1), (1, 1, 1)), 1.0, 1.0).shape == (1, 1, 1)
