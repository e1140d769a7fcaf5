"""What a translator is trained for, as data: which terms count, how much, and what they mean.

The losses of Gadermayr et al. (hard to easy, G of w_r and w_i) and of Yang et al. (MR to CT) are two values of one
description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural.losses import Direction, GanLoss, adversarial, cycle, edge, monotone

__all__ = ["MR_TO_CT_LOSS", "IdentityOn", "TranslationLoss", "generator_terms", "hard_to_easy_loss"]

IdentityOn = Literal["target", "input"]
Network = Callable[[torch.Tensor], torch.Tensor]

TERMS = ("gan", "cycle", "identity", "relu", "edge")


@dataclass(frozen=True)
class TranslationLoss:
    """The loss of the two generators, there and back. A term of weight 0 is not computed.

    Parameters
    ----------
    gan : float
        Weight of looking real to the discriminators.
    cycle : float
        Weight of coming back to the image one began with.
    identity : float
        Weight of leaving images as they are.
    relu : float
        Weight of moving grey values in one direction only.
    edge : float
        Weight of keeping edges.
    identity_on : {"target", "input"}
        What is to be left as it is: images that are of the target already (Zhu et al., Gadermayr et al.), or every
        input (as printed by Yang et al.).
    relu_direction : {"darker", "brighter"}
        Where grey values may move from source to target; on the way back it is the other one.
    gan_kind : {"lsgan", "vanilla"}
        See `musclekit.neural.losses.adversarial`.

    Raises
    ------
    ParameterError
        If a weight is negative, all are 0, or a choice does not exist.

    Notes
    -----
    The defaults are those of Gadermayr et al. They weigh the cycle by 1, as printed; Zhu et al., whom they cite for it,
    weigh it by 10, which is the first thing to try when a training is unstable. The weight of the identity is not
    multiplied by that of the cycle, as it is in the code of Zhu et al.
    """

    gan: float = 1.0
    cycle: float = 1.0
    identity: float = 1.0
    relu: float = 0.5
    edge: float = 0.0
    identity_on: IdentityOn = "target"
    relu_direction: Direction = "darker"
    gan_kind: GanLoss = "lsgan"

    def __post_init__(self) -> None:
        for name in TERMS:
            check_number(name, getattr(self, name), least=0)
        if not self.weights:
            raise ParameterError(f"every weight of the loss is 0 ({', '.join(TERMS)}): there is nothing to train for")
        for name, known in (("identity_on", IdentityOn), ("relu_direction", Direction), ("gan_kind", GanLoss)):
            if getattr(self, name) not in get_args(known):
                raise ParameterError(f"{name} is one of {', '.join(get_args(known))}, not '{getattr(self, name)}'")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that count, by name."""
        return {name: float(getattr(self, name)) for name in TERMS if getattr(self, name)}

    def total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of what `generator_terms` returned."""
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()


def hard_to_easy_loss(relu: float = 0.5, identity: float = 1.0) -> TranslationLoss:
    """Return the loss that Gadermayr et al. call G with the indices w_r and w_i; their best is G(.5, 1).

    Parameters
    ----------
    relu, identity : float
        Weights w_r and w_i: (0, 0), (0, 1), (0.5, 1), (1, 1) and (2, 1) in the paper. Without the identity a ReLU loss
        makes fakes darker and darker.
    """
    return TranslationLoss(relu=relu, identity=identity)


#: That of Yang et al., without the term of their segmenter.
MR_TO_CT_LOSS = TranslationLoss(gan=1.0, cycle=30.0, identity=0.5, relu=0.0, edge=1.0, identity_on="input")


def generator_terms(
    loss: TranslationLoss,
    *,
    forward: Network,
    backward: Network,
    source_critic: Network,
    target_critic: Network,
    source: torch.Tensor,
    target: torch.Tensor,
    fake_source: torch.Tensor,
    fake_target: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Compute the terms of the loss that count, each the sum over both ways, before any weight.

    Parameters
    ----------
    loss : TranslationLoss
        Which terms.
    forward, backward : callable
        The generators from source to target, and back.
    source_critic, target_critic : callable
        The discriminators. No gradient for their weights is needed: freeze them.
    source, target : Tensor, shape (n, channels, rows, columns)
        Real images.
    fake_source, fake_target : Tensor, shape (n, channels, rows, columns)
        ``backward(target)`` and ``forward(source)``.

    Returns
    -------
    dict of str to Tensor
        One for each of ``loss.weights``, in that order; see `TranslationLoss.total`.
    """
    opposite: Direction = "brighter" if loss.relu_direction == "darker" else "darker"
    there = _one_way(loss, forward, backward, target_critic, source, target, fake_target, loss.relu_direction)
    back = _one_way(loss, backward, forward, source_critic, target, source, fake_source, opposite)
    return {name: there[name] + back[name] for name in there}


def _one_way(
    loss: TranslationLoss,
    there: Network,
    back: Network,
    critic: Network,
    real: torch.Tensor,
    other: torch.Tensor,
    fake: torch.Tensor,
    direction: Direction,
) -> dict[str, torch.Tensor]:
    """Compute the terms of one generator; ``other`` are real images of the domain that it translates to."""

    def identity() -> torch.Tensor:
        return cycle(there(other), other) if loss.identity_on == "target" else cycle(fake, real)

    compute: dict[str, Callable[[], torch.Tensor]] = {
        "gan": lambda: adversarial(critic(fake), True, loss.gan_kind),
        "cycle": lambda: cycle(back(fake), real),
        "identity": identity,
        "relu": lambda: monotone(fake, real, direction),
        "edge": lambda: edge(fake, real),
    }
    return {name: compute[name]() for name in loss.weights}
