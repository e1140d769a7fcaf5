"""Translation one way, kept to the anatomy by contrast of patches and by descriptors, and a segmenter of the fakes.

AccSeg-Net: Zhou et al., Anatomy-constrained contrastive learning for synthetic segmentation without ground-truth,
MICCAI 2021, which rests on Park et al., Contrastive learning for unpaired image-to-image translation, ECCV 2020 (CUT),
and on Heinrich et al., MIND: modality independent neighbourhood descriptor, Med Image Anal 2012.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.learner import SEGMENTER
from musclekit.neural.adaptation.stage_one import BETAS, JointSchedule, StageOneLearner, drawn_network, judgement
from musclekit.neural.losses import GanLoss, adversarial
from musclekit.neural.networks import ResNetGenerator
from musclekit.neural.pool import ImagePool
from musclekit.neural.segmentation_losses import SegmentationLoss

__all__ = ["ContrastiveLearner", "ContrastiveLoss", "correlation_loss", "mind", "patch_contrast", "patch_features"]

TERMS = ("gan", "contrast", "contrast_identity", "mind", "correlation", "segmentation")
#: Patches of a layer that are told apart, numbers that each is told apart by, and the temperature (Park et al.).
PATCHES, CODE, TEMPERATURE = 256, 256, 0.07
#: Half the side of the region that a descriptor looks about in, the side and the Gaussian of a patch (Zhou et al.).
REACH, PATCH, SIGMA = 4, 7, 3.0
#: Least variance that a descriptor is divided by.
LEAST = 1e-5


@dataclass(frozen=True)
class ContrastiveLoss:
    """Weights of the terms; one of weight 0 is not computed.

    Parameters
    ----------
    gan : float
        Of looking real.
    contrast, contrast_identity : float
        Of each patch of a fake being told by that of its image, and each patch of a real target by itself once it went
        through the generator.
    mind, correlation : float
        Of the same neighbourhoods and of correlated grey values in image and fake.
    segmentation : float
        Of the segmenter's loss on fakes, which reaches the generator too.
    classes : SegmentationLoss
        That loss: soft Dice alone.
    gan_kind : {"lsgan", "vanilla"}
        See `musclekit.neural.losses.adversarial`.

    Raises
    ------
    ParameterError
        If a weight is negative, or the segmenter learns nothing.
    """

    gan: float = 1.0
    contrast: float = 1.0
    contrast_identity: float = 1.0
    mind: float = 1.0
    correlation: float = 1.0
    segmentation: float = 1.0
    classes: SegmentationLoss = field(default_factory=lambda: SegmentationLoss(cross_entropy=0.0))
    gan_kind: GanLoss = "lsgan"

    def __post_init__(self) -> None:
        for name in TERMS:
            check_number(name, getattr(self, name), least=0)
        check_number("segmentation", self.segmentation, above=0)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that count, by name."""
        return {name: float(getattr(self, name)) for name in TERMS if getattr(self, name)}


def patch_features(generator: ResNetGenerator, images: torch.Tensor) -> list[torch.Tensor]:
    """Return what a generator makes of images on its way down: where CUT's layers 0, 4, 8, 12 and 16 lie.

    Parameters
    ----------
    generator : ResNetGenerator
        Of which the part that codes is looked at.
    images : Tensor, shape (n, channels, rows, columns)
        In the range -1 to 1.

    Returns
    -------
    list of Tensor
        The images, both convolutions that halve the resolution, the first residual block and the middle one.
    """
    found, features = [images], images
    for n, part in enumerate(generator.down):
        features = part(features)
        if n in (3, 6):
            found.append(features)
    blocks = list(generator.blocks)
    for n, block in enumerate(blocks):
        features = block(features)
        if n in (0, len(blocks) // 2):
            found.append(features)
    return found


def patch_contrast(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of telling, by each query, its own key among those of its image (Park et al., equation 3).

    Parameters
    ----------
    queries, keys : Tensor, shape (n, patches, code)
        Of length 1. No gradient flows to the keys.
    """
    likeness = queries @ keys.detach().transpose(1, 2) / TEMPERATURE
    own = torch.arange(likeness.shape[1], device=likeness.device).expand(len(likeness), -1)
    return functional.cross_entropy(likeness.flatten(0, 1), own.flatten())


def mind(images: torch.Tensor) -> torch.Tensor:
    """Describe each pixel by how alike its patch is to those about it, whatever the contrast (Heinrich et al.).

    Parameters
    ----------
    images : Tensor, shape (n, 1, rows, columns)
        Grey values.

    Returns
    -------
    Tensor, shape (n, 80, rows, columns)
        Between 0 and 1, the most alike neighbour 1: one number for each pixel of a 9 x 9 region but its middle.

    Notes
    -----
    Patches are 7 x 7 pixels, weighted by a Gaussian of 3 pixels; the local variance is the mean distance to the four
    nearest neighbours.
    """
    rows, columns = images.shape[-2:]
    wide = functional.pad(images, (REACH,) * 4, mode="replicate")
    at = torch.arange(PATCH, device=images.device, dtype=images.dtype) - PATCH // 2
    bell = torch.exp(-(at**2) / (2 * SIGMA**2))
    bell = (bell / bell.sum())[None, None, :, None]
    apart, nearest = [], []
    for y in range(2 * REACH + 1):
        for x in range(2 * REACH + 1):
            if (y, x) == (REACH, REACH):
                continue
            square = (wide[:, :, y : y + rows, x : x + columns] - images) ** 2
            padded = functional.pad(square, (PATCH // 2,) * 4, mode="replicate")
            distance = functional.conv2d(functional.conv2d(padded, bell), bell.transpose(2, 3))
            apart.append(distance)
            if abs(y - REACH) + abs(x - REACH) == 1:
                nearest.append(distance)
    distances = torch.cat(apart, dim=1)
    variance = torch.stack(nearest).mean(dim=0).clamp(min=LEAST)
    described = torch.exp(-distances / variance)
    return described / described.amax(dim=1, keepdim=True).clamp(min=LEAST)


def correlation_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One minus the squared correlation of the grey values of two images, the mean over images."""
    x, y = (part.flatten(1) - part.flatten(1).mean(dim=1, keepdim=True) for part in (a, b))
    shared = (x * y).sum(dim=1) ** 2
    return (1 - shared / ((x**2).sum(dim=1) * (y**2).sum(dim=1)).clamp(min=LEAST)).mean()


class _Codes(nn.Module):
    """For each layer of a generator, two linear layers that turn a patch's features into a code of length 1."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(n, CODE), nn.ReLU(inplace=True), nn.Linear(CODE, CODE)) for n in channels
        )

    def forward(self, features: Sequence[torch.Tensor], places: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Code the patches at some places of each layer, shape (n, patches, code)."""
        found = []
        for layer, maps, at in zip(self.layers, features, places, strict=True):
            patches = maps.flatten(2)[:, :, at].transpose(1, 2)
            found.append(functional.normalize(layer(patches), dim=2))
        return found


class ContrastiveLearner(StageOneLearner):
    """A generator, a discriminator, codes of patches and a segmenter (Zhou et al.).

    Parameters
    ----------
    generator, discriminator, segmenter : mapping
        ``name`` and parameters, as `musclekit.neural.networks.build` takes them; one of each.
    loss : ContrastiveLoss
        What they learn for.
    schedule : JointSchedule
        How fast.
    seed : int
        Of the first weights and of the pool.
    device : torch.device
        Where to compute.

    Raises
    ------
    ParameterError
        If the generator is not one with residual blocks, whose layers are known.
    """

    def __init__(
        self,
        *,
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        segmenter: Mapping[str, Any],
        loss: ContrastiveLoss,
        schedule: JointSchedule,
        seed: int,
        device: torch.device,
    ) -> None:
        chance = torch.Generator().manual_seed(seed)
        to_target = drawn_network(generator, chance)
        if not isinstance(to_target, ResNetGenerator) or not len(to_target.blocks):
            raise ParameterError("patches are contrasted in the layers of a resnet-generator with residual blocks")
        modules = nn.ModuleDict({"to_target": to_target, "target_critic": drawn_network(discriminator, chance)})
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            images = torch.zeros(1, 1, 4 * to_target.least, 4 * to_target.least)
            modules["codes"] = _Codes([maps.shape[1] for maps in patch_features(to_target, images)])
            modules[SEGMENTER] = networks.build(**segmenter)
        modules = modules.to(device)
        learning = [p for name in ("to_target", "codes", SEGMENTER) for p in modules[name].parameters()]
        rate = schedule.learning_rate
        super().__init__(
            modules,
            {
                "generators": torch.optim.Adam(learning, lr=rate, betas=BETAS),
                "critics": torch.optim.Adam(modules["target_critic"].parameters(), lr=rate, betas=BETAS),
            },
            {"target": ImagePool(schedule.pool, seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))},
            loss=loss,
            schedule=schedule,
        )
        self.loss = loss

    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one step on source images, their classes and target images."""
        source, classes, target = batch
        loss, critic = self.loss, self.modules["target_critic"]
        fake = self.modules["to_target"](source)
        critic.requires_grad_(False)
        terms: dict[str, torch.Tensor] = {}
        if loss.gan:
            terms["gan"] = adversarial(critic(fake), True, loss.gan_kind)
        if loss.contrast:
            terms["contrast"] = self._contrast(fake, source)
        if loss.contrast_identity:
            terms["contrast_identity"] = self._contrast(self.modules["to_target"](target), target)
        if loss.mind:
            terms["mind"] = (mind(fake) - mind(source)).abs().mean()
        if loss.correlation:
            terms["correlation"] = correlation_loss(fake, source)
        terms["segmentation"] = loss.classes.total(loss.classes.terms(self.segmenter(fake), classes))
        self.optimisers["generators"].zero_grad()
        torch.autograd.backward(torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum())
        self.optimisers["generators"].step()
        critic.requires_grad_(True)
        measured = {name: term.detach() for name, term in terms.items()}
        if loss.gan:
            judged = judgement(critic, target, self.pools["target"].query(fake), loss.gan_kind)
            self.optimisers["critics"].zero_grad()
            torch.autograd.backward(judged)
            self.optimisers["critics"].step()
            measured["discriminator_target"] = judged.detach()
        measured["spread_target"] = fake.detach().std(dim=(1, 2, 3)).mean()
        return measured

    def _contrast(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Mean over layers of telling each patch of a fake by that of the image it was made of."""
        generator, codes = self.modules["to_target"], self.modules["codes"]
        assert isinstance(generator, ResNetGenerator)
        of_fake, of_real = patch_features(generator, fake), patch_features(generator, real)
        places = []
        for maps in of_fake:
            n = maps.shape[2] * maps.shape[3]
            places.append(torch.randperm(n)[: min(n, PATCHES)].to(maps.device))
        pairs = zip(codes(of_fake, places), codes(of_real, places), strict=True)
        return torch.stack([patch_contrast(*pair) for pair in pairs]).mean()
