"""A checkpoint for tests: a generator of width 8 with 3 blocks that has learnt nothing, for slices of 64 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from musclekit.image import Contrast, Domain
from musclekit.neural import networks
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.checkpoint import save_checkpoint
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Scale

NETWORK = {"name": "resnet-generator", "parameters": {"width": 8, "blocks": 3}}

_HARD, _EASY = Domain(Contrast.T1W, "hard"), Domain(Contrast.T1W, "easy")
_MR, _CT = Domain(Contrast.T1W), Domain(Contrast.CT)
#: Direction to source and target.
DOMAINS = {
    "hard-to-easy": (_HARD, _EASY),
    "easy-to-hard": (_EASY, _HARD),
    "mr-to-ct": (_MR, _CT),
    "ct-to-mr": (_CT, _MR),
}


def tiny_generator(seed: int = 0) -> torch.nn.Module:
    """Return the network, its weights drawn from a seed."""
    network = networks.build(NETWORK["name"], **NETWORK["parameters"])
    networks.initialise(network, torch.Generator().manual_seed(seed))
    return network


def tiny_card(direction: str = "hard-to-easy", **changes: Any) -> TranslatorCard:
    """Return a card for the network."""
    source, target = DOMAINS[direction]
    windows = tuple(CT_WINDOW if domain.contrast is Contrast.CT else MR_WINDOW for domain in (source, target))
    given: dict[str, Any] = {
        "name": f"tiny {direction}",
        "network": NETWORK,
        "source": source,
        "target": target,
        "windows": windows,
        "target_scale": Scale(-200, 500) if target.contrast is Contrast.CT else Scale(0, 900),
        "spacing_mm": 3.0,
        "size": 64,
        "multiple": 4,
        "loss": {"relu": 0.5, "relu_direction": "darker"} if direction == "hard-to-easy" else {},
        "schedule": {"epochs": 0},
        "seed": 0,
        "training_subjects": (("h1", "h2"), ("e1", "e2")),
        "data": "nothing: its weights are as they were drawn",
        "licence": "Apache-2.0",
        "limits": ("It has learnt nothing.",),
    }
    return TranslatorCard(**{**given, **changes})


def tiny_checkpoint(path: Path, direction: str = "hard-to-easy", **changes: Any) -> Path:
    """Write the network and a card to a file."""
    save_checkpoint(path, tiny_generator(), tiny_card(direction, **changes))
    return path
