"""Translation there and back and a segmenter of the fakes, learnt in one optimisation.

That of Yang et al. (MR to CT with edges) and SynSeg-Net (Huo et al.) are two values of one loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.learner import SEGMENTER
from musclekit.neural.adaptation.stage_one import BETAS, JointSchedule, StageOneLearner, drawn_network, judgement
from musclekit.neural.objectives import MR_TO_CT_LOSS, TranslationLoss, generator_terms
from musclekit.neural.pool import ImagePool
from musclekit.neural.segmentation_losses import SegmentationLoss

__all__ = ["SYNSEG_LOSS", "CycleLearner", "JointLoss"]

#: That of SynSeg-Net: no identity, no edges, the cycle at the weight of Zhu et al.
SYNSEG_LOSS = TranslationLoss(gan=1.0, cycle=10.0, identity=0.0, relu=0.0, edge=0.0)


@dataclass(frozen=True)
class JointLoss:
    """The loss of generators and segmenter together.

    Parameters
    ----------
    translation : TranslationLoss
        Of the generators.
    segmentation : float
        Weight of the segmenter's loss on fakes of the target, which reaches the generator too.
    classes : SegmentationLoss
        That loss.

    Raises
    ------
    ParameterError
        If the weight of the segmentation is not positive, or grey values are to move in one direction only.
    """

    translation: TranslationLoss = MR_TO_CT_LOSS
    segmentation: float = 1.0
    classes: SegmentationLoss = field(default_factory=lambda: SegmentationLoss(dice=0.0))

    def __post_init__(self) -> None:
        check_number("segmentation", self.segmentation, above=0)
        if self.translation.relu:
            raise ParameterError("relu orders grey values, and those of two modalities have no order in common")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that count, by name."""
        return {**self.translation.weights, "segmentation": self.segmentation}


class CycleLearner(StageOneLearner):
    """Two generators, two discriminators and a segmenter (Yang et al., section III.B; SPEC's sheet 10.1).

    Parameters
    ----------
    generator, discriminator, segmenter : mapping
        ``name`` and parameters, as `musclekit.neural.networks.build` takes them; of the first two there are two each.
    loss : JointLoss
        What they learn for.
    schedule : JointSchedule
        How fast.
    seed : int
        Of the first weights and of the pools.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        *,
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        segmenter: Mapping[str, Any],
        loss: JointLoss,
        schedule: JointSchedule,
        seed: int,
        device: torch.device,
    ) -> None:
        chance = torch.Generator().manual_seed(seed)
        of = {
            "to_target": generator,
            "to_source": generator,
            "source_critic": discriminator,
            "target_critic": discriminator,
        }
        modules = nn.ModuleDict({name: drawn_network(how, chance) for name, how in of.items()})
        with torch.random.fork_rng(devices=[]):
            # With the first weights that a segmenter has in every training of this project.
            torch.manual_seed(seed)
            modules[SEGMENTER] = networks.build(**segmenter)
        modules = modules.to(device)
        learning = [p for name in ("to_target", "to_source", SEGMENTER) for p in modules[name].parameters()]
        judging = [p for name in ("source_critic", "target_critic") for p in modules[name].parameters()]
        seeds = np.random.SeedSequence(seed).generate_state(2).tolist()
        super().__init__(
            modules,
            {
                # One for all three: what the segmenter asks of a fake reaches the generator (Huo et al.).
                "generators": torch.optim.Adam(learning, lr=schedule.learning_rate, betas=BETAS),
                "critics": torch.optim.Adam(judging, lr=schedule.learning_rate, betas=BETAS),
            },
            {name: ImagePool(schedule.pool, seed=n) for name, n in zip(("source", "target"), seeds, strict=True)},
            loss=loss,
            schedule=schedule,
        )
        self.loss = loss

    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one step on source images, their classes and target images."""
        source, classes, target = batch
        loss, nets = self.loss.translation, self.modules
        critics = nn.ModuleList([nets["source_critic"], nets["target_critic"]])
        fake_target, fake_source = nets["to_target"](source), nets["to_source"](target)
        critics.requires_grad_(False)
        terms = generator_terms(
            loss,
            forward=nets["to_target"],
            backward=nets["to_source"],
            source_critic=nets["source_critic"],
            target_critic=nets["target_critic"],
            source=source,
            target=target,
            fake_source=fake_source,
            fake_target=fake_target,
        )
        asked = self.loss.classes.terms(self.segmenter(fake_target), classes)
        terms["segmentation"] = self.loss.classes.total(asked)
        self.optimisers["generators"].zero_grad()
        total = torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()
        torch.autograd.backward(total)
        self.optimisers["generators"].step()
        critics.requires_grad_(True)
        measured = {name: term.detach() for name, term in terms.items()}
        if loss.gan:
            judged = {
                "discriminator_source": judgement(
                    nets["source_critic"], source, self.pools["source"].query(fake_source), loss.gan_kind
                ),
                "discriminator_target": judgement(
                    nets["target_critic"], target, self.pools["target"].query(fake_target), loss.gan_kind
                ),
            }
            self.optimisers["critics"].zero_grad()
            torch.autograd.backward(torch.stack(list(judged.values())).sum())
            self.optimisers["critics"].step()
            measured |= {name: value.detach() for name, value in judged.items()}
        for name, fake in (("source", fake_source), ("target", fake_target)):
            measured[f"spread_{name}"] = fake.detach().std(dim=(1, 2, 3)).mean()
        return measured
