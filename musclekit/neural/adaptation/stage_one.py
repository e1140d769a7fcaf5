"""What the ways to learn stage 1 have in common: a schedule, first weights, and how discriminators are taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.learner import Learner
from musclekit.neural.losses import GanLoss, adversarial
from musclekit.neural.pool import ImagePool
from musclekit.neural.schedule import decay_factor
from musclekit.neural.training.running import set_rate

__all__ = ["BETAS", "JointSchedule", "StageOneLearner", "StageOneLoss", "drawn_network", "judgement"]

#: Of Adam, wherever there are discriminators.
BETAS = (0.5, 0.999)


class StageOneLoss(Protocol):
    """What the loss of any way can tell."""

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that count, by name."""


@dataclass(frozen=True)
class JointSchedule:
    """How long, how fast and in which portions.

    Parameters
    ----------
    constant, decay : int
        Epochs at the full learning rate, and those in which it falls along a line.
    batch : int
        Images of each modality in a step.
    learning_rate : float
        Of Adam.
    pool : int
        Earlier fakes that a discriminator is shown in turn with new ones.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no epoch.
    """

    constant: int = 50
    decay: int = 50
    batch: int = 4
    learning_rate: float = 2e-4
    pool: int = 50

    def __post_init__(self) -> None:
        for name, least in (("constant", 0), ("decay", 0), ("batch", 1), ("pool", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        check_number("learning_rate", self.learning_rate, above=0)
        if not self.epochs:
            raise ParameterError("constant and decay are both 0: there is no epoch to train in")

    @property
    def epochs(self) -> int:
        """How many there are."""
        return self.constant + self.decay

    def rate(self, done: float) -> float:
        """Learning rate once so many epochs are done."""
        return self.learning_rate * decay_factor(int(done), self.constant, self.decay)


class StageOneLearner(Learner):
    """Networks of stage 1: all those that learn at one rate, which follows a schedule.

    Parameters
    ----------
    modules, optimisers, pools
        As for `Learner`.
    loss : StageOneLoss
        What they learn for.
    schedule : JointSchedule
        How fast.
    """

    def __init__(
        self,
        modules: nn.ModuleDict,
        optimisers: Mapping[str, torch.optim.Optimizer],
        pools: Mapping[str, ImagePool],
        *,
        loss: StageOneLoss,
        schedule: JointSchedule,
    ) -> None:
        super().__init__(modules, optimisers, pools)
        self._weights, self.schedule = loss.weights, schedule

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each term of the loss."""
        return self._weights

    def set_rates(self, done: float, epochs: int) -> float:
        """Set the rate that the schedule gives to all the networks."""
        rate = self.schedule.rate(done)
        for optimiser in self.optimisers.values():
            set_rate(optimiser, rate)
        return rate


def drawn_network(description: Mapping[str, Any], chance: torch.Generator) -> nn.Module:
    """Build a network with first weights drawn from a generator."""
    network = networks.build(**description)
    networks.initialise(network, chance)
    return network


def judgement(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, kind: GanLoss) -> torch.Tensor:
    """Return the loss of a discriminator: half of what it makes of real images, half of what it makes of fakes."""
    return (adversarial(critic(real), True, kind) + adversarial(critic(fake), False, kind)) / 2
