from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import nn

from musclekit.errors import ParameterError
from musclekit.neural.networks import BayesianUNet, MonteCarloDropout, UNet2D, can_be_sampled, sampled


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def small(**parameters: float | str) -> BayesianUNet:
    torch.manual_seed(0)
    return BayesianUNet(1, 3, width=4, depth=3, **parameters).eval()  # type: ignore[arg-type]


@torch.no_grad()
def answer(network: nn.Module, images: torch.Tensor, seed: int) -> torch.Tensor:
    with sampled(network, seed):
        result: torch.Tensor = network(images)
    return result


def seeds(network: nn.Module) -> list[int | None]:
    return [part.seed for part in network.modules() if isinstance(part, MonteCarloDropout)]


def test_a_seed_is_one_sample_whatever_it_is_asked_about() -> None:
    network, images = small(), noise(5, 1, 16, 16)
    whole = answer(network, images, 7)
    assert torch.equal(answer(network, images, 7), whole)
    for size in (1, 2, 3):
        parts = torch.cat([answer(network, part, 7) for part in images.split(size)])
        assert torch.allclose(parts, whole, atol=1e-5)


def test_a_sample_does_not_depend_on_the_state_of_torch() -> None:
    network, images = small(), noise(1, 1, 16, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = answer(network, images, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(answer(network, images, 7), first)


def test_other_seeds_are_other_samples() -> None:
    network, images = small(), noise(1, 1, 16, 16)
    answers = [answer(network, images, seed) for seed in (0, 1, 2, 2**64 - 1)]
    assert all(not torch.allclose(one, other) for one, other in pairwise(answers))


def test_layers_do_not_drop_alike() -> None:
    network = nn.Sequential(MonteCarloDropout(), nn.Identity(), MonteCarloDropout())
    kept = answer(network, torch.ones(1, 64), 0)
    # What two layers keep that know nothing of each other is a quarter.
    assert 4 <= torch.count_nonzero(kept) <= 28
    assert set(kept.unique().tolist()) == {0.0, 4.0}


def test_a_sample_is_of_a_share_and_keeps_the_mean() -> None:
    features = torch.ones(2, 100, 40)
    for p in (0.1, 0.5, 0.8):
        kept = answer(MonteCarloDropout(p), features, 0)
        assert torch.equal(kept[0], kept[1])
        assert float((kept == 0).float().mean()) == pytest.approx(p, abs=0.03)
        assert float(kept.max()) == pytest.approx(1 / (1 - p))


def test_the_mean_of_many_samples_of_something_linear_is_what_it_says_without_dropout() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(MonteCarloDropout(0.3), nn.Linear(32, 4)).eval()
    features = noise(6, 32)
    with torch.no_grad():
        expected = network(features)
    samples = torch.stack([answer(network, features, seed) for seed in range(2000)])
    spread = samples.std(0) / len(samples) ** 0.5
    assert spread.min() > 0
    assert ((samples.mean(0) - expected).abs() < 5 * spread).all()


@torch.no_grad()
def test_afterwards_everything_is_as_it_was_even_after_an_error() -> None:
    network, images = small(), noise(1, 1, 16, 16)
    expected = network(images)
    with sampled(network, 3):
        assert None not in seeds(network)
    assert set(seeds(network)) == {None}

    def interrupted() -> Iterator[None]:
        with sampled(network, 3):
            raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        list(interrupted())
    assert set(seeds(network)) == {None}
    assert torch.equal(network(images), expected)


def test_norms_stay_as_they_are() -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    answer(network, noise(2, 1, 16, 16), 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training


def test_a_network_without_dropout_cannot_be_sampled() -> None:
    for network in (UNet2D(width=2), small(dropout=0), nn.Sequential(nn.Dropout(0.5))):
        assert not can_be_sampled(network)
        with (
            pytest.raises(ParameterError, match="the network has no dropout: there is nothing to sample"),
            sampled(network, 0),
        ):
            pass
    assert can_be_sampled(small())
    assert can_be_sampled(UNet2D(width=2, dropout=0.2))


def test_in_training_it_is_ordinary_dropout_and_in_use_none() -> None:
    part, features = MonteCarloDropout(0.5), torch.ones(2, 500)
    torch.manual_seed(0)
    ordinary = nn.functional.dropout(features, 0.5)
    torch.manual_seed(0)
    assert torch.equal(part.train()(features), ordinary)
    assert not torch.equal(ordinary[0], ordinary[1])
    assert part.eval()(features) is features


@pytest.mark.parametrize("p", [-0.1, 1, "half"])
def test_what_is_no_share_is_refused(p: float) -> None:
    with pytest.raises(ParameterError, match=r"dropout must be a number of at least 0 and of at most 0\.99, not"):
        MonteCarloDropout(p)


def test_memory_and_precision_do_not_change_what_is_dropped() -> None:
    part, features = MonteCarloDropout(0.5), noise(2, 8, 6, 6)
    plain = answer(part, features, 1)
    last = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(answer(part, last, 1), plain)
    assert answer(part, features.bfloat16(), 1).dtype == torch.bfloat16


def test_dropout_stands_where_the_code_or_the_paper_has_it() -> None:
    block, paper = small(placement="block"), small(placement="paper")
    # After each of 3 blocks down and 2 up; before each of 2 pools and after each of 2 transposed convolutions.
    assert (len(seeds(block)), len(seeds(paper))) == (5, 4)
    for parts in (block.down, block.up):
        assert all(isinstance(part[-1], MonteCarloDropout) for part in parts)
    assert all(isinstance(part[0], MonteCarloDropout) for part in paper.pool)
    assert all(isinstance(part[-1], MonteCarloDropout) for part in paper.doubling)
    # Both have the same weights, and without dropout say the same.
    paper.load_state_dict(
        dict(zip(paper.state_dict(), block.state_dict().values(), strict=True)),
    )
    images = noise(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(block(images), paper(images))
    assert not torch.equal(answer(block, images, 0), answer(paper, images, 0))


@torch.no_grad()
def test_a_skip_is_dropped_with_its_block_but_not_in_the_paper() -> None:
    for placement, dropped in (("block", True), ("paper", False)):
        network, seen = small(placement=placement), []
        network.up[0][0].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        answer(network, noise(1, 1, 16, 16), 0)
        skip = seen[0][:, -4:]
        full = network.down[0](noise(1, 1, 16, 16))
        assert bool(((skip == 0) & (full != 0)).any()) == dropped
