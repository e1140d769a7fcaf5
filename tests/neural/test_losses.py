from __future__ import annotations

import math

import pytest
import torch

from musclekit.neural.losses import GanLoss, adversarial, cycle, edge, monotone, sobel_edges


def images(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)[None, None]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_least_squares_by_hand() -> None:
    logits = torch.tensor([0.0, 1.0, 3.0])
    assert adversarial(logits, True) == pytest.approx((1 + 0 + 4) / 3)
    assert adversarial(logits, False, "lsgan") == pytest.approx((0 + 1 + 9) / 3)


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)])  # probabilities 1/2 and 3/4
    assert adversarial(logits, True, "vanilla") == pytest.approx(-(math.log(1 / 2) + math.log(3 / 4)) / 2)
    assert adversarial(logits, False, "vanilla") == pytest.approx(-(math.log(1 / 2) + math.log(1 / 4)) / 2)


@pytest.mark.parametrize("kind", ["lsgan", "vanilla"])
def test_a_generator_is_pushed_towards_real_however_sure_the_discriminator_is(kind: GanLoss) -> None:
    logits = torch.tensor([-40.0, 0.0], requires_grad=True)
    adversarial(logits, True, kind).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad < 0).all()


def test_a_cycle_is_a_mean_over_pixels() -> None:
    assert cycle(images([1, 2], [3, 4]), images([1, 0], [4, 4])) == pytest.approx(3 / 4)


def test_the_relu_loss_of_the_specification() -> None:
    hard, easy = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.3, 0.4, 0.5])
    assert monotone(easy, hard, "darker") == pytest.approx(0.0333, abs=1e-4)
    assert monotone(easy, hard, "brighter") == pytest.approx((0.1 + 0.4) / 3)


def test_only_pixels_that_move_the_wrong_way_are_pushed() -> None:
    fake = torch.tensor([0.3, 0.4, 0.5], requires_grad=True)
    monotone(fake, torch.tensor([0.2, 0.5, 0.9]), "darker").backward()
    assert fake.grad is not None
    assert fake.grad.tolist() == pytest.approx([1 / 3, 0, 0])


def test_edges_of_a_ramp_and_a_step() -> None:
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    assert torch.allclose(sobel_edges(ramp)[0, 0, 1], torch.tensor([1.0, 2, 2, 2, 1]))
    assert torch.allclose(sobel_edges(ramp.transpose(2, 3)), sobel_edges(ramp).transpose(2, 3))
    corner = images([0, 0, 0], [0, 0, 3], [0, 4, 0])
    assert sobel_edges(corner)[0, 0, 1, 1] == pytest.approx(5)


def test_equal_images_have_no_edge_loss_nor_have_constant_ones() -> None:
    a = noise(2, 1, 8, 8)
    assert edge(a, a) == 0
    assert edge(torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), -0.2)) == 0


def test_the_edge_loss_does_not_see_brightness_but_sees_contrast() -> None:
    a = noise(1, 1, 8, 8).double()
    assert float(edge(a + 0.3, a)) == pytest.approx(0, abs=1e-12)
    assert float(edge(2 * a, a)) == pytest.approx(float(sobel_edges(a).mean()), rel=1e-6)


def test_gradients_of_the_edge_loss_are_finite_where_there_is_no_edge() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        flat = torch.full((1, 1, 8, 8), 0.5, dtype=dtype, requires_grad=True)
        edge(flat, noise(1, 1, 8, 8).to(dtype)).backward()
        assert flat.grad is not None
        assert torch.isfinite(flat.grad).all()


def test_gradients_of_the_edge_loss_are_those_of_finite_differences() -> None:
    b = noise(1, 1, 4, 5, seed=1).double()
    assert torch.autograd.gradcheck(lambda a: edge(a, b), noise(1, 1, 4, 5).double().requires_grad_())


def test_low_precision_images_are_compared_in_float32() -> None:
    a, b = noise(1, 1, 64, 64).bfloat16(), noise(1, 1, 64, 64, seed=1).bfloat16()
    for term in (cycle, edge, lambda x, y: monotone(x, y, "darker"), lambda x, _: adversarial(x, True)):
        assert term(a, b).dtype == torch.float32
        assert float(term(a, b)) == pytest.approx(float(term(a.double(), b.double())), rel=1e-5)
