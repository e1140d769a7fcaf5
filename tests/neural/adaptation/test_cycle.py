"""Translators and a segmenter that learn together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musclekit.errors import FormatError, GeometryError, InputError, ParameterError, TrainingError
from musclekit.neural.adaptation.cycle import SYNSEG_LOSS, JointLoss
from musclekit.neural.adaptation.learner import LOSSES, STATE, Learnt, learn
from musclekit.neural.adaptation.slices import SourceSlices, TargetSlices, UnpairedDraw, moved
from musclekit.neural.adaptation.stage_one import JointSchedule
from musclekit.neural.objectives import MR_TO_CT_LOSS
from musclekit.neural.segmentation_losses import SegmentationLoss
from tests.neural.adaptation.learners import DRAW, cycle_learner, one_batch, source, target


def moved_weights(loss: JointLoss) -> dict[str, torch.Tensor]:
    """Gradients of the two generators and the segmenter after one step."""
    learner = cycle_learner(loss)
    learner.step(*one_batch())
    return {
        name: torch.cat([p.grad.flatten() for p in learner.modules[name].parameters() if p.grad is not None])
        for name in ("to_target", "to_source", "segmenter")
    }


def test_the_losses_of_both_papers_weigh_what_they_print() -> None:
    assert JointLoss().weights == {"gan": 1, "cycle": 30, "identity": 0.5, "edge": 1, "segmentation": 1}
    assert JointLoss(SYNSEG_LOSS).weights == {"gan": 1, "cycle": 10, "segmentation": 1}


@pytest.mark.parametrize("term", ["gan", "cycle", "identity", "edge"])
def test_every_term_moves_the_generators(term: str) -> None:
    whole = moved_weights(JointLoss())
    without = moved_weights(JointLoss(replace(MR_TO_CT_LOSS, **{term: 0.0})))
    for name in ("to_target", "to_source"):
        assert not torch.allclose(whole[name], without[name], rtol=1e-3, atol=1e-9)
    assert torch.equal(whole["segmenter"], without["segmenter"])


def test_what_the_segmenter_asks_reaches_the_generator_to_its_images_and_no_other() -> None:
    little, much = (moved_weights(JointLoss(segmentation=weight)) for weight in (1e-6, 5.0))
    assert not torch.allclose(little["to_target"], much["to_target"], rtol=1e-3, atol=1e-9)
    assert torch.allclose(little["to_source"], much["to_source"])
    assert torch.allclose(little["segmenter"] * 5e6, much["segmenter"], rtol=1e-3, atol=1e-5)


def test_discriminators_learn_from_fakes_and_generators_do_not_learn_from_their_step() -> None:
    learner = cycle_learner()
    before = {name: value.clone() for name, value in learner.modules.state_dict().items()}
    measured = learner.step(*one_batch())
    assert {"discriminator_source", "discriminator_target", "spread_source", "spread_target"} <= set(measured)
    after = learner.modules.state_dict()
    for part in ("to_target", "to_source", "source_critic", "target_critic", "segmenter"):
        changed = [not torch.equal(after[name], before[name]) for name in before if name.startswith(part)]
        assert any(changed)
    assert all(p.requires_grad for p in learner.modules.parameters())


def trained(out: Path, *, until: int | None = None, score: Callable[[torch.nn.Module], float] | None = None) -> Learnt:
    learner = cycle_learner()
    out.mkdir(exist_ok=True)
    return learn(
        learner, DRAW, out, identity={"plan": 1}, epochs=3, seed=4, threads=1, until=until, score=score,
        publish=lambda _: None,
    )  # fmt: skip


def test_an_interrupted_training_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    for until in (1, 2, None):
        pieces = trained(tmp_path / "pieces", until=until)
    for name in (STATE, LOSSES):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    assert pieces.rows == whole.rows
    assert [row["epoch"] for row in whole.rows] == [1, 2, 3]
    assert [row["learning_rate"] for row in whole.rows] == pytest.approx([2e-4, 2e-4, 1e-4])
    assert whole.rows[0]["weighted_cycle"] == pytest.approx(30 * whole.rows[0]["cycle"])


def test_the_best_epoch_is_kept_where_something_is_scored(tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.4])
    found = trained(tmp_path, score=lambda network: next(scores))
    assert found.best_epoch == 2
    assert [row["validation_dice"] for row in found.rows] == [0.2, 0.5, 0.4]
    assert found.best


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    trained(tmp_path, until=1)
    with pytest.raises(InputError, match="holds another training \\(it differs in: plan\\)"):
        learn(cycle_learner(), DRAW, tmp_path, identity={"plan": 2}, epochs=3, seed=4, publish=lambda _: None)
    (tmp_path / STATE).write_bytes(b"nothing")
    with pytest.raises(FormatError, match=STATE):
        learn(cycle_learner(), DRAW, tmp_path, identity={"plan": 1}, epochs=3, seed=4, publish=lambda _: None)


def test_a_training_that_runs_off_is_stopped(tmp_path: Path) -> None:
    learner = cycle_learner(learning_rate=1e9)
    with pytest.raises(TrainingError, match=r"stopped in epoch 1, step \d"):
        learn(learner, DRAW, tmp_path, identity={}, epochs=3, seed=4, publish=lambda _: None)


def test_a_segmenter_learns_the_target_from_labels_of_the_source(tmp_path: Path) -> None:
    loss = JointLoss(classes=SegmentationLoss(dice=0.0, class_weights=(1, 5, 5)))
    learner = cycle_learner(loss, constant=30, decay=10, learning_rate=4e-3)
    learn(learner, DRAW, tmp_path, identity={}, epochs=40, seed=4, publish=lambda _: None)
    learner.modules.eval()
    images, classes, _ = one_batch()
    with torch.no_grad():
        found = learner.segmenter(learner.modules["to_target"](images)).argmax(dim=1)
    assert (found == classes)[classes > 0].float().mean() > 0.7


def test_images_and_classes_are_moved_alike() -> None:
    given = source(4)
    images, classes = moved(given.images, given.classes, np.random.default_rng(0))
    for n in range(4):
        assert np.sum(classes[n] == 1) > 20
        assert images[n][classes[n] == 1].mean() > 0.6
    assert not np.array_equal(images, given.images)
    again, nothing = moved(given.images, None, np.random.default_rng(0))
    assert np.array_equal(again, images)
    assert not nothing.any()


def test_what_cannot_be_drawn_or_weighed_is_refused() -> None:
    empty = TargetSlices(np.zeros((0, 32, 32), np.float16), (), ())
    with pytest.raises(InputError, match="no image of the target"):
        UnpairedDraw(source(), empty, 2)
    small = SourceSlices(np.zeros((1, 16, 16), np.float16), np.zeros((1, 16, 16), np.uint8), ("a",))
    with pytest.raises(GeometryError, match=r"source are \(16, 16\) in size, those of the target \(32, 32\)"):
        UnpairedDraw(small, target(), 2)
    with pytest.raises(ParameterError, match="segmentation"):
        JointLoss(segmentation=0)
    with pytest.raises(ParameterError, match="no order in common"):
        JointLoss(replace(MR_TO_CT_LOSS, relu=0.5))
    with pytest.raises(ParameterError, match="there is no epoch"):
        JointSchedule(constant=0, decay=0)


def test_the_rate_falls_as_in_the_paper() -> None:
    schedule = JointSchedule()
    assert schedule.epochs == 100
    rates = [schedule.rate(epoch) for epoch in (0, 49, 50, 75, 99)]
    assert rates == pytest.approx([2e-4, 2e-4, 1.9608e-4, 9.80e-5, 3.92e-6], rel=1e-3)
