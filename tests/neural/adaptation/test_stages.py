"""The stages one after the other, tiny."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musclekit.errors import CheckpointError, InputError
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.neural.adaptation.contrastive import ContrastiveLoss
from musclekit.neural.adaptation.cycle import JointLoss
from musclekit.neural.adaptation.disentangled import DisentangledLoss
from musclekit.neural.adaptation.plan import AdaptPlan, Part, Pseudo
from musclekit.neural.adaptation.self_training import TuneSchedule
from musclekit.neural.adaptation.slices import SourceSlices
from musclekit.neural.adaptation.stage_one import JointSchedule
from musclekit.neural.adaptation.stages import (
    BACKWARD,
    FORWARD,
    NETWORK,
    check_start,
    judge,
    learn_jointly,
    muscle_classes,
    segmenter_score,
    tune,
)  # fmt: skip
from musclekit.neural.cards import SegmenterCard, TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import Scale
from tests.neural.adaptation.learners import DISCRIMINATOR, GENERATOR, SIZE, source, target

CLASSES = SegmentationLoss(dice=0.0)
PLAN = AdaptPlan(
    Part(Contrast.WATER),
    Part(Contrast.CT),
    label_set("thigh-4"),
    view=ViewSpec("leg", 4.0, (SIZE, SIZE)),
    generator=GENERATOR,
    discriminator=DISCRIMINATOR,
    segmenter={"name": "unet-2d", "width": 4, "levels": 3},
    loss=JointLoss(classes=CLASSES),
    schedule=JointSchedule(constant=1, decay=1, batch=2, pool=3),
    tune=TuneSchedule(epochs=2, batch=2, classes=CLASSES),
    seed=2,
)
SCALES = (Scale(0, 800), Scale(-200, 500))
TARGET = target(6)
BODY = np.asarray(TARGET.images > -1)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint")
    learn_jointly(PLAN, source(), TARGET, out, scales=SCALES, threads=1)
    return out


def test_stage_one_gives_methods_of_the_project(joint: Path) -> None:
    _, card = load_checkpoint(joint / NETWORK, SegmenterCard)
    assert card.label_set.name == "thigh-4"
    assert card.contrasts == {Contrast.CT}
    assert card.view == PLAN.view
    assert set(card.training_subjects) == {"mr-0", "mr-1", "ct-0", "ct-1"}
    assert card.schedule["stage"] == "joint"
    assert card.schedule["epochs_done"] == 2
    _, there = load_checkpoint(joint / FORWARD, TranslatorCard)
    _, back = load_checkpoint(joint / BACKWARD, TranslatorCard)
    assert (there.direction, back.direction) == ("mr-to-ct", "ct-to-mr")
    assert (there.target_scale.low, back.target_scale.high) == (-200, 800)
    assert there.training_subjects == (("mr-0", "mr-1"), ("ct-0", "ct-1"))
    assert there.per_leg


def test_a_comparator_is_learnt_by_the_same_stage(tmp_path: Path) -> None:
    plan = replace(PLAN, method="accseg", loss=ContrastiveLoss())
    learnt = learn_jointly(plan, source(), TARGET, tmp_path, scales=SCALES, threads=1, until=1)
    assert set(plan.loss.weights) < set(learnt.rows[0])
    _, card = load_checkpoint(tmp_path / NETWORK, SegmenterCard)
    assert card.schedule["method"] == "accseg"
    _, there = load_checkpoint(tmp_path / FORWARD, TranslatorCard)
    assert there.direction == "mr-to-ct"
    # There is no way back.
    assert not (tmp_path / BACKWARD).exists()
    pieces = tmp_path / "again"
    again = learn_jointly(plan, source(), TARGET, pieces, scales=SCALES, threads=1, until=1)
    assert again.rows == learnt.rows


def test_structure_and_texture_give_a_segmenter_and_no_translator(tmp_path: Path) -> None:
    plan = replace(PLAN, method="dise", loss=DisentangledLoss())
    learnt = learn_jointly(plan, source(), TARGET, tmp_path, scales=SCALES, threads=1, until=1)
    assert set(plan.loss.weights) < set(learnt.rows[0])
    assert load_checkpoint(tmp_path / NETWORK, SegmenterCard)[1].schedule["method"] == "dise"
    assert not (tmp_path / FORWARD).exists()


def test_images_are_judged_cleaned_and_parted(joint: Path) -> None:
    network, _ = load_checkpoint(joint / NETWORK, SegmenterCard)
    found = judge(PLAN, network, TARGET, BODY, BODY)
    assert found.ranking.ids == TARGET.ids
    assert found.ranking.easy.sum() == 4
    assert found.classes.dtype == np.uint8
    assert not found.classes[~BODY].any()
    dirty = judge(replace(PLAN, pseudo=Pseudo(clean=False)), network, TARGET, BODY, np.zeros_like(BODY))
    assert np.array_equal(dirty.ranking.scores, found.ranking.scores)
    assert not dirty.demoted.any()
    inside = judge(replace(PLAN, pseudo=Pseudo(region="body")), network, TARGET, BODY, BODY)
    assert not np.allclose(inside.ranking.scores, found.ranking.scores)


def test_where_no_compartment_was_found_an_image_is_hard(joint: Path) -> None:
    network, _ = load_checkpoint(joint / NETWORK, SegmenterCard)
    room = BODY.copy()
    surest = int(np.argmin(judge(PLAN, network, TARGET, BODY, room).ranking.ranks))
    room[surest] = False
    found = judge(PLAN, network, TARGET, BODY, room)
    assert found.demoted[surest]
    assert not found.easy[surest]
    assert not found.classes[surest].any()


def test_stage_two_goes_on_from_stage_one_and_keeps_the_best(joint: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(joint / NETWORK, SegmenterCard)
    judged = judge(replace(PLAN, pseudo=Pseudo(clean=False)), network, TARGET, BODY, BODY)
    images = source(4, 9)
    validation = SourceSlices(images.images, images.classes, ("v",) * 4)
    card = replace(card, validation_subjects=("w",))
    learnt = tune(PLAN, network, card, TARGET, judged.classes, judged.easy, tmp_path, validation=validation, threads=1)
    kept, after = load_checkpoint(tmp_path / NETWORK, SegmenterCard)
    assert after.start == {"name": card.name, "weights_sha256": card.weights_sha256}
    assert after.schedule["stage"] == "tuned"
    # Those by whom stage 1 was chosen must not be scored either.
    assert after.validation_subjects == ("w", "v")
    assert set(card.training_subjects) <= set(after.training_subjects)
    scores = [row["validation_dice"] for row in learnt.rows]
    assert learnt.best_epoch == 1 + int(np.argmax(scores))
    assert segmenter_score(kept, validation, PLAN) == pytest.approx(max(scores), abs=1e-6)
    assert after.scores["validation_dice"] == pytest.approx(max(scores))


def test_without_hard_images_there_is_no_second_stage(joint: Path, tmp_path: Path) -> None:
    network, card = load_checkpoint(joint / NETWORK, SegmenterCard)
    plan = replace(PLAN, pseudo=Pseudo(easy_share=1.0, clean=False))
    judged = judge(plan, network, TARGET, BODY, BODY)
    with pytest.raises(InputError, match="there is no hard image"):
        tune(plan, network, card, TARGET, judged.classes, judged.easy, tmp_path)


def test_a_score_is_the_mean_over_images_and_labels(joint: Path) -> None:
    network, _ = load_checkpoint(joint / NETWORK, SegmenterCard)
    images = source(3)
    blank = SourceSlices(images.images * 0 - 1, images.classes * 0, images.subjects)
    value = segmenter_score(network, images, PLAN)
    assert 0 <= value <= 1
    with pytest.raises(InputError, match="show no label"):
        segmenter_score(_silent(network), blank, PLAN)


def _silent(network: torch.nn.Module) -> torch.nn.Module:
    """Make a network say background everywhere."""

    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[0] = 10
    return network


def test_a_segmenter_of_other_labels_or_another_view_is_no_start(joint: Path) -> None:
    _, card = load_checkpoint(joint / NETWORK, SegmenterCard)
    check_start(PLAN, card)
    with pytest.raises(CheckpointError, match=r"set view.spacing_mm = 4.0; view.size = \[32, 32\]"):
        check_start(replace(PLAN, view=ViewSpec("leg", 2.0, (64, 64))), card)
    with pytest.raises(CheckpointError, match="set labels = thigh-4"):
        check_start(replace(PLAN, labels=label_set("thigh-11")), card)
    with pytest.raises(CheckpointError, match="sees 'leg' views of ct"):
        check_start(replace(PLAN, target=Part(Contrast.T1W)), card)


def test_muscle_is_told_from_what_else_is_labelled() -> None:
    assert muscle_classes(label_set("thigh-4")) is None
    found = muscle_classes(label_set("thigh-context"))
    assert found is not None
    names = {label_set("thigh-context").names[n - 1] for n in found}
    assert {"sartorius", "other muscle"} < names
    assert not {"femur", "subcutaneous fat", "other compartment", "other bone"} & names
