from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from musclekit.errors import GeometryError, ParameterError
from musclekit.neural.networks.dropout import can_be_sampled
from musclekit.neural.networks.fcn import FCN8s


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_it_has_the_weights_of_vgg_16_and_134_million_in_all() -> None:
    published_convolutions_of_vgg_16 = 14_714_688
    connected = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096
    scores = (4096 + 1 + 512 + 1 + 256 + 1) * 21
    transposed = 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16)
    with torch.device("meta"):
        network = FCN8s(3, 21)
    assert count(network.stages) == published_convolutions_of_vgg_16
    assert count(network) == published_convolutions_of_vgg_16 + connected + scores + transposed == 134_489_759


def test_first_of_all_logits_are_interpolated() -> None:
    for enlarging, factor in zip(FCN8s(1, 3, width=1).enlarging, (8, 2, 2), strict=True):
        scores = noise(1, 3, 6, 5)
        expected = functional.interpolate(scores, scale_factor=factor, mode="bilinear")
        inner = (..., slice(factor, -factor), slice(factor, -factor))
        assert torch.allclose(enlarging(scores)[inner], expected[inner], atol=1e-6)


def test_the_finest_scores_of_a_pixel_come_from_52_by_52_around_it() -> None:
    torch.manual_seed(0)
    network = FCN8s(1, 1, width=2).eval()
    for score in network.scores[1:]:
        nn.init.zeros_(score.weight)
    with torch.no_grad():
        for name, weights in network.stages.named_parameters():
            weights.copy_(torch.ones_like(weights) if name.endswith("bias") else weights.abs())
    for stage in network.stages:
        stage[-1] = nn.AvgPool2d(2)
    image = noise(1, 1, 128, 128).abs().requires_grad_()
    # Pixel 67 lies between the middles of cells 7 and 8 of eight pixels, which see 38 to 81 and 46 to 89.
    network(image)[0, 0, 67, 67].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert seen.min(0).values.tolist() == [38, 38]
    assert seen.max(0).values.tolist() == [89, 89]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_resolution_has_its_say(layer: int) -> None:
    torch.manual_seed(0)
    network = FCN8s(1, 2, width=2).eval()
    images = noise(1, 1, 64, 32)
    before = network(images)
    nn.init.zeros_(network.scores[layer].weight)
    assert (network(images) - before).abs().max() > 1e-3


def test_it_can_be_sampled_unless_nothing_is_dropped() -> None:
    assert can_be_sampled(FCN8s(width=1))
    assert not can_be_sampled(FCN8s(width=1, dropout=0))


@pytest.mark.parametrize("shape", [(64, 48), (16, 32)])
def test_another_size_is_refused(shape: tuple[int, int]) -> None:
    message = f"images of {shape[0]} x {shape[1]} do not suit 'fcn-8s': every side must be a multiple of 32, and at "
    with pytest.raises(GeometryError, match=f"{message}least 32"):
        FCN8s(width=1)(noise(1, 1, *shape))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, not 0"),
        ({"out_channels": 1.5}, "out_channels must be a whole number of at least 1, not 1.5"),
        ({"width": 1, "dropout": 1}, "dropout must be a number of at least 0 and of at most 0.99, not 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        FCN8s(**parameters)  # type: ignore[arg-type]
