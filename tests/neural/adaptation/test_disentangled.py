"""Structure and texture taken apart: DISE."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musclekit.errors import ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.disentangled import DisentangledLearner, DisentangledLoss, structure_of
from musclekit.neural.adaptation.stage_one import JointSchedule
from tests.neural.adaptation.learners import CPU, DISCRIMINATOR, GENERATOR, SEGMENTER, one_batch

PARTS = ("decoder", "source_texture", "target_texture", "segmenter")
#: Which of these each term teaches.
TAUGHT = {
    "reconstruction": PARTS,
    "gan": PARTS,
    "structure": PARTS,
    "texture": PARTS,
    "output": ("segmenter",),
    "label_transfer": PARTS[:1] + PARTS[2:],
}


def learner(loss: DisentangledLoss | None = None) -> DisentangledLearner:
    return DisentangledLearner(
        generator=GENERATOR,
        discriminator=DISCRIMINATOR,
        segmenter=SEGMENTER,
        loss=loss or DisentangledLoss(),
        schedule=JointSchedule(constant=2, decay=1, batch=2, pool=3),
        seed=3,
        device=CPU,
    )


def gradients(loss: DisentangledLoss) -> dict[str, torch.Tensor]:
    one = learner(loss)
    one.step(*one_batch())
    found = {}
    for name in PARTS:
        slopes = [
            torch.zeros(weights.numel()) if weights.grad is None else weights.grad.flatten()
            for weights in one.modules[name].parameters()
        ]
        found[name] = torch.cat(slopes)
    return found


@pytest.mark.parametrize("term", list(TAUGHT))
def test_every_term_teaches_what_it_is_about(term: str) -> None:
    whole, without = gradients(DisentangledLoss()), gradients(replace(DisentangledLoss(), **{term: 0.0}))
    changed = {name for name in PARTS if not torch.allclose(whole[name], without[name], rtol=1e-4, atol=1e-10)}
    assert changed == set(TAUGHT[term])


def test_discriminators_learn_and_nothing_stays_frozen() -> None:
    one = learner()
    before = {name: value.clone() for name, value in one.modules.state_dict().items()}
    measured = one.step(*one_batch())
    assert {"discriminator_source", "discriminator_target", "discriminator_output"} <= set(measured)
    after = one.modules.state_dict()
    for part in (*PARTS, "source_critic", "target_critic", "output_critic"):
        assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith(part))
    assert all(weights.requires_grad for weights in one.modules.parameters())


@pytest.mark.parametrize("name", ["unet-2d", "unet-256"])
def test_structure_is_what_the_last_layer_sees(name: str) -> None:
    torch.manual_seed(0)
    more = {"levels": 3} if name == "unet-2d" else {"levels": 5}
    segmenter = networks.build(name, in_channels=1, out_channels=3, width=4, **more)
    images = torch.randn(2, 1, 32, 32)
    features, logits = structure_of(segmenter, images)
    assert torch.equal(logits, segmenter(images))
    assert features.shape[2:] == images.shape[2:]
    assert not any(part._forward_pre_hooks for part in segmenter.modules())
    last = segmenter.up[0][1] if name == "unet-256" else segmenter.head  # type: ignore[index]
    small = features[:, :, ::2, ::2] if name == "unet-256" else features
    assert torch.equal(last(small), logits)  # type: ignore[operator]


def test_texture_knows_nothing_of_places() -> None:
    one = learner()
    images = one_batch()[0]
    code = one.modules["source_texture"](images)
    assert code.shape == (2, 8, 1, 1)
    made = one._made(structure_of(one.segmenter, images)[0], code)
    assert made.shape == images.shape


def test_a_weight_below_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match="texture"):
        DisentangledLoss(texture=-1)
    with pytest.raises(ParameterError, match="segmentation"):
        DisentangledLoss(segmentation=0)
