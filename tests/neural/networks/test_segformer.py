from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from musclekit.errors import GeometryError, ParameterError
from musclekit.neural.networks.dropout import can_be_sampled
from musclekit.neural.networks.segformer import SegFormer, _Block

#: What parts are called in transformers, and here.
NAMES = {
    "segformer.stages": "stages",
    "patch_embeddings.proj": "patches",
    "patch_embeddings.layer_norm": "patch_norm",
    "layernorm_before": "attention_norm",
    "layernorm_after": "mixing_norm",
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.o_proj": "attention.out",
    "attention.sequence_reduction.sequence_reduction": "attention.thin",
    "attention.sequence_reduction.layer_norm": "attention.norm",
    "mlp.fc1": "mixing.expand",
    "mlp.dwconv.dwconv": "mixing.neighbours",
    "mlp.fc2": "mixing.contract",
    "layer_norm": "norm",
    "decode_head.linear_fuse": "fuse.0",
    "decode_head.batch_norm": "fuse.1",
    "decode_head.classifier": "fuse.4",
}


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def small() -> SegFormer:
    torch.manual_seed(0)
    return SegFormer(1, 3, width=4, depth=1, decoder_width=8)


def called_here(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\g<1>{ours}.", name)
    return re.sub(r"decode_head\.linear_projections\.(\d)\.proj", r"unify.\1", name)


def test_it_has_the_weights_of_the_paper() -> None:
    # 3.8 million in Xie et al., table 1: 3.4 of the encoder, 0.4 of the decoder.
    with torch.device("meta"):
        assert count(SegFormer(3, 150)) == 3_752_694
        assert count(SegFormer(3, 19)) == 3_719_027


@pytest.mark.parametrize(("width", "depth", "decoder_width"), [(32, 2, 256), (4, 1, 16)])
def test_with_the_weights_of_transformers_it_says_what_transformers_says(
    width: int, depth: int, decoder_width: int
) -> None:
    torch.manual_seed(0)
    config = SegformerConfig(
        num_channels=3,
        num_labels=4,
        hidden_sizes=[heads * width for heads in (1, 2, 5, 8)],
        depths=[depth] * 4,
        decoder_hidden_size=decoder_width,
    )
    reference = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for name, weights in reference.state_dict().items():
            # First weights of norms and biases are all alike, and hide what is left out.
            if weights.dim() == 1:
                weights.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else weights.normal_(0, 0.2)
            elif weights.dim():
                weights.mul_(3)
    network = SegFormer(3, 4, width=width, depth=depth, decoder_width=decoder_width).eval()
    network.load_state_dict({called_here(name): weights for name, weights in reference.state_dict().items()})
    images = noise(2, 3, 64, 96)
    with torch.no_grad():
        expected = reference(images).logits
        assert expected.std() > 0.1
        assert torch.allclose(network.coarse(images), expected, atol=1e-5, rtol=1e-5)
        full = functional.interpolate(expected, size=(64, 96), mode="bilinear", align_corners=False)
        assert torch.allclose(network(images), full, atol=1e-5, rtol=1e-5)


def test_a_block_is_left_out_of_whole_images() -> None:
    torch.manual_seed(0)
    block = _Block(4, heads=1, reduction=1, left_out=0.5)
    tokens = noise(1, 6, 4).repeat(64, 1, 1)
    changes = block._thinned(tokens) / tokens
    assert set(changes.unique().tolist()) == {0.0, 2.0}
    assert (changes == changes[:, :1, :1]).all()
    assert torch.equal(block.eval()._thinned(tokens), tokens)


def test_later_blocks_are_left_out_more_often() -> None:
    network = SegFormer(width=1, depth=2, decoder_width=1, left_out=0.7)
    shares = [block.left_out for stage in network.stages for block in stage.blocks]
    assert shares == pytest.approx([0.1 * block for block in range(8)])


def test_without_dropout_and_blocks_left_out_training_has_no_chance_in_it() -> None:
    network = SegFormer(width=2, depth=1, decoder_width=4, dropout=0, left_out=0)
    images = noise(2, 1, 32, 32)
    assert torch.equal(network(images), network(images))
    assert can_be_sampled(small())
    assert not can_be_sampled(network)


@torch.no_grad()
def test_first_weights_follow_their_layer() -> None:
    torch.manual_seed(0)
    network = SegFormer(depth=1)
    block = network.stages[3].blocks[0]
    assert block.mixing.expand.weight.std() == pytest.approx(0.02, rel=0.02)
    # 9 pixels of one channel, and of 256 channels.
    assert block.mixing.neighbours.weight.std() == pytest.approx((2 / 9) ** 0.5, rel=0.02)
    assert network.stages[3].patches.weight.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert all((weights == 0).all() for name, weights in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("shape", [(64, 80), (16, 32)])
def test_another_size_is_refused(shape: tuple[int, int]) -> None:
    message = f"images of {shape[0]} x {shape[1]} do not suit 'segformer': every side must be a multiple of 32, and at "
    with pytest.raises(GeometryError, match=f"{message}least 32"):
        small()(noise(1, 1, *shape))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, not 0"),
        ({"depth": 0}, "depth must be a whole number of at least 1, not 0"),
        ({"decoder_width": 2.5}, "decoder_width must be a whole number of at least 1, not 2.5"),
        ({"left_out": 1}, "left_out must be a number of at least 0 and of at most 0.99, not 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SegFormer(**parameters)  # type: ignore[arg-type]
