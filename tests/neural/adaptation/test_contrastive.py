"""Translation one way, kept to the anatomy: AccSeg-Net."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from musclekit.errors import ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.contrastive import (
    ContrastiveLearner,
    ContrastiveLoss,
    correlation_loss,
    mind,
    patch_contrast,
    patch_features,
)
from musclekit.neural.adaptation.stage_one import JointSchedule
from tests.neural.adaptation.learners import CPU, DISCRIMINATOR, GENERATOR, SEGMENTER, one_batch


def learner(loss: ContrastiveLoss | None = None, **changes: Any) -> ContrastiveLearner:
    return ContrastiveLearner(
        **{
            "generator": GENERATOR,
            "discriminator": DISCRIMINATOR,
            "segmenter": SEGMENTER,
            "loss": loss or ContrastiveLoss(),
            "schedule": JointSchedule(constant=2, decay=1, batch=2, pool=3),
            "seed": 3,
            "device": CPU,
            **changes,
        }
    )


def gradients(loss: ContrastiveLoss) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    one = learner(loss)
    one.step(*one_batch())
    found = {}
    for name in ("to_target", "codes", "segmenter"):
        slopes = [weights.grad.flatten() for weights in one.modules[name].parameters() if weights.grad is not None]
        found[name] = torch.cat(slopes or [torch.zeros(1)])
    return found


@pytest.mark.parametrize("term", ["gan", "contrast", "contrast_identity", "mind", "correlation"])
def test_every_term_moves_the_generator(term: str) -> None:
    whole, without = gradients(ContrastiveLoss()), gradients(replace(ContrastiveLoss(), **{term: 0.0}))
    assert not torch.allclose(whole["to_target"], without["to_target"], rtol=1e-3, atol=1e-9)
    assert torch.equal(whole["segmenter"], without["segmenter"])


def test_what_the_segmenter_asks_reaches_the_generator() -> None:
    little, much = (gradients(ContrastiveLoss(segmentation=weight)) for weight in (1e-6, 5.0))
    assert not torch.allclose(little["to_target"], much["to_target"], rtol=1e-3, atol=1e-9)
    assert torch.allclose(little["segmenter"] * 5e6, much["segmenter"], rtol=1e-3, atol=1e-6)


def test_patches_that_tell_themselves_cost_little() -> None:
    codes = torch.eye(4)[None]
    assert float(patch_contrast(codes, codes)) == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.07)), abs=1e-6)
    shuffled = codes[:, [1, 2, 3, 0]]
    assert float(patch_contrast(shuffled, codes)) == pytest.approx(1 / 0.07, rel=1e-3)
    alike = torch.ones(2, 5, 3) / 3**0.5
    assert float(patch_contrast(alike, alike)) == pytest.approx(math.log(5), rel=1e-5)


def test_layers_are_those_of_cut() -> None:
    generator = networks.build("resnet-generator", width=4, blocks=9)
    shapes = [tuple(maps.shape[1:]) for maps in patch_features(generator, torch.zeros(1, 1, 32, 32))]  # type: ignore[arg-type]
    assert shapes == [(1, 32, 32), (8, 16, 16), (16, 8, 8), (16, 8, 8), (16, 8, 8)]


def test_a_descriptor_knows_shapes_and_not_grey_values() -> None:
    torch.manual_seed(1)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    image = (((y - 12) ** 2 + (x - 12) ** 2) < 36).float()[None, None] + 0.02 * torch.rand(1, 1, 24, 24)
    found = mind(image)
    assert found.shape == (1, 80, 24, 24)
    assert float(found.min()) >= 0
    assert float(found.max()) == pytest.approx(1)
    assert torch.allclose(mind(3 - 2 * image), found, atol=1e-4)
    moved = torch.roll(image, 4, dims=3)
    assert (mind(moved) - found).abs().mean() > 10 * (mind(3 - 2 * image) - found).abs().mean()


def test_correlation_is_that_of_numpy_squared() -> None:
    torch.manual_seed(2)
    a, b = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    wanted = np.mean([1 - np.corrcoef(p.flatten(), q.flatten())[0, 1] ** 2 for p, q in pairs])
    assert float(correlation_loss(a, b)) == pytest.approx(wanted, abs=1e-5)
    assert float(correlation_loss(a, 1 - a)) == pytest.approx(0, abs=1e-5)


def test_what_cannot_be_contrasted_is_refused() -> None:
    with pytest.raises(ParameterError, match="resnet-generator with residual blocks"):
        learner(generator={**GENERATOR, "blocks": 0})
    with pytest.raises(ParameterError, match="mind"):
        ContrastiveLoss(mind=-1)
    with pytest.raises(ParameterError, match="segmentation"):
        ContrastiveLoss(segmentation=0)
