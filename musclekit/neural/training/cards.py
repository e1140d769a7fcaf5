"""The cards of two translators that were trained together."""

from __future__ import annotations

from dataclasses import asdict, replace

from musclekit.neural.cards import TranslatorCard
from musclekit.neural.slices import DomainSlices
from musclekit.neural.training.plan import TrainPlan

__all__ = ["card_of", "turned"]


def card_of(
    plan: TrainPlan, source: DomainSlices, target: DomainSlices, *, multiple: int, epochs_done: int
) -> TranslatorCard:
    """Return the card of the translator from source to target.

    Parameters
    ----------
    plan : TrainPlan
        What was trained.
    source, target : DomainSlices
        What it was trained on.
    multiple : int
        Of which the generator's rows and columns have to be.
    epochs_done : int
        Of those in the plan.
    """
    network = dict(plan.generator)
    people = [tuple(dict.fromkeys(domain.subjects)) for domain in (source, target)]
    alone = [
        f"The {name} domain shows one subject: what was learnt of it may be that person's."
        for name, subjects in zip(("source", "target"), people, strict=True)
        if len(subjects) == 1
    ]
    card = TranslatorCard(
        name="",
        network={"name": network.pop("name"), "parameters": network},
        source=plan.source.domain,
        target=plan.target.domain,
        windows=(plan.source.scaling, plan.target.scaling),
        target_scale=target.scale,
        spacing_mm=plan.slices.spacing_mm,
        size=plan.slices.size,
        multiple=multiple,
        per_leg=plan.per_leg,
        loss=asdict(plan.loss),
        schedule={
            **asdict(plan.schedule),
            "epochs_done": epochs_done,
            "precision": plan.precision,
            "allow_single_subject": plan.allow_single_subject,
        },
        seed=plan.seed,
        training_subjects=(people[0], people[1]),
        source_deciles=source.deciles,
        data=plan.data,
        licence=plan.licence,
        limits=(*plan.limits, *alone),
    )
    return replace(card, name=plan.name or card.direction)


def turned(card: TranslatorCard, source: DomainSlices, target: DomainSlices) -> TranslatorCard:
    """Return the card of the way back, whose grey values are those of the source."""
    opposite = {"darker": "brighter", "brighter": "darker"}[card.loss["relu_direction"]]
    there, back = card.windows
    way_back = replace(
        card,
        source=card.target,
        target=card.source,
        windows=(back, there),
        target_scale=source.scale,
        source_deciles=target.deciles,
        loss={**card.loss, "relu_direction": opposite},
        training_subjects=card.training_subjects[::-1],
    )
    return replace(way_back, name=way_back.direction if card.name == card.direction else f"{card.name}, back")
