"""What to train: domains, networks, loss and schedule, as a file says them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.image import Contrast, Domain
from musclekit.neural import networks
from musclekit.neural.device import Precision
from musclekit.neural.objectives import TranslationLoss
from musclekit.neural.slices import SliceSpec
from musclekit.neural.training.plan_file import read_plan_data
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Window

__all__ = ["DomainPlan", "Schedule", "TrainPlan", "check_train_plan", "read_train_plan"]

#: The networks of both papers.
GENERATOR: Mapping[str, Any] = MappingProxyType({"name": "resnet-generator", "width": 64, "blocks": 9})
DISCRIMINATOR: Mapping[str, Any] = MappingProxyType({"name": "patch-discriminator", "width": 64, "layers": 3})


@dataclass(frozen=True)
class DomainPlan:
    """One of the two domains.

    Parameters
    ----------
    contrast : Contrast
        Of its images.
    name : str, optional
        What tells it from another domain of the same contrast: ``"hard"``, ``"easy"``.
    grades : tuple of str
        Values of the manifest's column ``grade`` that belong to it; where there are none its column ``domain`` has to
        be the name, and without a name all images of the contrast belong to it.
    window : Window, optional
        How grey values become -1 to 1; None for the one of the contrast.
    """

    contrast: Contrast
    name: str | None = None
    grades: tuple[str, ...] = ()
    window: Window | None = None

    @property
    def scaling(self) -> Window:
        """The window that is used."""
        return self.window or (CT_WINDOW if self.contrast is Contrast.CT else MR_WINDOW)

    @property
    def domain(self) -> Domain:
        """What a card and an image call it."""
        return Domain(self.contrast, self.name)

    def __str__(self) -> str:
        return str(self.contrast) if self.name is None else f"{self.name} {self.contrast}"


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and in which portions.

    Parameters
    ----------
    constant, decay : int
        Epochs at the full learning rate, and those in which it falls to zero along a line.
    batch : int
        Slices of each domain in a step, on all devices together.
    learning_rate : float
        Of Adam, for generators and discriminators.
    pool : int
        Earlier fakes that a discriminator is shown in turn with new ones.
    augment : bool
        Whether slices are shifted and mirrored.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no epoch.
    """

    constant: int = 100
    decay: int = 100
    batch: int = 1
    learning_rate: float = 2e-4
    pool: int = 50
    augment: bool = True

    def __post_init__(self) -> None:
        for name, least in (("constant", 0), ("decay", 0), ("batch", 1), ("pool", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        check_number("learning_rate", self.learning_rate, above=0)
        if not self.epochs:
            raise ParameterError("constant and decay are both 0: there is no epoch to train in")

    @property
    def epochs(self) -> int:
        """How many there are."""
        return self.constant + self.decay


@dataclass(frozen=True)
class TrainPlan:
    """What to train.

    Parameters
    ----------
    source, target : DomainPlan
        From what to what; the way back is trained along with it.
    slices : SliceSpec
        What a slice looks like.
    per_leg : bool
        Whether each leg has slices of its own, left ones mirrored.
    generator, discriminator : mapping
        ``name`` and parameters, as `musclekit.neural.networks.build` takes them; there are two of each.
    loss : TranslationLoss
        Weights of the terms, and what they mean.
    schedule : Schedule
        How long, how fast.
    seed : int
        Of the first weights and of all that is drawn.
    cases : Path, optional
        Manifest of the scans, if the plan names one.
    split : str, optional
        Part of the manifest that is trained on.
    precision : {"float32", "bfloat16"}
        Of the work; weights are float32 in any case.
    channels_last, compile : bool
        What may make it faster: see ``docs/train.md``.
    sheet_every : int
        Epochs between two sheets of samples; 0 for none.
    tensorboard : bool
        Whether losses go to TensorBoard too.
    allow_single_subject : bool
        Whether a domain may show one person only.
    name : str, optional
        What the translator is called.
    data, licence : str
        For the card: what is trained on, and the licence of the weights.
    limits : tuple of str
        For the card: what it cannot do.
    """

    source: DomainPlan
    target: DomainPlan
    slices: SliceSpec = field(default_factory=lambda: SliceSpec(256, 1.5))
    per_leg: bool = False
    generator: Mapping[str, Any] = field(default_factory=lambda: GENERATOR)
    discriminator: Mapping[str, Any] = field(default_factory=lambda: DISCRIMINATOR)
    loss: TranslationLoss = field(default_factory=TranslationLoss)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    cases: Path | None = None
    split: str | None = None
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    sheet_every: int = 10
    tensorboard: bool = False
    allow_single_subject: bool = False
    name: str | None = None
    data: str = ""
    licence: str = ""
    limits: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, everything that was left out filled in; `from_data` undoes it."""
        data = asdict(replace(self, generator={}, discriminator={}))
        del data["per_leg"]
        for name, side in (("source", self.source), ("target", self.target)):
            data[name] |= {
                "contrast": str(side.contrast),
                "grades": list(side.grades) or None,
                "window": side.scaling.as_data(),
            }
        return _without_none(
            data
            | {
                "kind": "train",
                "cases": None if self.cases is None else str(self.cases),
                "slices": {**data["slices"], "per_leg": self.per_leg},
                "generator": dict(self.generator),
                "discriminator": dict(self.discriminator),
                "limits": list(self.limits),
            }
        )

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TrainPlan:
        """Return the plan that data describe; they are taken to follow ``data_schemas/train.schema.json``.

        Raises
        ------
        ParameterError
            If a number lies outside its range.
        """
        parts = dict(data)
        del parts["kind"]
        slices = {"size": 256, "spacing_mm": 1.5, **parts.pop("slices", {})}
        for side in ("source", "target"):
            given = dict(parts[side])
            window = given.pop("window", None)
            parts[side] = DomainPlan(
                Contrast(given["contrast"]),
                given.get("name"),
                tuple(given.get("grades", ())),
                None if window is None else Window.from_data(window),
            )
        for name, default in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR)):
            parts[name] = {**default, **parts.get(name, {})}
        return cls(
            **{
                **parts,
                "per_leg": slices.pop("per_leg", False),
                "slices": SliceSpec(**slices),
                "cases": Path(parts["cases"]) if "cases" in parts else None,
                "loss": _loss(parts["source"], parts["target"], parts.get("loss", {})),
                "schedule": Schedule(**parts.get("schedule", {})),
                "limits": tuple(parts.get("limits", ())),
            }
        )


def _loss(source: DomainPlan, target: DomainPlan, given: Mapping[str, Any]) -> TranslationLoss:
    """Return the loss of a plan; what is left out and depends on the contrast is filled in."""
    if source.contrast is not target.contrast:
        return TranslationLoss(**{"relu": 0.0, **given})
    # Hard thighs hold more fat than easy ones; what it is to turn into muscle by depends on which is the brighter.
    return TranslationLoss(
        **{"relu_direction": "brighter" if source.contrast.fat_is_bright is False else "darker", **given}
    )


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not set, as a TOML file does."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in data.items()
        if value is not None
    }


def read_train_plan(path: Path) -> TrainPlan:
    """Read the plan of a training.

    Parameters
    ----------
    path : Path
        TOML; see ``data_schemas/train.schema.json``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    SchemaError
        If it breaks the schema.
    InputError
        If it cannot be trained: see `check_train_plan`.
    """
    plan = TrainPlan.from_data(read_plan_data(path, "train"))
    check_train_plan(plan)
    return plan


def check_train_plan(plan: TrainPlan) -> None:
    """Check a plan as far as that goes without scans: nothing is computed, no memory is taken.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message lists those there are.
    ParameterError
        If source and target are the same, the loss asks for an order of grey values that the contrasts do not have,
        or a network has no such parameter or not of that value.
    GeometryError
        If the slices are too small for a network, or no multiple of what it needs.
    """
    if plan.source.domain == plan.target.domain:
        raise ParameterError(
            f"source and target are both {plan.source}: nothing tells them apart; give each a name, as hard and easy"
        )
    shared = sorted(set(plan.source.grades) & set(plan.target.grades))
    if plan.source.contrast is plan.target.contrast and shared:
        raise ParameterError(f"grade '{shared[0]}' stands in the source and in the target")
    if plan.loss.relu and plan.source.contrast is not plan.target.contrast:
        raise ParameterError(
            f"relu lets grey values move in one direction only, and those of {plan.source.contrast} and "
            f"{plan.target.contrast} have no order in common: leave it out, or set it to 0"
        )
    with torch.device("meta"):
        slices = torch.empty(1, 1, plan.slices.size, plan.slices.size)
        for description in (plan.generator, plan.discriminator):
            networks.build(**description)(slices)
