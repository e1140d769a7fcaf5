"""Tiny learners, and images that take no time to make."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from musclekit.neural.adaptation.cycle import CycleLearner, JointLoss
from musclekit.neural.adaptation.slices import SourceSlices, TargetSlices, UnpairedDraw
from musclekit.neural.adaptation.stage_one import JointSchedule

SIZE = 32
GENERATOR = {"name": "resnet-generator", "width": 4, "blocks": 1}
DISCRIMINATOR = {"name": "patch-discriminator", "width": 4, "layers": 2}
SEGMENTER = {"name": "unet-2d", "in_channels": 1, "out_channels": 3, "width": 4, "levels": 3}
CPU = torch.device("cpu")


def disks(n: int, brightness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images of two muscles in a leg, and which is which."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    classes = np.zeros((n, SIZE, SIZE), dtype=np.uint8)
    images = np.full((n, SIZE, SIZE), -1.0)
    for k in range(n):
        middle = rng.uniform(-2, 2, 2)
        leg = np.hypot(y - middle[0], x - middle[1]) < 12
        images[k][leg] = -brightness
        for label, side in ((1, -5), (2, 5)):
            muscle = np.hypot(y - middle[0], x - middle[1] - side) < 4
            classes[k][muscle] = label
            images[k][muscle] = brightness * (1 if label == 1 else 0.6)
    images += rng.normal(0, 0.02, images.shape) * (images > -1)
    return images.clip(-1, 1).astype(np.float16), classes


def source(n: int = 6, seed: int = 1) -> SourceSlices:
    """Labelled images."""
    images, classes = disks(n, 0.7, seed)
    return SourceSlices(images, classes, tuple(f"mr-{k % 2}" for k in range(n)))


def target(n: int = 4, seed: int = 2) -> TargetSlices:
    """Images of another contrast, without labels."""
    images, _ = disks(n, -0.7, seed)
    return TargetSlices(images, tuple(f"ct-{k}" for k in range(n)), tuple(f"ct-{k % 2}" for k in range(n)))


def cycle_learner(loss: JointLoss | None = None, **schedule: Any) -> CycleLearner:
    """Return the learner of Yang et al., tiny."""
    return CycleLearner(
        generator=GENERATOR,
        discriminator=DISCRIMINATOR,
        segmenter=SEGMENTER,
        loss=loss or JointLoss(),
        schedule=JointSchedule(**{"constant": 2, "decay": 1, "batch": 2, "pool": 3, **schedule}),
        seed=3,
        device=CPU,
    )


DRAW = UnpairedDraw(source(), target(), 2)


def one_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return source images, their classes and target images, as a learner gets them."""
    images, classes, others = next(DRAW.epoch(np.random.default_rng(0)))
    return (
        torch.from_numpy(images.astype(np.float32)[:, None]),
        torch.from_numpy(classes.astype(np.int64)),
        torch.from_numpy(others.astype(np.float32)[:, None]),
    )
