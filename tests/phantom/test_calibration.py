"""The figures that the generator was calibrated to, before it was frozen. See docs/phantom.md for the whole table."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from musclekit.image import Contrast
from musclekit.phantom import GENERATOR_VERSION, Grade, Phantom, make_thigh, render
from musclekit.segmenters.mixture import fit_mixture, posteriors

#: Sum of the first phantom's voxels for each version of the generator. When this changes, so must the version, and every
#: published table is void.
FROZEN = {"1": ""}


def median_dice(phantom: Phantom, contrast: Contrast) -> float:
    """Median over slices of the literal three-component mixture against muscle with its infiltration."""
    image = render(phantom, contrast).voxels
    scores = []
    for k, plane in enumerate(image):
        body = phantom.anatomy.structure[k] > 0
        found = (posteriors(fit_mixture(plane, body), plane).argmax(axis=0) == 1) & body
        muscle = phantom.anatomy.is_muscle[k]
        scores.append(2 * (found & muscle).sum() / (found.sum() + muscle.sum()))
    return float(np.median(scores))


def cohort(grade: Grade) -> list[Phantom]:
    return [make_thigh(seed, shape=(4, 192, 192), spacing=(40, 2, 2), thickness_mm=8, grade=grade) for seed in range(5)]


def test_the_literal_mixture_finds_healthy_muscle() -> None:
    assert np.median([median_dice(phantom, Contrast.T1W) for phantom in cohort("healthy")]) >= 0.85


@pytest.mark.parametrize("contrast", [Contrast.T1W, Contrast.FAT])
def test_the_literal_mixture_breaks_down_on_severe_infiltration(contrast: Contrast) -> None:
    assert 0.40 <= np.median([median_dice(phantom, contrast) for phantom in cohort("severe")]) <= 0.67


def test_the_generator_is_frozen() -> None:
    phantom = make_thigh(0, shape=(2, 48, 48), grade="severe")
    # Rounded: libraries differ in the last bits.
    parts = (phantom.anatomy.structure, np.round(render(phantom, Contrast.CT).voxels / 16).astype(np.int16))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:12]
    assert FROZEN[GENERATOR_VERSION] == digest, "the same seed gives other voxels: raise GENERATOR_VERSION"
