"""A segmenter that goes on learning from its own labels of images it was sure of, and is made sure of the others.

Yang et al., section III.C; the adversarial part is that of Pan et al. (unsupervised intra-domain adaptation, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import InputError
from musclekit.neural.adaptation.learner import SEGMENTER, Learner
from musclekit.neural.adaptation.slices import moved
from musclekit.neural.adaptation.stage_one import drawn_network
from musclekit.neural.losses import adversarial
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training.running import set_rate

__all__ = ["EasyHardDraw", "SelfTrainer", "TuneSchedule", "self_information"]

#: Least probability that a logarithm is taken of.
LEAST = 1e-30
#: The discriminator's Adam, and the power by which its rate falls (Pan et al.).
CRITIC_BETAS, CRITIC_POWER = (0.9, 0.99), 0.9


@dataclass(frozen=True)
class TuneSchedule:
    """How long, how fast and what for.

    Parameters
    ----------
    epochs : int
        Each a pass over the larger of the two parts; 0 for none.
    batch : int
        Images of each part in a step.
    learning_rate, critic_rate : float
        Of the segmenter and of the discriminator.
    adversarial : float
        Weight of being taken for easy, on hard images; with 0 they are not looked at.
    classes : SegmentationLoss
        Of the labels of easy images.

    Raises
    ------
    ParameterError
        If a number is out of range.
    """

    epochs: int = 20
    batch: int = 4
    learning_rate: float = 1e-4
    critic_rate: float = 1e-4
    adversarial: float = 0.001
    classes: SegmentationLoss = field(default_factory=lambda: SegmentationLoss(dice=0.0))

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1)):
            check_number(name, getattr(self, name), least=least, whole=True)
        for name in ("learning_rate", "critic_rate"):
            check_number(name, getattr(self, name), above=0)
        check_number("adversarial", self.adversarial, least=0)


@dataclass(frozen=True, eq=False)
class EasyHardDraw:
    """Batches of easy images, their labels, and hard images.

    Parameters
    ----------
    easy : ndarray of float16, shape (n, rows, columns)
        Images that the segmenter was sure of.
    classes : ndarray of uint8, shape (n, rows, columns)
        What it made of them, cleaned.
    hard : ndarray of float16, shape (m, rows, columns)
        The others.
    batch : int
        Of each in a step.

    Raises
    ------
    InputError
        If there is no image of either.
    """

    easy: NDArray[np.float16]
    classes: NDArray[np.uint8]
    hard: NDArray[np.float16]
    batch: int

    def __post_init__(self) -> None:
        for name, images in (("easy", self.easy), ("hard", self.hard)):
            if not len(images):
                why = {
                    "easy": "the segmenter's labels lie outside the muscle compartment, or there are too few images: "
                    "look at the judgement; stage 1 may have learnt nothing yet",
                    "hard": "nothing is left to be made sure of: more images of the target are needed, or a smaller "
                    "easy_share",
                }
                raise InputError(f"there is no {name} image: {why[name]}")

    @property
    def steps(self) -> int:
        """Batches of an epoch: one pass over the larger part."""
        return -(-max(len(self.easy), len(self.hard)) // self.batch)

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
        """Draw an epoch; the smaller part comes round again, each time in another order."""
        n = self.steps * self.batch
        order = [
            np.concatenate([rng.permutation(len(part)) for _ in range(-(-n // len(part)))])[:n]
            for part in (self.easy, self.hard)
        ]
        for first in range(0, n, self.batch):
            here, there = (np.sort(some[first : first + self.batch]) for some in order)
            images, classes = moved(self.easy[here], self.classes[here], rng)
            others, _ = moved(self.hard[there], None, rng)
            yield images, classes, others


def self_information(logits: torch.Tensor) -> torch.Tensor:
    """Return how much each class adds to the entropy of a pixel, as a share of the most there can be.

    Parameters
    ----------
    logits : Tensor, shape (n, classes, rows, columns)
        What a segmenter says.

    Returns
    -------
    Tensor, shape (n, classes, rows, columns)
        -p log2 p / log2 C; a map sums over classes to the normalised entropy.
    """
    p = torch.softmax(logits.float(), dim=1)
    return -p * torch.log2(p + LEAST) / math.log2(logits.shape[1])


class SelfTrainer(Learner):
    """A segmenter, and a discriminator that tells its entropy maps of easy images from those of hard ones.

    Parameters
    ----------
    segmenter : Module
        With the weights to start from; it is taught in place.
    classes : int
        Of the segmenter, background among them.
    schedule : TuneSchedule
        What for and how fast.
    seed : int
        Of the discriminator's first weights.
    device : torch.device
        Where to compute.
    discriminator : mapping, optional
        Parameters of ``entropy-discriminator`` but for its channels.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        *,
        classes: int,
        schedule: TuneSchedule,
        seed: int,
        device: torch.device,
        discriminator: Mapping[str, Any] | None = None,
    ) -> None:
        modules = nn.ModuleDict({SEGMENTER: segmenter})
        optimisers: dict[str, torch.optim.Optimizer] = {}
        if schedule.adversarial:
            how = {"name": "entropy-discriminator", "in_channels": classes, **(discriminator or {})}
            modules["critic"] = drawn_network(how, torch.Generator().manual_seed(seed))
        modules = modules.to(device)
        optimisers[SEGMENTER] = torch.optim.Adam(segmenter.parameters(), lr=schedule.learning_rate)
        if schedule.adversarial:
            optimisers["critic"] = torch.optim.Adam(
                modules["critic"].parameters(), lr=schedule.critic_rate, betas=CRITIC_BETAS
            )
        super().__init__(modules, optimisers)
        self.schedule = schedule

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each term of the loss."""
        weights = {"segmentation": 1.0}
        return weights | ({"adversarial": self.schedule.adversarial} if self.schedule.adversarial else {})

    def set_rates(self, done: float, epochs: int) -> float:
        """Set the segmenter's rate, which stays, and the discriminator's, which falls."""
        set_rate(self.optimisers[SEGMENTER], self.schedule.learning_rate)
        if "critic" in self.optimisers:
            set_rate(self.optimisers["critic"], self.schedule.critic_rate * (1 - done / epochs) ** CRITIC_POWER)
        return self.schedule.learning_rate

    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one step on easy images, their classes and hard images (the method sheet's 10.3)."""
        easy, classes, hard = batch
        asked = self.schedule.classes
        known = self.segmenter(easy)
        terms = {"segmentation": asked.total(asked.terms(known, classes))}
        if self.schedule.adversarial:
            self.modules["critic"].requires_grad_(False)
            doubt = self_information(self.segmenter(hard))
            # 1 stands for hard: it is to be taken for easy.
            terms["adversarial"] = adversarial(self.modules["critic"](doubt), False, "vanilla")
        self.optimisers[SEGMENTER].zero_grad()
        torch.autograd.backward(torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum())
        self.optimisers[SEGMENTER].step()
        measured = {name: term.detach() for name, term in terms.items()}
        if self.schedule.adversarial:
            critic = self.modules["critic"].requires_grad_(True)
            judged = (
                adversarial(critic(self_information(known.detach())), False, "vanilla")
                + adversarial(critic(doubt.detach()), True, "vanilla")
            ) / 2
            self.optimisers["critic"].zero_grad()
            torch.autograd.backward(judged)
            self.optimisers["critic"].step()
            measured["discriminator"] = judged.detach()
        return measured
