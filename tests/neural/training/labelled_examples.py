"""A tiny plan of a segmenter, and labelled scans that take no time to make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from musclekit.anatomy import crop_frame
from musclekit.image import Contrast, Grid
from musclekit.labels import label_set
from musclekit.neural.augmentation import Augmentation
from musclekit.neural.labelled import LabelledScan, LabelledView
from musclekit.neural.training.segmenter_plan import SegmenterPlan, SegmenterSchedule
from musclekit.neural.views import ViewSpec

SIZE = 16

TINY = SegmenterPlan(
    labels=label_set("compartment"),
    contrasts=(Contrast.CT,),
    network={"name": "unet-2d", "width": 4, "levels": 2},
    view=ViewSpec("leg", 4.0, (SIZE, SIZE)),
    schedule=SegmenterSchedule(epochs=4, batch=2, learning_rate=1e-2, decay="linear"),
    augmentation=Augmentation(rotation_deg=10, scale=0.1, shift=0.1, flip=True),
    seed=5,
    sheet_every=2,
)


def tiny(**changes: Any) -> SegmenterPlan:
    """Return the tiny plan with some fields changed; those of its schedule may be named as well."""
    schedule = {name: changes.pop(name) for name in list(changes) if hasattr(TINY.schedule, name)}
    return replace(TINY, schedule=replace(TINY.schedule, **schedule), **changes)


def scan(subject: str, *, planes: int = 3, seed: int = 0, views: int = 1, classes: int = 3) -> LabelledScan:
    """Return a scan of a bone in a thigh, as many millimetres high as wide, with noise."""
    rng = np.random.default_rng(seed)
    shape = (planes, SIZE, SIZE)
    frame = crop_frame(Grid.from_spacing(shape, (4, 4, 4)), (0, 0, 0), shape)
    made = []
    for _ in range(views):
        y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 - rng.uniform(-1, 1, (2, 1, 1))
        plane = (np.hypot(y, x) < SIZE * 0.4).astype(np.uint8) + (np.hypot(y, x) < SIZE * 0.2)
        inside = np.minimum(np.repeat(plane[None], planes, axis=0), classes - 1).astype(np.uint8)
        image = np.array([-1, -0.2, 0.6])[inside] + np.where(inside > 0, rng.normal(0, 0.1, shape), 0)
        made.append(LabelledView(image.clip(-1, 1).astype(np.float16), inside, frame, None))
    return LabelledScan(f"case-{subject}", subject, Contrast.CT, tuple(made))


SCANS = (scan("a", seed=1), scan("b", seed=2, views=2))
VALIDATION = (scan("v", seed=3),)
#: As high as wide, for networks of volumes.
CUBES = (scan("a", seed=1, planes=SIZE), scan("b", seed=2, planes=SIZE))
