"""Dropout that can be asked for samples: Monte Carlo dropout.

From Gal and Ghahramani, Dropout as a Bayesian approximation (2016), as Hiasa et al. (Bayesian U-Net) use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.errors import ParameterError

__all__ = ["MonteCarloDropout", "can_be_sampled", "sampled"]


class MonteCarloDropout(nn.Module):
    """Ordinary dropout in training, nothing in evaluation, and one fixed draw inside `sampled`.

    Parameters
    ----------
    p : float
        Share of the activations that are dropped.

    Raises
    ------
    ParameterError
        If it is no share.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_number("dropout", p, least=0, most=0.99)
        self.p = p
        self.seed: int | None = None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Drop some of the activations.

        Parameters
        ----------
        features : Tensor, shape (n, channels, ...)
            Of any size.

        Returns
        -------
        Tensor
            In the same shape; what is kept is scaled by 1 / (1 - p).
        """
        if self.seed is None:
            return functional.dropout(features, self.p, self.training)
        drawn = _kept(self.seed, tuple(features.shape[1:]), self.p)
        # Laid out as the features are: two orders in one product take twice as long.
        kept = torch.empty_like(features[:1]).copy_(drawn)
        return features * kept.mul_(1 / (1 - self.p))


def _kept(seed: int, shape: tuple[int, ...], p: float) -> torch.Tensor:
    """Draw what is kept, 1 or 0: by NumPy, the same on every machine and device, and many times as fast as by torch.

    Two bytes an activation: p is met to a 65536th.
    """
    bits = np.frombuffer(np.random.Generator(np.random.PCG64(seed)).bytes(2 * math.prod(shape)), dtype="<u2")
    return torch.from_numpy((bits >= round(p * 2**16)).reshape(1, *shape))


def can_be_sampled(network: nn.Module) -> bool:
    """Whether a network has dropout to sample."""
    return any(isinstance(part, MonteCarloDropout) and part.p > 0 for part in network.modules())


@contextmanager
def sampled(network: nn.Module, seed: int) -> Iterator[None]:
    """Make a network one sample of itself.

    Parameters
    ----------
    network : Module
        In evaluation: batch norms and the like stay as they are.
    seed : int
        What is dropped follows from it alone.

    Raises
    ------
    ParameterError
        If the network has no dropout.

    Notes
    -----
    The same activations are dropped in every image of a batch and in every batch: a sample is one network, and what it
    says of the slices of a scan belongs together. Drawn anew for each slice, as in the code of Hiasa et al., errors of
    neighbouring slices would cancel out in a volume, and its interval would be too narrow; the variance of a single
    pixel is the same either way.
    """
    parts = [part for part in network.modules() if isinstance(part, MonteCarloDropout) and part.p > 0]
    if not parts:
        raise ParameterError("the network has no dropout: there is nothing to sample")
    seeds = np.random.SeedSequence(seed).generate_state(len(parts), dtype=np.uint64)
    try:
        for part, own in zip(parts, seeds.tolist(), strict=True):
            part.seed = int(own) >> 1
        yield
    finally:
        for part in parts:
            part.seed = None
