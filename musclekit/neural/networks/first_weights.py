"""The weights that a network begins its training with."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["initialise"]

#: Standard deviation of the weights, as in Zhu et al. (CycleGAN).
SPREAD = 0.02


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of every convolution from N(0, 0.02) and set the biases to zero, in place.

    Parameters
    ----------
    module : Module
        A network; its normalisations have nothing to be drawn.
    generator : torch.Generator
        Chance. The weights follow from its state alone, wherever and in whatever precision the network is.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            drawn = torch.empty(part.weight.shape, device=generator.device).normal_(0, SPREAD, generator=generator)
            with torch.no_grad():
                part.weight.copy_(drawn)
                if part.bias is not None:
                    part.bias.zero_()
