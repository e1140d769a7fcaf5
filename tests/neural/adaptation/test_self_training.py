"""A segmenter that goes on learning from its own labels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from musclekit.errors import InputError, ParameterError
from musclekit.neural import networks
from musclekit.neural.adaptation.learner import learn
from musclekit.neural.adaptation.self_training import EasyHardDraw, SelfTrainer, TuneSchedule, self_information
from tests.neural.adaptation.learners import CPU, SEGMENTER, SIZE, source, target

EASY = source(4)
DRAW = EasyHardDraw(EASY.images, EASY.classes, target(2).images, 2)


def trainer(**schedule: float) -> SelfTrainer:
    torch.manual_seed(0)
    network = networks.build(**SEGMENTER)
    how = TuneSchedule(**{"epochs": 2, "batch": 2, **schedule})  # type: ignore[arg-type]
    return SelfTrainer(network, classes=3, schedule=how, seed=1, device=CPU, discriminator={"width": 4})


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, classes, others = next(DRAW.epoch(np.random.default_rng(0)))
    return (
        torch.from_numpy(images.astype(np.float32)[:, None]),
        torch.from_numpy(classes.astype(np.int64)),
        torch.from_numpy(others.astype(np.float32)[:, None]),
    )


def test_self_information_sums_to_the_normalised_entropy() -> None:
    # The figures of the method sheet: 0.627401, and 0.125480 as the mean over channels.
    p = torch.tensor([0.7, 0.1, 0.1, 0.05, 0.05])
    found = self_information(p.log()[None, :, None, None])
    assert float(found.sum()) == pytest.approx(0.627401, abs=1e-5)
    assert float(found.mean()) == pytest.approx(0.125480, abs=1e-5)
    even = self_information(torch.zeros(1, 4, 1, 1))
    assert float(even.sum()) == pytest.approx(1)
    sure = torch.tensor([60.0, -60.0])[None, :, None, None].requires_grad_()
    self_information(sure).sum().backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def gradients(learner: SelfTrainer) -> torch.Tensor:
    learner.step(*batch())
    return torch.cat([p.grad.flatten() for p in learner.segmenter.parameters() if p.grad is not None])


def test_hard_images_teach_the_segmenter_through_the_discriminator_alone() -> None:
    with_them, without = gradients(trainer(adversarial=1.0)), gradients(trainer(adversarial=0.0))
    assert not torch.allclose(with_them, without, rtol=1e-3)
    easy, classes, _ = batch()
    learner = trainer(adversarial=0.0)
    measured = learner.step(easy, classes, torch.full_like(easy, math.nan))
    assert set(measured) == {"segmentation"}
    assert torch.isfinite(measured["segmentation"])


def test_the_segmenter_is_asked_to_look_easy_and_the_discriminator_to_tell() -> None:
    learner = trainer(adversarial=1.0)
    critic = learner.modules["critic"]
    before = [p.clone() for p in critic.parameters()]
    measured = learner.step(*batch())
    # A fresh discriminator knows nothing: both terms are near log 2.
    for name in ("adversarial", "discriminator"):
        assert float(measured[name]) == pytest.approx(math.log(2), abs=0.1)
    assert any(not torch.equal(p, old) for p, old in zip(critic.parameters(), before, strict=True))
    for _ in range(40):
        told = learner.step(*batch())["discriminator"]
    assert float(told) < math.log(2)


def test_the_rate_of_the_segmenter_stays_and_that_of_the_discriminator_falls() -> None:
    learner = trainer(learning_rate=1e-3, critic_rate=1e-4)
    assert learner.set_rates(1.0, 2) == 1e-3
    assert learner.optimisers["critic"].param_groups[0]["lr"] == pytest.approx(1e-4 * 0.5**0.9)


def test_an_epoch_shows_all_of_the_larger_part_and_the_smaller_one_again() -> None:
    easy = np.arange(7, dtype=np.float16)[:, None, None] / 10 + np.zeros((7, SIZE, SIZE), np.float16)
    classes = np.repeat(np.arange(7, dtype=np.uint8)[:, None, None], SIZE, axis=1).repeat(SIZE, axis=2)
    draw = EasyHardDraw(easy, classes, easy[:2], 3)
    assert draw.steps == 3
    seen = [(images, labels, others) for images, labels, others in draw.epoch(np.random.default_rng(1))]
    middles = np.concatenate([images[:, 16, 16] for images, _, _ in seen])
    assert set(np.round(middles * 10).astype(int)) == set(range(7))
    labels = np.concatenate([labels[:, 16, 16] for _, labels, _ in seen])
    assert np.array_equal(np.round(middles * 10), labels)
    assert len(np.concatenate([others for _, _, others in seen])) == 9


def test_it_is_gone_on_with_as_if_never_stopped(tmp_path: Path) -> None:
    found = []
    for name, stops in (("whole", (None,)), ("pieces", (1, None))):
        (tmp_path / name).mkdir()
        for until in stops:
            learner = trainer()
            learn(
                learner, DRAW, tmp_path / name, identity={}, epochs=2, seed=2, threads=1, until=until,
                publish=lambda _: None,
            )  # fmt: skip
        found.append(learner.segmenter.state_dict())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])


def test_what_cannot_be_tuned_is_refused() -> None:
    nothing = np.zeros((0, SIZE, SIZE), np.float16)
    with pytest.raises(InputError, match="there is no hard image: nothing is left"):
        EasyHardDraw(EASY.images, EASY.classes, nothing, 2)
    with pytest.raises(ParameterError, match="epochs"):
        TuneSchedule(epochs=0)
    with pytest.raises(ParameterError, match="adversarial"):
        TuneSchedule(adversarial=-1)
