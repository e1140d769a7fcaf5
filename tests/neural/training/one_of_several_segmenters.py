"""What each process does in the test of several segmenters; ``torchrun`` starts it: FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from musclekit.neural.checkpoint import write_tensors
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training.segmentation import train_segmenter
from tests.neural.training.labelled_examples import SCANS, TINY, VALIDATION, tiny

PLANS = {
    "batch norms": TINY,
    # Instance norms and cross-entropies of samples of one size do not see how a batch is shared.
    "instance norms": tiny(
        network={"name": "unet-2d", "width": 4, "levels": 2, "norm": "instance"}, loss=SegmentationLoss(dice=0)
    ),
}

if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name, plan, until in (
        ("whole", "batch norms", 2),
        ("parts", "batch norms", 1),
        ("parts", "batch norms", 2),
        ("shared", "instance norms", 2),
    ):
        folder = out / name
        trained = train_segmenter(PLANS[plan], SCANS, folder, validation=VALIDATION, until=until, threads=1)
        write_tensors(folder / f"rank_{os.environ['RANK']}.pt", dict(trained.network.state_dict()))
