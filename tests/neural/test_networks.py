from __future__ import annotations

import pytest
import torch
from torch import nn

from musclekit.errors import GeometryError, ParameterError, UnknownNameError
from musclekit.neural import networks
from musclekit.neural.networks import PatchDiscriminator, ResNetGenerator, initialise


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def small(seed: int = 0) -> ResNetGenerator:
    generator = ResNetGenerator(width=4, blocks=2)
    initialise(generator, torch.Generator().manual_seed(seed))
    return generator


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_the_networks_of_the_papers_have_the_papers_parameters() -> None:
    assert count(networks.build("resnet-generator")) == 11_365_633
    assert count(networks.build("patch-discriminator")) == 2_762_689
    assert count(networks.build("entropy-discriminator", in_channels=5)) == 2_766_785


def test_both_ways_up_have_as_many_weights() -> None:
    assert count(networks.build("resnet-generator", upsampling="resize")) == 11_365_633


def test_resizing_leaves_no_chequers() -> None:
    # What a constant image becomes, while nothing is trained: any pattern comes from the way up.
    def pattern(upsampling: str) -> float:
        generator = ResNetGenerator(width=4, blocks=0, upsampling=upsampling)  # type: ignore[arg-type]
        initialise(generator, torch.Generator().manual_seed(0))
        doubling = generator.up[0]
        with torch.no_grad():
            grown = doubling(torch.ones(1, 16, 16, 16))[..., 4:-4, 4:-4]
        return float((grown[..., 1:] - grown[..., :-1]).abs().max())

    assert pattern("resize") < 1e-6
    assert pattern("transposed") > 0.01


def test_another_way_up_is_refused() -> None:
    with pytest.raises(ParameterError, match="upsampling is one of transposed, resize, not 'bilinear'"):
        networks.build("resnet-generator", upsampling="bilinear")


def test_256_pixels_are_judged_in_30_by_30_patches() -> None:
    with torch.device("meta"):
        assert PatchDiscriminator()(torch.empty(2, 1, 256, 256)).shape == (2, 1, 30, 30)


def test_a_patch_has_70_by_70_pixels() -> None:
    discriminator = PatchDiscriminator(width=2)
    # Instance norms look at the whole image: without them only the convolutions' field is left.
    without = nn.Sequential(*(part for part in discriminator.judge if not isinstance(part, nn.InstanceNorm2d)))
    image = noise(1, 1, 160, 160).requires_grad_()
    without(image)[0, 0, 9, 9].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize("shape", [(8, 8), (12, 20), (64, 36), (100, 100)])
def test_any_multiple_of_4_gives_an_image_of_the_same_size(shape: tuple[int, int]) -> None:
    translated = small()(noise(2, 1, *shape))
    assert translated.shape == (2, 1, *shape)
    assert translated.abs().max() <= 1


@pytest.mark.parametrize("shape", [(63, 64), (64, 66), (4, 64)])
def test_another_size_is_refused_with_the_multiple(shape: tuple[int, int]) -> None:
    with pytest.raises(
        GeometryError, match=rf"images of {shape[0]} x {shape[1]} pixels .* multiples of 4, and at least 8"
    ):
        small()(noise(1, 1, *shape))


def test_channels_need_not_be_one() -> None:
    assert ResNetGenerator(3, 2, width=2, blocks=1)(noise(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_nothing_follows_the_sum_of_a_residual_block() -> None:
    block = small().blocks[0]
    assert (block(noise(1, 16, 8, 8)) < 0).any()


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_smallest_image_of_a_discriminator_gives_one_logit_and_a_smaller_one_is_refused(layers: int) -> None:
    discriminator = PatchDiscriminator(width=2, layers=layers)
    least = discriminator.least
    assert discriminator(noise(1, 1, least, least)).shape == (1, 1, 1, 1)
    message = rf"{least - 1} x {least} pixels are too small .* at least {least} rows and columns, or fewer layers"
    with pytest.raises(GeometryError, match=message):
        discriminator(noise(1, 1, least - 1, least))


def test_the_discriminator_of_entropy_halves_five_times() -> None:
    discriminator = networks.build("entropy-discriminator", in_channels=3, width=2)
    assert discriminator(noise(1, 3, 256, 64)).shape == (1, 1, 8, 2)
    with pytest.raises(GeometryError, match=r"maps of 31 x 32 pixels are too small .* at least 32 rows and columns"):
        discriminator(noise(1, 3, 31, 32))


@pytest.mark.parametrize("name", ["resnet-generator", "patch-discriminator"])
def test_bfloat16_and_channels_last_give_what_float32_gives(name: str) -> None:
    network = networks.build(name, width=4)
    initialise(network, torch.Generator().manual_seed(0))
    images = noise(2, 1, 32, 32)
    expected = network(images)
    last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert torch.allclose(last, expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(images)
    assert (mixed.float() - expected).abs().mean() < 0.02
    half = network.to(torch.bfloat16)(images.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().mean() < 0.05


def test_gradients_reach_every_weight() -> None:
    generator, discriminator = small(), PatchDiscriminator(width=2, layers=2)
    discriminator(generator(noise(1, 1, 32, 32))).square().mean().backward()
    for weights in (*generator.parameters(), *discriminator.parameters()):
        assert weights.grad is not None


def test_an_image_is_translated_alike_in_any_company() -> None:
    images = noise(3, 1, 16, 16)
    generator = small()
    assert torch.allclose(generator(images)[1:2], generator(images[1:2]), atol=1e-6)


def test_first_weights_are_normal_and_biases_zero() -> None:
    generator = ResNetGenerator(width=16, blocks=2)
    initialise(generator, torch.Generator().manual_seed(1))
    weights = torch.cat(
        [part.detach().flatten() for name, part in generator.named_parameters() if name.endswith("weight")]
    )
    assert abs(weights.mean()) < 5e-4
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    assert all((part == 0).all() for name, part in generator.named_parameters() if name.endswith("bias"))


def test_first_weights_follow_from_the_seed_and_from_nothing_else() -> None:
    torch.manual_seed(5)
    first = small(7).state_dict()
    torch.manual_seed(6)
    for name, weights in small(7).state_dict().items():
        assert torch.equal(weights, first[name])
    assert not torch.equal(small(8).state_dict()["down.0.weight"], first["down.0.weight"])


def test_names_are_those_that_can_be_built() -> None:
    assert networks.names() == (
        "resnet-generator", "patch-discriminator", "entropy-discriminator", *networks.segmenters(),
    )  # fmt: skip
    for name in networks.names():
        needed = {"in_channels": 5} if name == "entropy-discriminator" else {}
        assert isinstance(networks.build(name, width=2, **needed), nn.Module)


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown network 'resnet'.*Known: .*patch-discriminator, resnet-generator"
    ):
        networks.build("resnet")


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    message = "'resnet-generator' has no parameter 'depth'; it has: in_channels, out_channels, width, blocks"
    with pytest.raises(ParameterError, match=message):
        networks.build("resnet-generator", depth=3)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("resnet-generator", {"width": 0}, "width must be a whole number of at least 1, not 0"),
        ("resnet-generator", {"blocks": -1}, "blocks must be a whole number of at least 0, not -1"),
        ("resnet-generator", {"out_channels": 1.5}, "out_channels must be a whole number of at least 1, not 1.5"),
        ("patch-discriminator", {"layers": 0}, "layers must be a whole number of at least 1, not 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        networks.build(name, **parameters)
