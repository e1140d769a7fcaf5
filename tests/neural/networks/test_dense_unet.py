from __future__ import annotations

import pytest
import torch
from torch import nn

from musclekit.errors import GeometryError, ParameterError
from musclekit.neural.networks.dense_unet import DenseUNet, _DenseBlock


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def small() -> DenseUNet:
    torch.manual_seed(0)
    return DenseUNet(1, 3, layers=2, growth=4, levels=3, width=4)


def activated(before: int, after: int, size: int) -> int:
    """Weights of a norm and a convolution."""
    return 2 * before + (size * size * before + 1) * after


def block(before: int, after: int, layers: int, growth: int) -> int:
    inner = sum(activated(before + layer * growth, growth, 3) for layer in range(layers))
    return inner + activated(before + layers * growth, after, 1)


def test_it_has_the_weights_of_its_blocks() -> None:
    with torch.device("meta"):
        network = DenseUNet(1, 4)
    assert count(network) == (
        (9 + 1) * 64
        + block(64, 64, 5, 32)
        + block(64, 128, 5, 32)
        + block(128, 256, 5, 32)
        + block(256, 512, 5, 32)
        + (512 * 4 + 1) * 256
        + block(512, 256, 5, 32)
        + (256 * 4 + 1) * 128
        + block(256, 128, 5, 32)
        + (128 * 4 + 1) * 64
        + block(128, 64, 5, 32)
        + activated(64, 4, 1)
    )
    assert count(network) == 3_961_828


def test_other_layers_growth_and_levels_are_counted_alike() -> None:
    growing = DenseUNet(2, 3, layers=3, growth=5, levels=2, width=6)
    assert count(growing) == (
        (2 * 9 + 1) * 6
        + block(6, 6, 3, 5)
        + block(6, 12, 3, 5)
        + (12 * 4 + 1) * 6
        + block(12, 6, 3, 5)
        + activated(6, 3, 1)
    )


def test_the_transition_sees_what_came_in_and_what_each_layer_found() -> None:
    torch.manual_seed(0)
    dense = _DenseBlock(3, 5, layers=2, growth=4).eval()
    features = noise(1, 3, 8, 8)
    first = dense.layers[0](features)
    second = dense.layers[1](torch.cat([features, first], dim=1))
    expected = dense.transition(torch.cat([features, first, second], dim=1))
    assert torch.equal(dense(features), expected)


def test_details_take_the_skips() -> None:
    network = small().eval()
    for level in network.doubling:
        nn.init.zeros_(level.weight)
    images = noise(1, 1, 16, 16).requires_grad_()
    network(images)[0, 0, 8, 8].backward()
    assert images.grad is not None
    seen = images.grad[0, 0].nonzero()
    # A convolution before, and two in each of the two blocks, of the first level.
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [11, 11]


def test_a_single_level_has_no_skips() -> None:
    network = DenseUNet(1, 2, layers=1, growth=2, levels=1, width=2)
    assert (network.multiple, network.least) == (1, 2)
    assert network(noise(1, 1, 5, 7)).shape == (1, 2, 5, 7)


@pytest.mark.parametrize("shape", [(16, 18), (4, 16)])
def test_another_size_is_refused(shape: tuple[int, int]) -> None:
    message = f"images of {shape[0]} x {shape[1]} do not suit 'dense-unet': every side must be a multiple of 4, and at "
    with pytest.raises(GeometryError, match=f"{message}least 8"):
        small()(noise(1, 1, *shape))


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "layers", "growth", "levels", "width"])
def test_a_parameter_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} must be a whole number of at least 1, not 0"):
        DenseUNet(**{name: 0})
