"""What each process does in the test of several segmenters; ``torchrun`` starts it: FOLDER."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch.distributed as dist

from musclekit.neural.checkpoint import write_tensors
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training import segmentation
from musclekit.neural.training.ranks import joined
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
    # Processes join once: torch does not get over joining again in the same process.
    with joined("cpu") as ranks, patch.object(segmentation, "joined", lambda _: nullcontext(ranks)):
        for name, plan, until in (
            ("whole", "batch norms", 2),
            ("parts", "batch norms", 1),
            ("parts", "batch norms", 2),
            ("shared", "instance norms", 2),
        ):
            folder = out / name
            trained = segmentation.train_segmenter(
                PLANS[plan], SCANS, folder, validation=VALIDATION, until=until, threads=1
            )
            dist.barrier()  # the first process may still be writing what the next training goes on from
            write_tensors(folder / f"rank_{ranks.rank}.pt", dict(trained.network.state_dict()))
