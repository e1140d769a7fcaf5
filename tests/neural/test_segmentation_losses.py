from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from musclekit.errors import ParameterError
from musclekit.neural.labelled import UNLABELLED
from musclekit.neural.segmentation_losses import SegmentationLoss, cross_entropy, soft_dice

#: Of background, gracilis, hamstrings, quadriceps and sartorius in Yang et al.
WEIGHTS = torch.tensor([1.0, 10.0, 1.0, 1.0, 10.0])


def noise(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def classes(*shape: int, n: int = 4) -> torch.Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(4))


def test_the_golden_of_both_reductions() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    wanted = torch.tensor([0, 1])
    by_hand = -np.log(np.exp([2, 1]) / (np.exp([2, 1]) + 4))
    assert by_hand == pytest.approx([0.432653, 0.904832], abs=1e-6)
    assert float(cross_entropy(logits, wanted)) == pytest.approx(by_hand.mean())
    assert float(cross_entropy(logits, wanted, WEIGHTS)) == pytest.approx(4.740489, abs=1e-6)
    assert float(cross_entropy(logits, wanted, WEIGHTS, reduction="weights")) == pytest.approx(0.861907, abs=1e-6)
    assert float(cross_entropy(logits, wanted, reduction="weights")) == pytest.approx(by_hand.mean())


def test_divided_by_the_weights_it_is_that_of_torch() -> None:
    logits, wanted, weights = noise(2, 4, 5, 6), classes(2, 5, 6), torch.tensor([0.5, 2.0, 0.0, 1.0])
    wanted[:, 2:4] = UNLABELLED
    for given in (None, weights):
        expected = functional.cross_entropy(logits, wanted, given, ignore_index=UNLABELLED)
        assert torch.allclose(cross_entropy(logits, wanted, given, reduction="weights"), expected)


def test_soft_dice_by_hand() -> None:
    # One column of logs of probabilities for each of three pixels.
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.8, 0.9]])
    logits, wanted = probabilities.log()[None], torch.tensor([[0, 1, 1]])
    background, inside = 2 * 0.7 / (1.0 + 1), 2 * (0.8 + 0.9) / (2.0 + 2)
    assert float(soft_dice(logits, wanted)) == pytest.approx(1 - (background + inside) / 2, abs=1e-6)
    assert float(soft_dice(logits, wanted, background=False)) == pytest.approx(1 - inside, abs=1e-6)


def test_soft_dice_is_taken_over_the_whole_batch() -> None:
    logits, wanted = noise(3, 4, 5, 6), classes(3, 5, 6)
    probabilities, hot = logits.softmax(1), functional.one_hot(wanted, 4).movedim(-1, 1).float()
    dice = [
        float(2 * (probabilities[:, k] * hot[:, k]).sum() / (probabilities[:, k].sum() + hot[:, k].sum()))
        for k in range(4)
    ]
    assert float(soft_dice(logits, wanted)) == pytest.approx(1 - np.mean(dice), abs=1e-6)
    assert float(soft_dice(logits, wanted, background=False)) == pytest.approx(1 - np.mean(dice[1:]), abs=1e-6)
    assert not math.isclose(
        float(soft_dice(logits, wanted)), float(np.mean([soft_dice(one[None], two[None]) for one, two in
                                                         zip(logits, wanted, strict=True)])), rel_tol=1e-4
    )  # fmt: skip


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("shape", [(3, 8, 9), (2, 4, 5, 6)])
def test_soft_dice_is_that_of_monai(shape: tuple[int, ...], background: bool) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, wanted = noise(shape[0], 4, *shape[1:]), classes(*shape)
    monai = losses.DiceLoss(
        softmax=True, to_onehot_y=True, batch=True, include_background=background, smooth_nr=1e-6, smooth_dr=1e-6
    )
    assert torch.allclose(soft_dice(logits, wanted, background=background), monai(logits, wanted[:, None]), atol=1e-6)


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_everything() -> None:
    wanted = classes(2, 6, 6)
    right = 200.0 * functional.one_hot(wanted, 4).movedim(-1, 1).float()
    wrong = right.roll(1, dims=1)
    for value in (cross_entropy(right, wanted), soft_dice(right, wanted)):
        assert float(value) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice(wrong, wanted)) == pytest.approx(1, abs=1e-6)
    assert float(cross_entropy(wrong, wanted)) == pytest.approx(200)


def test_what_nothing_is_known_of_takes_no_part() -> None:
    logits, wanted = noise(2, 4, 6, 6), classes(2, 6, 6)
    wanted[:, :, 3:] = UNLABELLED
    alone = logits[..., :3].contiguous(), wanted[..., :3].contiguous()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for one, other in (
        (cross_entropy(logits, wanted), cross_entropy(*alone)),
        (cross_entropy(logits, wanted, weights), cross_entropy(*alone, weights)),
        (cross_entropy(logits, wanted, weights, reduction="weights"),
         cross_entropy(*alone, weights, reduction="weights")),
        (soft_dice(logits, wanted), soft_dice(*alone)),
        (soft_dice(logits, wanted, background=False), soft_dice(*alone, background=False)),
    ):  # fmt: skip
        assert torch.allclose(one, other)
    logits.requires_grad_()
    loss = SegmentationLoss(class_weights=(1.0, 2.0, 3.0, 4.0))
    loss.total(loss.terms(logits, wanted)).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 3:] == 0).all()
    assert (logits.grad[..., :3] != 0).all()


@pytest.mark.parametrize("reduction", ["pixels", "weights"])
def test_the_gradient_is_finite_where_a_class_or_everything_is_absent(reduction: Any) -> None:
    for wanted in (torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), UNLABELLED)):
        for background in (True, False):
            logits = noise(1, 4, 4, 4).requires_grad_()
            loss = SegmentationLoss(class_weights=(0.0, 1.0, 2.0, 3.0), reduction=reduction, dice_background=background)
            total = loss.total(loss.terms(logits, wanted))
            total.backward()
            assert total.isfinite()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()
    assert float(cross_entropy(noise(1, 4, 2, 2), torch.full((1, 2, 2), UNLABELLED), reduction=reduction)) == 0


def test_half_precision_is_computed_in_single() -> None:
    logits, wanted = noise(1, 4, 64, 64).bfloat16(), classes(1, 64, 64)
    for term in (cross_entropy, soft_dice):
        value = term(logits, wanted)
        assert value.dtype == torch.float32
        assert torch.equal(value, term(logits.float(), wanted))


def test_gradients_are_those_of_finite_differences() -> None:
    logits, wanted = noise(1, 3, 2, 2).double().requires_grad_(), classes(1, 2, 2, n=3)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, wanted), logits)
    assert torch.autograd.gradcheck(lambda x: soft_dice(x, wanted), logits)


def test_terms_are_weighed_and_those_of_weight_0_are_not_computed() -> None:
    logits, wanted = noise(1, 4, 5, 5), classes(1, 5, 5)
    both = SegmentationLoss(cross_entropy=0.5, dice=2.0)
    terms = both.terms(logits, wanted)
    assert list(terms) == ["cross_entropy", "dice"]
    assert torch.allclose(both.total(terms), 0.5 * cross_entropy(logits, wanted) + 2 * soft_dice(logits, wanted))
    assert list(SegmentationLoss(cross_entropy=0).terms(logits, wanted)) == ["dice"]
    assert SegmentationLoss(dice=0).weights == {"cross_entropy": 1.0}
    without = SegmentationLoss(cross_entropy=0, dice_background=False)
    assert torch.equal(without.total(without.terms(logits, wanted)), soft_dice(logits, wanted, background=False))


def test_class_weights_may_be_whole_numbers_as_a_plan_has_them() -> None:
    logits, wanted = noise(1, 5, 6, 6), classes(1, 6, 6, n=5)
    loss = SegmentationLoss(dice=0, class_weights=(1, 10, 1, 1, 10))
    assert torch.equal(loss.terms(logits, wanted)["cross_entropy"], cross_entropy(logits, wanted, WEIGHTS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dice": -1}, "dice must be a number of at least 0, not -1"),
        ({"cross_entropy": 0, "dice": 0}, "cross_entropy and dice both weigh 0: there is nothing to learn by"),
        ({"class_weights": (1, -1)}, "class_weights must be a number of at least 0, not -1"),
        ({"class_weights": (0, 0)}, "all class_weights are 0: there is nothing to learn by"),
        ({"reduction": "mean"}, "reduction is one of pixels, weights, not 'mean'"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SegmentationLoss(**fields)
