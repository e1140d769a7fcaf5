"""The stages of an adaptation: learn to translate and to segment at once, judge one's own labels, learn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from musclekit.errors import CheckpointError, InputError
from musclekit.image import Domain
from musclekit.labels import LabelSet, label_mapping, label_set
from musclekit.metrics import dice_of_counts
from musclekit.neural.adaptation.contrastive import ContrastiveLearner, ContrastiveLoss
from musclekit.neural.adaptation.cycle import CycleLearner
from musclekit.neural.adaptation.disentangled import DisentangledLearner, DisentangledLoss
from musclekit.neural.adaptation.learner import Learner, Learnt, Progress, learn
from musclekit.neural.adaptation.plan import AdaptPlan, Part
from musclekit.neural.adaptation.pseudo_labels import Cleaned, Ranking, cleaned_labels, mean_entropy, ranked
from musclekit.neural.adaptation.self_training import EasyHardDraw, SelfTrainer
from musclekit.neural.adaptation.slices import SourceSlices, TargetSlices, UnpairedDraw
from musclekit.neural.cards import SegmenterCard, TranslatorCard
from musclekit.neural.checkpoint import save_checkpoint
from musclekit.neural.device import resolve_device
from musclekit.neural.segmentation import class_probabilities
from musclekit.neural.windows import Scale

__all__ = [
    "BACKWARD", "FORWARD", "NETWORK", "Judged", "check_start", "judge", "learn_jointly", "muscle_classes",
    "segmenter_score", "tune",
]  # fmt: skip

#: Checkpoints of a stage: the segmenter, and the translators there and back.
NETWORK, FORWARD, BACKWARD = "segmenter.pt", "to_target.pt", "to_source.pt"
#: Images that go through the network at once where nothing is learnt.
AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Judged:
    """What a segmenter made of unlabelled images, and what is to be learnt from it.

    Parameters
    ----------
    ranking : Ranking
        From the surest on; images that lost too much to cleaning are no longer easy.
    classes : ndarray of uint8, shape (n, rows, columns)
        What it made of them, cleaned if the plan asks for it.
    cleaned : tuple of Cleaned
        What cleaning took, of each image, whether or not it was applied.
    demoted : ndarray of bool, shape (n,)
        Images that were easy but for cleaning.
    """

    ranking: Ranking
    classes: NDArray[np.uint8]
    cleaned: tuple[Cleaned, ...]
    demoted: NDArray[np.bool_]

    @property
    def easy(self) -> NDArray[np.bool_]:
        """Which images are learnt from with their labels."""
        return self.ranking.easy & ~self.demoted


def learn_jointly(
    plan: AdaptPlan,
    source: SourceSlices,
    target: TargetSlices,
    out: Path,
    *,
    scales: tuple[Scale, Scale],
    validation: SourceSlices | None = None,
    device: str = "cpu",
    threads: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> Learnt:
    """Learn translators and a segmenter together: stage 1 (Yang et al., section III.B).

    Parameters
    ----------
    plan : AdaptPlan
        How.
    source, target : SourceSlices, TargetSlices
        From what.
    out : Path
        Folder of ``segmenter.pt``, of ``to_target.pt`` and ``to_source.pt`` where the method has such translators, and
        of what `learn` writes.
    scales : (Scale, Scale)
        What -1 and 1 stand for in source and target.
    validation : SourceSlices, optional
        Labelled images of the target by which the best epoch of the segmenter is chosen.
    device, threads, until, progress
        As for `musclekit.neural.adaptation.learner.learn`, whose errors are raised.
    """
    learner = _joint_learner(plan, device)

    def publish(learnt: Learnt) -> None:
        people = (*source.subjects, *target.subjects)
        card = segmenter_card(plan, learnt, people, target, validation, "joint", {})
        save_checkpoint(out / NETWORK, learnt.best or learner.segmenter, card)
        for name, file in (("to_target", FORWARD), ("to_source", BACKWARD)):
            if name in learner.modules:
                there = name == "to_target"
                told = _translator_card(plan, source, target, scales, learner.modules[name], learnt, there=there)
                save_checkpoint(out / file, learner.modules[name], told)

    return learn(
        learner,
        UnpairedDraw(source, target, plan.schedule.batch),
        out,
        identity={"plan": _of_stage(plan, "joint"), "images": _hash(source.images, source.classes, target.images)},
        epochs=plan.schedule.epochs,
        seed=plan.seed,
        score=None if validation is None else lambda network: segmenter_score(network, validation, plan),
        publish=publish,
        threads=threads,
        until=until,
        progress=progress,
    )


def _translator_card(
    plan: AdaptPlan,
    source: SourceSlices,
    target: TargetSlices,
    scales: tuple[Scale, Scale],
    network: nn.Module,
    learnt: Learnt,
    *,
    there: bool,
) -> TranslatorCard:
    """Return the card of a translator: there, to the target, or back."""
    ends: list[tuple[Part, SourceSlices | TargetSlices, Scale]]
    ends = [(plan.source, source, scales[0]), (plan.target, target, scales[1])]
    (one, given, _), (other, wanted, scale) = ends if there else ends[::-1]
    return TranslatorCard(
        name=f"{one.contrast}-to-{other.contrast}",
        network=_described(plan.generator),
        source=Domain(one.contrast, None),
        target=Domain(other.contrast, None),
        windows=(one.scaling, other.scaling),
        target_scale=scale,
        spacing_mm=plan.view.spacing_mm,
        size=plan.view.size[0],
        multiple=int(network.multiple),  # type: ignore[arg-type]
        per_leg=True,
        loss=plan.as_data()["loss"],
        schedule={**asdict(plan.schedule), "epochs_done": learnt.epochs_done},
        seed=plan.seed,
        training_subjects=(_people(given.subjects), _people(wanted.subjects)),
        data=plan.data,
        licence=plan.licence,
        source_deciles=_deciles(given.images, given.subjects),
    )


def _joint_learner(plan: AdaptPlan, device: str) -> Learner:
    """Return the learner of a plan's stage 1, with its first weights."""
    parts: dict[str, Any] = {
        "generator": plan.generator,
        "discriminator": plan.discriminator,
        "segmenter": {**plan.segmenter, **plan.segmenter_parameters},
        "schedule": plan.schedule,
        "seed": plan.seed,
        "device": resolve_device(device),
    }
    if isinstance(plan.loss, ContrastiveLoss):
        return ContrastiveLearner(loss=plan.loss, **parts)
    if isinstance(plan.loss, DisentangledLoss):
        return DisentangledLearner(loss=plan.loss, **parts)
    return CycleLearner(loss=plan.loss, **parts)


def judge(
    plan: AdaptPlan,
    network: nn.Module,
    target: TargetSlices,
    body: NDArray[np.bool_],
    room: NDArray[np.bool_],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Judged:
    """Segment the images of the target, rank them by entropy and clean what was made of them (section III.C).

    Parameters
    ----------
    plan : AdaptPlan
        How.
    network : Module
        The segmenter, on the processor, set to evaluate.
    target : TargetSlices
        The images.
    body, room : ndarray of bool, shape (n, rows, columns)
        The leg in each, and its muscle compartment without bone.
    device : str
        Where to compute.
    progress : callable, optional
        Called with (images done, all of them, what is being done).

    Raises
    ------
    ParameterError
        If the device is not there.
    InputError
        If the entropy is to be taken in the body and an image shows none.
    """
    where = resolve_device(device)
    network = network.to(where)
    scores: list[float] = []
    found = np.empty(target.images.shape, dtype=np.uint8)
    for first in range(0, len(found), AT_ONCE):
        images = np.asarray(target.images[first : first + AT_ONCE], dtype=np.float32)[:, None]
        answers = np.asarray(class_probabilities(network, images, device=where)).swapaxes(0, 1)
        for n, answer in enumerate(answers, start=first):
            scores.append(mean_entropy(answer, np.asarray(body[n]) if plan.pseudo.region == "body" else None))
            found[n] = answer.argmax(axis=0)
        if progress is not None:
            progress(min(first + AT_ONCE, len(found)), len(found), "judging its own labels")
    ranking = ranked(target.ids, scores, easy_share=plan.pseudo.easy_share)
    muscles = muscle_classes(plan.labels)
    cleaned = tuple(
        cleaned_labels(labels, np.asarray(free), len(plan.labels), muscles)
        for labels, free in zip(found, room, strict=True)
    )
    demoted = np.zeros(len(found), dtype=bool)
    if plan.pseudo.clean:
        found = np.stack([one.classes for one in cleaned])
        doubtful = np.array([one.is_doubtful(plan.pseudo.most_removed) for one in cleaned])
        # Where no compartment was found nothing says what of the labels may stay.
        demoted = ranking.easy & (doubtful | ~np.asarray(room).any(axis=(1, 2)))
    return Judged(ranking, found, cleaned, demoted)


def muscle_classes(labels: LabelSet) -> tuple[int, ...] | None:
    """Return the classes of a label set that are muscle, or None where all of them are."""
    to_muscle = label_mapping(labels, label_set("muscle")).ids
    found = tuple(n for n, label in enumerate(labels, start=1) if label.id in to_muscle)
    return None if len(found) == len(labels) else found


def check_start(plan: AdaptPlan, card: SegmenterCard) -> None:
    """Refuse to go on from a segmenter that gives or sees something else than the plan says.

    Raises
    ------
    CheckpointError
        If it does; the message says what the plan would have to say.
    """
    wanted = {
        "labels": (plan.labels.name, card.label_set.name),
        "view.spacing_mm": (plan.view.spacing_mm, card.view.spacing_mm),
        "view.size": (list(plan.view.size), list(card.view.size)),
        "segmenter": (
            {"name": plan.segmenter["name"], **plan.segmenter_parameters},
            {"name": card.network["name"], **card.network["parameters"]},
        ),
    }
    if card.view.kind != "leg" or plan.target.contrast not in card.contrasts:
        raise CheckpointError(
            f"stage 2 starts from a segmenter of single legs in {plan.target.contrast}; '{card.name}' sees "
            f"'{card.view.kind}' views of {', '.join(sorted(card.contrasts))}"
        )
    window = card.windows[plan.target.contrast].as_data()
    wanted["target.window"] = (plan.target.scaling.as_data(), window)
    other = [f"{name} = {theirs}" for name, (mine, theirs) in wanted.items() if mine != theirs]
    if other:
        raise CheckpointError(
            f"the plan does not fit the segmenter to start from, '{card.name}': set {'; '.join(other)}"
        )


def tune(
    plan: AdaptPlan,
    network: nn.Module,
    before: SegmenterCard,
    target: TargetSlices,
    classes: NDArray[np.uint8],
    easy: NDArray[np.bool_],
    out: Path,
    *,
    validation: SourceSlices | None = None,
    device: str = "cpu",
    threads: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> Learnt:
    """Let a segmenter go on learning from its own labels of easy images: stage 2 (section III.C).

    Parameters
    ----------
    plan : AdaptPlan
        How.
    network : Module
        The segmenter to start from; it is taught in place.
    before : SegmenterCard
        Of it.
    target : TargetSlices
        The images.
    classes : ndarray of uint8, shape (n, rows, columns)
        What it made of them (`Judged.classes`).
    easy : ndarray of bool, shape (n,)
        Which of them are learnt from with these labels (`Judged.easy`); it is made sure of the others.
    out : Path
        Folder of ``segmenter.pt`` and of what `learn` writes.
    validation, device, threads, until, progress
        As in `learn_jointly`.

    Raises
    ------
    InputError
        If no image is easy or none is hard, or as `learn` does, whose other errors are raised too.
    """
    learner = SelfTrainer(
        network.requires_grad_(True),
        classes=before.out_channels,
        schedule=plan.tune,
        seed=plan.seed,
        device=resolve_device(device),
    )
    images = np.asarray(target.images)
    draw = EasyHardDraw(images[easy], np.asarray(classes)[easy], images[~easy], plan.tune.batch)

    def publish(learnt: Learnt) -> None:
        people = (*before.training_subjects, *target.subjects)
        start = {"name": before.name, "weights_sha256": before.weights_sha256}
        card = segmenter_card(plan, learnt, people, target, validation, "tuned", start)
        # By whom an epoch was chosen before must not be scored either.
        chosen_by = _people((*before.validation_subjects, *card.validation_subjects))
        card = replace(card, validation_subjects=chosen_by)
        save_checkpoint(out / NETWORK, learnt.best or learner.segmenter, card)

    return learn(
        learner,
        draw,
        out,
        identity={
            "plan": _of_stage(plan, "tuned"),
            "images": _hash(images, classes, easy),
            "start": before.weights_sha256,
        },
        epochs=plan.tune.epochs,
        seed=plan.seed + 1,
        score=None if validation is None else lambda one: segmenter_score(one, validation, plan),
        publish=publish,
        threads=threads,
        until=until,
        progress=progress,
    )


def segmenter_score(network: nn.Module, images: SourceSlices, plan: AdaptPlan) -> float:
    """Mean over images of the mean Dice of their labels; those that neither shows do not count."""
    device = next(network.parameters()).device
    n = len(plan.labels) + 1
    each = []
    for first in range(0, len(images.images), AT_ONCE):
        shown = np.asarray(images.images[first : first + AT_ONCE], dtype=np.float32)[:, None]
        answers = np.asarray(class_probabilities(network, shown, device=device)).argmax(axis=0)
        for answer, truth in zip(answers, images.classes[first : first + AT_ONCE], strict=True):
            found, wanted = (np.bincount(part.ravel(), minlength=n)[:n] for part in (answer, truth))
            common = np.bincount(truth[truth == answer], minlength=n)[:n]
            values = dice_of_counts(common, found, wanted)[1:]
            if np.isfinite(values).any():
                each.append(float(np.nanmean(values)))
    if not each:
        raise InputError("the images to validate on show no label")
    return float(np.mean(each))


def segmenter_card(
    plan: AdaptPlan,
    learnt: Learnt,
    people: tuple[str, ...],
    target: TargetSlices,
    validation: SourceSlices | None,
    stage: str,
    start: Mapping[str, str],
) -> SegmenterCard:
    """Return the card of the segmenter of a stage."""
    best = learnt.rows[learnt.best_epoch - 1] if learnt.best_epoch else {}
    scores = {name: best[name] for name in ("validation_dice",) if name in best}
    loss = {**plan.loss.weights} if stage == "joint" else {"segmentation": 1.0, "adversarial": plan.tune.adversarial}
    schedule = asdict(plan.schedule) if stage == "joint" else {**asdict(plan.tune), "classes": None}
    return SegmenterCard(
        name=plan.name or f"{plan.source.contrast}-to-{plan.target.contrast}-{stage}",
        network={"name": plan.segmenter["name"], "parameters": plan.segmenter_parameters},
        label_set=plan.labels,
        windows={plan.target.contrast: plan.target.scaling},
        view=plan.view,
        loss=loss | {"class_weights": list(plan.tune.classes.class_weights)},
        schedule={
            **{name: value for name, value in schedule.items() if value is not None},
            "stage": stage,
            "method": plan.method,
            "epochs_done": learnt.epochs_done,
            "best_epoch": learnt.best_epoch or learnt.epochs_done,
        },
        seed=plan.seed,
        start=start,
        training_subjects=_people(people),
        validation_subjects=() if validation is None else _people(validation.subjects),
        data=plan.data,
        licence=plan.licence,
        deciles={plan.target.contrast: _deciles(target.images, target.subjects)},
        scores=scores,
    )


def _described(network: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": network["name"], "parameters": {name: v for name, v in network.items() if name != "name"}}


def _people(subjects: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subjects))


def _deciles(images: NDArray[np.float16], subjects: tuple[str, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Deciles of the grey values of legs: of each the least and the most over the people."""
    found = []
    for person in dict.fromkeys(subjects):
        mine = np.asarray(images[np.array(subjects) == person], dtype=np.float64)
        seen = mine[mine > -1]
        found.append(np.quantile(seen if seen.size else np.array([-1.0]), np.arange(1, 10) / 10))
    least, most = (tuple(float(value) for value in ends(found, axis=0)) for ends in (np.min, np.max))
    return least, most


def _of_stage(plan: AdaptPlan, stage: str) -> dict[str, Any]:
    """Return what of a plan the result of a stage depends on."""
    free = {"cases", "name", "data", "licence", "start", "pseudo"}
    free |= {"tune"} if stage == "joint" else {"generator", "discriminator", "schedule", "method", "margin_steps"}
    return {name: value for name, value in plan.as_data().items() if name not in free}


def _hash(*arrays: NDArray[Any]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
