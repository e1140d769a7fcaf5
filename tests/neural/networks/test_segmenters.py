"""What every network that segments has to do, whichever it is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from musclekit.errors import GeometryError, ParameterError
from musclekit.neural import networks
from musclekit.neural.networks import PlaneUNets, size_needs
from musclekit.neural.networks.plane_unets import neighbours
from musclekit.neural.networks.sizes import SizeNeeds

CLASSES = 3


@dataclass(frozen=True)
class Small:
    """Parameters that make a network small, and what it learns an image with."""

    parameters: dict[str, Any]
    side: int = 64
    learning_rate: float = 1e-2
    steps: int = 100


SMALL = {
    "unet-256": Small({"width": 8, "levels": 6}),
    "bayesian-unet": Small({"width": 8, "depth": 3, "dropout": 0.1}),
    "unet-2.5d": Small({"width": 8, "levels": 2}, side=16),
    "unet-2d": Small({"width": 8}),
    "unet-3d": Small({"width": 8, "levels": 2}, side=16, steps=150),
    "dense-unet": Small({"layers": 2, "growth": 8, "levels": 3, "width": 8}),
    "manet": Small({"width": 8, "decoder_width": 8}, learning_rate=5e-3),
    "segformer": Small(
        {"width": 8, "depth": 1, "decoder_width": 32, "dropout": 0, "left_out": 0}, learning_rate=5e-3, steps=150
    ),
    "fcn-8s": Small({"width": 8, "dropout": 0}, learning_rate=3e-3),
}
of_every_network = pytest.mark.parametrize("name", networks.segmenters())
of_those_on_slices = pytest.mark.parametrize(
    "name", [name for name in networks.segmenters() if name not in ("unet-2.5d", "unet-3d")]
)


def small(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return networks.build(name, out_channels=CLASSES, **{**SMALL[name].parameters, **changes})


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def sizes(network: nn.Module) -> list[tuple[int, ...]]:
    """Sizes that a network says it takes: the least, and others of unlike sides."""
    needs = size_needs(network)
    return [
        (needs.least,) * needs.dimensions,
        needs.fitted(needs.least + 3 * needs.multiple * axis for axis in range(needs.dimensions)),
        needs.fitted(needs.least + 5 * needs.multiple * (axis % 2 == 0) for axis in range(needs.dimensions)),
    ]


def discs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A disc in a disc (a ball in a ball), noisy, and its classes."""
    shape = (SMALL[name].side,) * size_needs(small(name)).dimensions
    places = torch.meshgrid(*(torch.arange(n) / n - (n - 1) / (2 * n) for n in shape), indexing="ij")
    radius = torch.stack(places).square().sum(0).sqrt()
    classes = (radius < 0.4).long() + (radius < 0.22)
    return (torch.tensor([-1, 0.2, -0.3])[classes] + 0.1 * noise(*shape))[None, None], classes[None]


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def test_the_networks_of_the_papers_have_as_many_weights_as_theirs() -> None:
    with torch.device("meta"):
        assert count(networks.build("unet-256", out_channels=5)) == 54_411_653
        assert count(networks.build("bayesian-unet", out_channels=23)) == 10_994_903
        assert count(networks.build("unet-2d", in_channels=3, out_channels=11)) == 468_139
        planes = networks.build("unet-2.5d", out_channels=11)
        assert isinstance(planes, PlaneUNets)
        assert [count(plane) for plane in planes.planes.values()] == [468_139] * 3


def test_every_segmenter_is_in_the_table_of_small_ones() -> None:
    assert set(SMALL) == set(networks.segmenters()) <= set(networks.names())


@of_every_network
@torch.no_grad()
def test_it_gives_a_logit_of_each_class_at_each_pixel_of_the_sizes_it_takes(name: str) -> None:
    network = small(name).eval()
    for size in sizes(network):
        logits = network(noise(2, 1, *size))
        assert logits.shape == (2, CLASSES, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@of_every_network
def test_the_size_it_takes_with_the_parameters_of_its_paper_goes_through(name: str) -> None:
    with torch.device("meta"):
        network = networks.build(name).eval()
        size = sizes(network)[0]
        assert network(torch.empty(1, 1, *size)).shape == (1, 2, *size)


@of_every_network
def test_a_size_that_it_does_not_take_is_refused_by_name(name: str) -> None:
    network = small(name).eval()
    needs = size_needs(network)
    good = (needs.least,) * needs.dimensions
    shown = " x ".join(map(str, (needs.least - 1, *good[1:])))
    with pytest.raises(GeometryError) as caught:
        network(noise(1, 1, needs.least - 1, *good[1:]))
    assert str(caught.value) == (
        f"images of {shown} do not suit '{name}': every side must be a multiple of {needs.multiple}, and at least "
        f"{needs.least}"
    )
    if needs.multiple > 1:
        with pytest.raises(GeometryError, match=f"do not suit '{name}': every side must be a multiple"):
            network(noise(1, 1, *good[1:], needs.least + needs.multiple // 2))
    with pytest.raises(GeometryError, match=f"'{name}' takes images of {needs.dimensions} dimensions, these have 1"):
        network(noise(1, 1, needs.least))


@of_those_on_slices
def test_it_takes_neighbours_as_channels(name: str) -> None:
    network = small(name, in_channels=3).eval()
    size = sizes(network)[0]
    assert network(noise(1, 3, *size)).shape == (1, CLASSES, *size)


@of_every_network
def test_a_gradient_reaches_every_weight(name: str) -> None:
    network = small(name)
    size = sizes(network)[1]
    network(noise(2, 1, *size)).square().mean().backward()
    for part, weights in network.named_parameters():
        assert weights.grad is not None, part
        assert weights.grad.isfinite().all(), part


def test_a_gradient_of_one_plane_reaches_the_network_of_that_plane_alone() -> None:
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        network = small("unet-2.5d")
        assert isinstance(network, PlaneUNets)
        network.plane_logits(noise(2, 3, 8, 12), axis).square().mean().backward()
        for part, weights in network.named_parameters():
            assert (weights.grad is not None) == part.startswith(f"planes.{plane}."), part


@of_every_network
@torch.no_grad()
def test_the_same_seed_gives_the_same_weights_and_the_same_answer(name: str) -> None:
    one, two, other = small(name), small(name), small(name, seed=1)
    images = noise(1, 1, *sizes(one)[0])
    answers = []
    for network in (one, two, other):
        torch.manual_seed(9)  # of what is dropped
        answers.append(network(images))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


@of_every_network
@torch.no_grad()
def test_set_to_evaluate_it_is_a_function_of_the_image_alone(name: str) -> None:
    network = small(name).eval()
    images = noise(3, 1, *sizes(network)[0])
    assert torch.equal(network(images), network(images))
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-5)


@of_every_network
@torch.no_grad()
def test_weights_go_to_a_file_and_back(name: str) -> None:
    network, other = small(name), small(name, seed=1).eval()
    images = noise(2, 1, *sizes(network)[1])
    network(images)  # norms begin to count
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(images), network.eval()(images))


@of_every_network
@torch.no_grad()
def test_it_can_be_exported(name: str) -> None:
    network = small(name).eval()
    images = noise(1, 1, *sizes(network)[1])
    exported = torch.export.export(network, (images,)).module()
    assert torch.allclose(exported(images), network(images), atol=1e-5)


@of_every_network
@torch.no_grad()
def test_bfloat16_and_channels_last_give_what_float32_gives(name: str) -> None:
    network = small(name)
    dimensions = size_needs(network).dimensions
    images = noise(2, 1, *sizes(network)[1])
    network(images)  # norms begin to count
    expected = functional.softmax(network.eval()(images), dim=1)
    order = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    last = images.contiguous(memory_format=order)
    assert torch.allclose(functional.softmax(network(last), dim=1), expected, atol=1e-5)
    if dimensions == 2:
        network = network.to(memory_format=order)  # type: ignore[call-overload]
        assert torch.allclose(functional.softmax(network(last), dim=1), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(last)
    assert (functional.softmax(mixed.float(), dim=1) - expected).abs().mean() < 0.02


def dice(found: torch.Tensor, wanted: torch.Tensor) -> float:
    scores = [
        2 * ((found == k) & (wanted == k)).sum() / ((found == k).sum() + (wanted == k).sum()) for k in range(CLASSES)
    ]
    return float(torch.stack(scores).mean())


@of_every_network
def test_it_learns_one_image_by_heart(name: str) -> None:
    network = small(name)
    images, classes = discs(name)
    optimiser = torch.optim.Adam(network.parameters(), lr=SMALL[name].learning_rate)
    reached = 0.0
    torch.manual_seed(0)
    for step in range(SMALL[name].steps):
        network.train()
        if isinstance(network, PlaneUNets):
            index = torch.arange(SMALL[name].side)
            loss = sum(
                functional.cross_entropy(
                    network.plane_logits(neighbours(images[:, 0], axis, index, network.distance), axis),
                    classes.movedim(axis + 1, 1)[0],
                )
                for axis in range(3)
            )
        else:
            loss = functional.cross_entropy(network(images), classes)
        optimiser.zero_grad()
        torch.as_tensor(loss).backward()
        optimiser.step()
        if step % 10 == 9:
            with torch.no_grad():
                reached = dice(network.eval()(images).argmax(1), classes)
            if reached >= 0.98:
                return
    pytest.fail(f"it came to a Dice of {reached:.3f}")


@of_every_network
@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("out_channels", 0, "out_channels must be a whole number of at least 1, not 0"),
        ("in_channels", 0, "in_channels must be a whole number of at least 1"),
        ("width", 1.5, r"width must be a whole number of at least 1, not 1\.5"),
        ("colour", 1, "has no parameter 'colour'; it has: in_channels, out_channels, "),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, parameter: str, value: float, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        networks.build(name, **{parameter: value})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("unet-256", {"levels": 1}, "levels must be a whole number of at least 2, not 1"),
        ("unet-256", {"dropout": 1}, r"dropout must be a number of at least 0 and of at most 0\.99, not 1"),
        ("bayesian-unet", {"depth": 1}, "depth must be a whole number of at least 2, not 1"),
        ("bayesian-unet", {"dropout": -0.5}, r"dropout must be a number of at least 0 and of at most 0\.99, not -0\.5"),
        ("bayesian-unet", {"placement": "end"}, "placement is one of block, paper, not 'end'"),
        ("unet-2d", {"levels": 0}, "levels must be a whole number of at least 1, not 0"),
        ("unet-2d", {"norm": "layer"}, "norm is one of batch, instance, not 'layer'"),
        ("unet-3d", {"dropout": 1}, r"dropout must be a number of at least 0 and of at most 0\.99, not 1"),
        ("unet-2.5d", {"in_channels": 3}, "in_channels must be a whole number of at least 1 and of at most 1, not 3"),
        ("unet-2.5d", {"distance": 0}, "distance must be a whole number of at least 1, not 0"),
        ("unet-2.5d", {"fusion": "vote"}, "fusion is one of mean, max, plurality, not 'vote'"),
        ("unet-2.5d", {"levels": 0}, "levels must be a whole number of at least 1, not 0"),
    ],
)
def test_parameters_of_its_own_are_looked_at(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        networks.build(name, **parameters)


@pytest.mark.parametrize("name", ["unet-2d", "unet-3d"])
@torch.no_grad()
def test_instance_norms_see_their_own_image_in_training_and_in_use(name: str) -> None:
    network = small(name, norm="instance")
    images = noise(2, 1, *sizes(network)[0])
    trained = network(images)
    assert torch.allclose(network.eval()(images), trained, atol=1e-5)


def test_sizes_are_fitted_upwards() -> None:
    assert SizeNeeds(2, 32, 64).fitted((1, 64, 65)) == (64, 64, 96)
    assert SizeNeeds(3, 1, 4).fitted((3, 7)) == (4, 7)


def test_what_does_not_segment_states_no_needs() -> None:
    with pytest.raises(ParameterError, match="ResNetGenerator does not segment"):
        size_needs(networks.build("resnet-generator", width=2, blocks=1))
