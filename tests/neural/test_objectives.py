from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from musclekit.errors import ParameterError
from musclekit.neural.losses import adversarial, cycle, edge, monotone
from musclekit.neural.networks import PatchDiscriminator, ResNetGenerator
from musclekit.neural.objectives import MR_TO_CT_LOSS, TranslationLoss, generator_terms, hard_to_easy_loss

WEIGHTS = ("gan", "cycle", "identity", "relu", "edge")


class Counted:
    """A network that does to images what it is told, and counts how often it is asked."""

    def __init__(self, factor: float = 1.0, offset: float = 0.0) -> None:
        self.factor, self.offset, self.calls = factor, offset, 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.factor * images + self.offset


def only(**weights: Any) -> TranslationLoss:
    return TranslationLoss(**{**dict.fromkeys(WEIGHTS, 0.0), **weights})


def images(seed: int) -> torch.Tensor:
    return torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def play(loss: TranslationLoss, **changes: Counted) -> tuple[dict[str, torch.Tensor], dict[str, Counted]]:
    """Terms on random images, and the networks after they were computed."""
    networks = {
        "forward": Counted(0.5, -0.25),  # asymmetric, so that nothing cancels
        "backward": Counted(0.9, 0.3),
        "source_critic": Counted(3.0, 0.1),
        "target_critic": Counted(-2.0, 0.2),
        **changes,
    }
    source, target = images(1), images(2)
    fakes = {"fake_source": networks["backward"](target), "fake_target": networks["forward"](source)}
    terms = generator_terms(loss, **networks, source=source, target=target, **fakes)
    return terms, networks


def test_the_terms_are_those_of_the_papers() -> None:
    """Against each equation written out: h is the source, e the target, F and G the generators."""
    terms, n = play(replace(hard_to_easy_loss(), edge=1.0))
    h, e = images(1), images(2)
    F, G, D_h, D_e = n["forward"], n["backward"], n["source_critic"], n["target_critic"]
    expected = {
        "gan": ((D_e(F(h)) - 1) ** 2).mean() + ((D_h(G(e)) - 1) ** 2).mean(),
        "cycle": (F(G(e)) - e).abs().mean() + (G(F(h)) - h).abs().mean(),
        "identity": (F(e) - e).abs().mean() + (G(h) - h).abs().mean(),
        "relu": (F(h) - h).clamp(min=0).mean() + (e - G(e)).clamp(min=0).mean(),
        "edge": edge(F(h), h) + edge(G(e), e),
    }
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert torch.allclose(term, expected[name]), name
        assert term > 0


def test_the_direction_of_the_relu_loss_can_be_turned() -> None:
    terms, n = play(only(relu=1, relu_direction="brighter"))
    h, e = images(1), images(2)
    expected = monotone(n["forward"](h), h, "brighter") + monotone(n["backward"](e), e, "darker")
    assert torch.allclose(terms["relu"], expected)
    assert not torch.allclose(terms["relu"], play(only(relu=1))[0]["relu"])


def test_the_two_identities_differ() -> None:
    on_target, n = play(only(identity=1, identity_on="target"))
    on_input, _ = play(only(identity=1, identity_on="input"))
    h, e = images(1), images(2)
    assert torch.allclose(on_target["identity"], cycle(n["forward"](e), e) + cycle(n["backward"](h), h))
    assert torch.allclose(on_input["identity"], cycle(n["forward"](h), h) + cycle(n["backward"](e), e))
    assert abs(on_target["identity"] - on_input["identity"]) > 1e-3


def test_the_cross_entropy_is_taken_when_asked_for() -> None:
    terms, n = play(only(gan=1, gan_kind="vanilla"))
    there, back = n["target_critic"](n["forward"](images(1))), n["source_critic"](n["backward"](images(2)))
    assert torch.allclose(terms["gan"], adversarial(there, True, "vanilla") + adversarial(back, True, "vanilla"))


@pytest.mark.parametrize(
    ("loss", "generator_calls", "critic_calls"),
    [
        (only(gan=1), 1, 1),
        (only(cycle=1), 2, 0),
        (only(identity=1), 2, 0),
        (only(identity=1, identity_on="input"), 1, 0),
        (only(relu=1), 1, 0),
        (only(edge=1), 1, 0),
        (hard_to_easy_loss(0, 0), 2, 1),
        (hard_to_easy_loss(), 3, 1),
        (MR_TO_CT_LOSS, 2, 1),
    ],
)
def test_a_term_of_weight_0_is_not_computed(loss: TranslationLoss, generator_calls: int, critic_calls: int) -> None:
    """The first call of a generator is the one that makes the fakes."""
    terms, networks = play(loss)
    assert list(terms) == list(loss.weights)
    assert [networks[name].calls for name in ("forward", "backward")] == [generator_calls] * 2
    assert [networks[name].calls for name in ("source_critic", "target_critic")] == [critic_calls] * 2


def test_a_term_of_weight_0_spoils_nothing() -> None:
    terms, _ = play(only(edge=1), target_critic=Counted(float("nan")))
    assert torch.isfinite(only(edge=1).total(terms))


def test_the_total_is_the_weighted_sum() -> None:
    terms, _ = play(MR_TO_CT_LOSS)
    expected = terms["gan"] + 30 * terms["cycle"] + 0.5 * terms["identity"] + terms["edge"]
    assert torch.allclose(MR_TO_CT_LOSS.total(terms), expected)


def test_a_perfect_translator_of_a_domain_to_itself_costs_nothing() -> None:
    loss = replace(hard_to_easy_loss(), gan=0.0, edge=1.0)
    terms, _ = play(loss, forward=Counted(), backward=Counted())
    assert loss.total(terms) == 0


def test_gradients_of_the_total_reach_both_generators() -> None:
    forward, backward = ResNetGenerator(width=2, blocks=1), ResNetGenerator(width=2, blocks=1)
    critics = {name: PatchDiscriminator(width=2, layers=1) for name in ("source_critic", "target_critic")}
    source, target = images(1), images(2)
    for loss in (hard_to_easy_loss(), MR_TO_CT_LOSS):
        loss.total(
            generator_terms(
                loss,
                forward=forward,
                backward=backward,
                **critics,
                source=source,
                target=target,
                fake_source=backward(target),
                fake_target=forward(source),
            )
        ).backward()
        for weights in (*forward.parameters(), *backward.parameters()):
            assert weights.grad is not None
            assert torch.isfinite(weights.grad).all()
            weights.grad = None


def test_the_losses_of_the_papers_are_data() -> None:
    assert hard_to_easy_loss() == TranslationLoss()
    assert hard_to_easy_loss(2, 1) == TranslationLoss(gan=1, cycle=1, identity=1, relu=2, edge=0, identity_on="target")
    assert MR_TO_CT_LOSS.weights == {"gan": 1, "cycle": 30, "identity": 0.5, "edge": 1}
    assert MR_TO_CT_LOSS.identity_on == "input"
    assert TranslationLoss(**asdict(MR_TO_CT_LOSS)) == MR_TO_CT_LOSS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cycle": -1.0}, "cycle must be a number of at least 0, not -1.0"),
        ({"gan": float("nan")}, "gan must be a number of at least 0, not nan"),
        ({"identity_on": "source"}, "identity_on is one of target, input, not 'source'"),
        ({"relu_direction": "up"}, "relu_direction is one of darker, brighter, not 'up'"),
        ({"gan_kind": "wgan"}, "gan_kind is one of lsgan, vanilla, not 'wgan'"),
        (dict.fromkeys(WEIGHTS, 0.0), "every weight of the loss is 0 .*: there is nothing to train for"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TranslationLoss(**changes)
