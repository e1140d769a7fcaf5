"""A tiny plan, and slices that take no time to make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from musclekit.image import Contrast
from musclekit.neural.objectives import TranslationLoss
from musclekit.neural.slices import DomainSlices, SliceSpec
from musclekit.neural.training.plan import DomainPlan, Schedule, TrainPlan
from musclekit.neural.windows import Scale

SIZE = 32

TINY = TrainPlan(
    source=DomainPlan(Contrast.T1W, "hard"),
    target=DomainPlan(Contrast.T1W, "easy"),
    slices=SliceSpec(SIZE, 4.0),
    generator={"name": "resnet-generator", "width": 4, "blocks": 1},
    discriminator={"name": "patch-discriminator", "width": 4, "layers": 2},
    loss=TranslationLoss(),
    schedule=Schedule(constant=2, decay=2, batch=2, pool=3),
    seed=5,
    sheet_every=2,
)


def tiny(**changes: Any) -> TrainPlan:
    """Return the tiny plan with some fields changed; those of its schedule may be named as well."""
    schedule = {name: changes.pop(name) for name in list(changes) if hasattr(TINY.schedule, name)}
    return replace(TINY, schedule=replace(TINY.schedule, **schedule), **changes)


def slices(n: int, muscle: float, seed: int, *, subjects: int = 2) -> DomainSlices:
    """Return slices of a disk on air, noisy, of a given brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    planes = np.where(y**2 + x**2 < (SIZE // 3) ** 2, muscle + rng.normal(0, 0.1, (n, SIZE, SIZE)), -1)
    return DomainSlices(
        planes.clip(-1, 1).astype(np.float32),
        tuple(f"s{seed}{k * subjects // n}" for k in range(n)),
        Scale(0, 100 * (seed + 1)),
        Contrast.T1W,
        SliceSpec(SIZE, 4.0),
        0,
        0,
        0,
    )


SOURCE, TARGET = slices(6, 0.6, 1), slices(4, 0.1, 2)
