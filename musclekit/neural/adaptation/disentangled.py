"""Images taken apart into structure, which both modalities share, and texture, which each has of its own.

DISE: Chang et al., All about structure: adapting structural information across domains for boosting semantic
segmentation, CVPR 2019. Its idea in the networks of this project: the structure of an image is what the segmenter knows
of it before its last layer, so that what segments is what is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.neural import networks
from musclekit.neural.adaptation.learner import SEGMENTER
from musclekit.neural.adaptation.stage_one import BETAS, JointSchedule, StageOneLearner, drawn_network, judgement
from musclekit.neural.losses import GanLoss, adversarial, cycle
from musclekit.neural.pool import ImagePool
from musclekit.neural.segmentation_losses import SegmentationLoss

__all__ = ["DisentangledLearner", "DisentangledLoss", "structure_of"]

TERMS = ("reconstruction", "gan", "structure", "texture", "output", "label_transfer", "segmentation")
#: Numbers that a texture is told by, and channels of the encoder that finds them.
CODE, CODE_WIDTH = 8, 32


@dataclass(frozen=True)
class DisentangledLoss:
    """Weights of the terms; one of weight 0 is not computed.

    Parameters
    ----------
    reconstruction : float
        Of an image made of its own structure and texture.
    gan : float
        Of translations, the structure of one image in the texture of another, looking real.
    structure, texture : float
        Of a translation having the structure of the one and the texture of the other.
    output : float
        Of labels of the target looking like labels of the source.
    label_transfer : float
        Of the segmenter's loss on translated images of the source.
    segmentation : float
        Of the same on images of the source as they are.
    classes : SegmentationLoss
        That loss.
    gan_kind : {"lsgan", "vanilla"}
        See `musclekit.neural.losses.adversarial`.

    Raises
    ------
    ParameterError
        If a weight is negative, or the segmenter learns nothing.

    Notes
    -----
    The weights are ours. Distances are of grey values and of features of the segmenter, where Chang et al. take those
    of a network that was trained on photographs.
    """

    reconstruction: float = 10.0
    gan: float = 1.0
    structure: float = 1.0
    texture: float = 1.0
    output: float = 0.01
    label_transfer: float = 1.0
    segmentation: float = 1.0
    classes: SegmentationLoss = field(default_factory=lambda: SegmentationLoss(dice=0.0))
    gan_kind: GanLoss = "lsgan"

    def __post_init__(self) -> None:
        for name in TERMS:
            check_number(name, getattr(self, name), least=0)
        check_number("segmentation", self.segmentation, above=0)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms that count, by name."""
        return {name: float(getattr(self, name)) for name in TERMS if getattr(self, name)}


def structure_of(segmenter: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a segmenter knows of images before its last convolution, and the logits that it makes of that.

    Parameters
    ----------
    segmenter : Module
        Any network of this project that segments slices.
    images : Tensor, shape (n, channels, rows, columns)
        In the range -1 to 1.

    Returns
    -------
    (Tensor, Tensor)
        Shapes (n, features, rows, columns) and (n, classes, rows, columns).
    """
    seen: list[torch.Tensor] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for part in segmenter.modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
    ]
    try:
        logits = segmenter(images)
    finally:
        for hook in hooks:
            hook.remove()
    features = seen[-1]
    if features.shape[2:] != images.shape[2:]:
        # A last layer that doubles the resolution sees half of it.
        features = functional.interpolate(features, size=images.shape[2:], mode="nearest")
    return features, logits


class _TextureEncoder(nn.Sequential):
    """From images to a few numbers each, that know nothing of places."""

    def __init__(self) -> None:
        parts: list[nn.Module] = []
        for before, after in ((1, CODE_WIDTH), (CODE_WIDTH, CODE_WIDTH), (CODE_WIDTH, CODE_WIDTH)):
            parts += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*parts, nn.AdaptiveAvgPool2d(1), nn.Conv2d(CODE_WIDTH, CODE, 1))


class DisentangledLearner(StageOneLearner):
    """A segmenter, an encoder of texture for each modality, a decoder for both, and discriminators (Chang et al.).

    Parameters
    ----------
    generator : mapping
        ``name`` and parameters of the decoder, its channels left out.
    discriminator, segmenter : mapping
        ``name`` and parameters, as `musclekit.neural.networks.build` takes them; two discriminators of images.
    loss : DisentangledLoss
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
        loss: DisentangledLoss,
        schedule: JointSchedule,
        seed: int,
        device: torch.device,
    ) -> None:
        chance = torch.Generator().manual_seed(seed)
        modules = nn.ModuleDict(
            {name: drawn_network(discriminator, chance) for name in ("source_critic", "target_critic")}
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            modules[SEGMENTER] = networks.build(**segmenter)
            modules["source_texture"], modules["target_texture"] = _TextureEncoder(), _TextureEncoder()
            needs = networks.size_needs(modules[SEGMENTER])
            side = needs.fitted((1,))[0]
            # With two samples a normalisation by the batch has something to go by.
            features, logits = structure_of(modules[SEGMENTER], torch.randn(2, 1, side, side))
        modules["decoder"] = drawn_network({**generator, "in_channels": features.shape[1] + CODE}, chance)
        outputs = {"name": "entropy-discriminator", "in_channels": logits.shape[1], "width": 32}
        modules["output_critic"] = drawn_network(outputs, chance)
        modules = modules.to(device)
        judging = ("source_critic", "target_critic", "output_critic")
        rate = schedule.learning_rate
        super().__init__(
            modules,
            {
                "generators": torch.optim.Adam(
                    [p for name in modules if name not in judging for p in modules[name].parameters()],
                    lr=rate,
                    betas=BETAS,
                ),
                "critics": torch.optim.Adam(
                    [p for name in judging for p in modules[name].parameters()], lr=rate, betas=BETAS
                ),
            },
            {
                name: ImagePool(schedule.pool, seed=int(n))
                for name, n in zip(("source", "target"), np.random.SeedSequence(seed).generate_state(2), strict=True)
            },
            loss=loss,
            schedule=schedule,
        )
        self.loss = loss
        self._judging = judging

    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one step on source images, their classes and target images."""
        source, classes, target = batch
        loss, nets = self.loss, self.modules
        critics = nn.ModuleList([nets[name] for name in self._judging])
        (of_source, says_source), (of_target, says_target) = (
            structure_of(self.segmenter, images) for images in (source, target)
        )
        looks = {"source": nets["source_texture"](source), "target": nets["target_texture"](target)}
        fake_target, fake_source = self._made(of_source, looks["target"]), self._made(of_target, looks["source"])
        critics.requires_grad_(False)
        terms: dict[str, torch.Tensor] = {}
        if loss.reconstruction:
            again = (self._made(of_source, looks["source"]), self._made(of_target, looks["target"]))
            terms["reconstruction"] = cycle(again[0], source) + cycle(again[1], target)
        if loss.gan:
            terms["gan"] = adversarial(nets["target_critic"](fake_target), True, loss.gan_kind) + adversarial(
                nets["source_critic"](fake_source), True, loss.gan_kind
            )
        (of_fake_target, says_fake), (of_fake_source, _) = (
            structure_of(self.segmenter, images) for images in (fake_target, fake_source)
        )
        if loss.structure:
            terms["structure"] = cycle(of_fake_target, of_source.detach()) + cycle(of_fake_source, of_target.detach())
        if loss.texture:
            terms["texture"] = cycle(nets["target_texture"](fake_target), looks["target"].detach()) + cycle(
                nets["source_texture"](fake_source), looks["source"].detach()
            )
        shares = [torch.softmax(logits, dim=1) for logits in (says_source, says_target)]
        if loss.output:
            terms["output"] = adversarial(nets["output_critic"](shares[1]), True, "vanilla")
        if loss.label_transfer:
            terms["label_transfer"] = loss.classes.total(loss.classes.terms(says_fake, classes))
        terms["segmentation"] = loss.classes.total(loss.classes.terms(says_source, classes))
        self.optimisers["generators"].zero_grad()
        torch.autograd.backward(torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum())
        self.optimisers["generators"].step()
        critics.requires_grad_(True)
        measured = {name: term.detach() for name, term in terms.items()}
        judged: dict[str, torch.Tensor] = {}
        if loss.gan:
            for name, real, fake in (("source", source, fake_source), ("target", target, fake_target)):
                kept = self.pools[name].query(fake)
                judged[f"discriminator_{name}"] = judgement(nets[f"{name}_critic"], real, kept, loss.gan_kind)
        if loss.output:
            judged["discriminator_output"] = judgement(
                nets["output_critic"], shares[0].detach(), shares[1].detach(), "vanilla"
            )
        if judged:
            self.optimisers["critics"].zero_grad()
            torch.autograd.backward(torch.stack(list(judged.values())).sum())
            self.optimisers["critics"].step()
        measured |= {name: value.detach() for name, value in judged.items()}
        for name, fake in (("source", fake_source), ("target", fake_target)):
            measured[f"spread_{name}"] = fake.detach().std(dim=(1, 2, 3)).mean()
        return measured

    def _made(self, structure: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        """Make images of structure and texture."""
        everywhere = texture.expand(-1, -1, *structure.shape[2:])
        made: torch.Tensor = self.modules["decoder"](torch.cat([structure, everywhere], dim=1))
        return made
