"""A checkpoint for tests: a small segmenter that has learnt nothing, of any of the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.neural import networks
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import save_checkpoint
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import CT_WINDOW

#: Parameters that make each network small.
SMALL: dict[str, dict[str, Any]] = {
    "unet-256": {"width": 2, "levels": 5},
    "bayesian-unet": {"width": 2, "depth": 3},
    "unet-2.5d": {"width": 2, "levels": 2},
    "unet-2d": {"width": 2},
    "unet-3d": {"width": 2, "levels": 2},
    "dense-unet": {"width": 4, "levels": 2, "layers": 2, "growth": 4},
    "manet": {"width": 2, "decoder_width": 4},
    "segformer": {"width": 4, "depth": 1, "decoder_width": 8},
    "fcn-8s": {"width": 2},
}


def tiny_segmenter_card(network: str = "bayesian-unet", **changes: Any) -> SegmenterCard:
    """Return a card for the network."""
    labels = changes.get("label_set", label_set("thigh-11"))
    context = changes.get("context", 0)
    femur = network == "unet-2.5d"
    given: dict[str, Any] = {
        "name": f"tiny {network}",
        "network": {
            "name": network,
            "parameters": {"in_channels": 2 * context + 1, "out_channels": len(labels) + 1, **SMALL[network]},
        },
        "label_set": labels,
        "windows": {Contrast.CT: CT_WINDOW},
        "view": ViewSpec("femur", 8.0, (44, 32, 32)) if femur else ViewSpec("leg", 4.0, (64, 64)),
        "seed": 0,
        "training_subjects": ("t1", "t2"),
        "validation_subjects": ("v1",),
        "data": "nothing: its weights are as they were drawn",
        "licence": "Apache-2.0",
        "limits": ("It has learnt nothing.",),
    }
    return SegmenterCard(**{**given, **changes})


def tiny_network(card: SegmenterCard, seed: int = 0) -> torch.nn.Module:
    """Return the network of a card, its weights drawn from a seed, set to evaluate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return networks.build(card.network["name"], **card.network["parameters"]).eval()


def tiny_segmenter(path: Path, network: str = "bayesian-unet", *, seed: int = 0, **changes: Any) -> Path:
    """Write a network and its card to a file."""
    card = tiny_segmenter_card(network, **changes)
    save_checkpoint(path, tiny_network(card, seed), card)
    return path
