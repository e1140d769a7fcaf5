from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from musclekit.errors import GeometryError, ParameterError
from musclekit.neural.networks.manet import MANet, _FusionAttention, _PositionAttention


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def small() -> MANet:
    torch.manual_seed(0)
    return MANet(1, 3, width=4, decoder_width=4)


def biased(before: int, after: int, size: int) -> int:
    return (before * size * size + 1) * after


def normalised(before: int, after: int, size: int) -> int:
    return (before * size * size + 2) * after


def fusion(before: int, skipped: int, after: int) -> int:
    gate = biased(skipped, skipped // 16, 1) + biased(skipped // 16, skipped, 1)
    high = normalised(before, before, 3) + normalised(before, skipped, 1)
    return high + 2 * gate + normalised(2 * skipped, after, 3) + normalised(after, after, 3)


def test_the_encoder_has_the_weights_of_resnet_34() -> None:
    published, classifier = 21_797_672, (512 + 1) * 1000
    with torch.device("meta"):
        assert count(MANet(3).encoder) == published - classifier == 21_284_672


def test_it_has_the_weights_of_its_parts() -> None:
    with torch.device("meta"):
        network = MANet(1, 4)
    encoder = 21_284_672 - 2 * 7 * 7 * 64
    attention = 2 * biased(512, 64, 1) + 2 * biased(512, 512, 3)
    fusions = fusion(512, 256, 256) + fusion(256, 128, 128) + fusion(128, 64, 64) + fusion(64, 64, 32)
    finest = normalised(32, 16, 3) + normalised(16, 16, 3) + biased(16, 4, 3)
    assert count(network) == encoder + attention + fusions + finest == 31_777_796


def test_the_encoder_halves_the_resolution_five_times() -> None:
    found = small().encoder(noise(1, 1, 64, 128))
    assert [tuple(features.shape[1:]) for features in found] == [
        (4, 32, 64),
        (4, 16, 32),
        (8, 8, 16),
        (16, 4, 8),
        (32, 2, 4),
    ]


@torch.no_grad()
def test_attention_is_what_the_formulas_say() -> None:
    torch.manual_seed(0)
    attention = _PositionAttention(5, 3)
    features = 3 * noise(2, 5, 2, 3)
    places = [(row, column) for row in range(2) for column in range(3)]
    top, centre, values = attention.top(features), attention.centre(features), attention.bottom(features)
    summed = features.clone()
    for image in range(2):
        for row, column in places:
            asks = centre[image, :, row, column]
            weights = [math.exp(float(asks @ top[image, :, *place])) for place in places]
            for weight, place in zip(weights, places, strict=True):
                summed[image, :, row, column] += weight / sum(weights) * values[image, :, *place]
    assert torch.allclose(attention(features), attention.out(summed), atol=1e-6)


def test_the_affinities_of_each_position_sum_to_one() -> None:
    torch.manual_seed(0)
    affinities = _PositionAttention(5, 3).affinities(4 * noise(2, 5, 3, 4))
    assert affinities.shape == (2, 12, 12)
    assert torch.allclose(affinities.sum(-1), torch.ones(2, 12))
    assert not torch.allclose(affinities.sum(-2), torch.ones(2, 12), atol=0.1)


def test_both_gates_are_added_before_they_are_applied() -> None:
    torch.manual_seed(0)
    block = _FusionAttention(6, 4, 5).eval()
    for gate, opened in ((block.high_gate, 0.25), (block.low_gate, 0.75)):
        nn.init.zeros_(gate[3].weight)
        nn.init.constant_(gate[3].bias, math.log(opened / (1 - opened)))
    features, skip = noise(1, 6, 2, 2), noise(1, 4, 4, 4)
    expected = block.join(torch.cat([block.high(features), skip], dim=1))
    assert torch.allclose(block(features, skip), expected, atol=1e-6)


@pytest.mark.parametrize("gate", ["high_gate", "low_gate"])
def test_each_gate_looks_at_its_own_branch(gate: str) -> None:
    torch.manual_seed(1)
    block = _FusionAttention(6, 4, 5).eval()
    looked: list[torch.Tensor] = []
    getattr(block, gate).register_forward_pre_hook(lambda _, given: looked.append(given[0]))
    features, skip = noise(1, 6, 2, 2), noise(1, 4, 4, 4)
    block(features, skip)
    assert torch.equal(looked[0], block.high(features) if gate == "high_gate" else skip)


@pytest.mark.parametrize("shape", [(64, 80), (32, 64)])
def test_another_size_is_refused(shape: tuple[int, int]) -> None:
    message = f"images of {shape[0]} x {shape[1]} do not suit 'manet': every side must be a multiple of 32, and at "
    with pytest.raises(GeometryError, match=f"{message}least 64"):
        small()(noise(1, 1, *shape))


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "width", "decoder_width"])
def test_a_parameter_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} must be a whole number of at least 1, not 0"):
        MANet(**{name: 0})
