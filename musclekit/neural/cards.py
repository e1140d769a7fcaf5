"""What stands beside the weights of a network: all that one needs to use it, and what a reader must know before.

A card names the network to build, the windows and the pixel size it knows, whom and what it was trained on, and the
hash of the weights it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import nn

from musclekit.errors import LabelError
from musclekit.image import Contrast, Domain
from musclekit.labels import LabelSet, label_set
from musclekit.neural.networks import size_needs
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import Scale, Window

__all__ = ["FORMAT", "Card", "SegmenterCard", "TranslatorCard"]

#: Of all cards.
FORMAT = 1


class Card(Protocol):
    """What the card of any network can do."""

    kind: ClassVar[str]
    schema: ClassVar[str]

    @property
    def network(self) -> Mapping[str, Any]:
        """``name`` and ``parameters``, as `musclekit.neural.networks.build` takes them."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights it belongs to."""

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data that follows its schema."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Return the card that `as_data` described."""

    def why_not(self, network: nn.Module) -> str:
        """Say why a network, tried without weights, cannot be that of the card; empty if it can."""


@dataclass(frozen=True)
class TranslatorCard:
    """What stands beside the weights of a translator.

    Parameters
    ----------
    name : str
        What it is called.
    network : mapping
        ``name`` and ``parameters``, as `musclekit.neural.networks.build` takes them.
    source, target : Domain
        From what to what.
    windows : (Window, Window)
        How the grey values of the source and of the target became -1 to 1.
    target_scale : Scale
        What -1 and 1 stand for in the target: the median of its training volumes.
    spacing_mm : float
        Edge of a pixel of the slices it was trained on.
    size : int
        Rows and columns of these.
    multiple : int
        Of which rows and columns have to be.
    per_leg : bool
        Whether it was trained on one leg at a time, left ones mirrored.
    loss, schedule : mapping
        As plain data.
    seed : int, optional
        Of the training.
    training_subjects : (tuple of str, tuple of str)
        Those of the source and those of the target. They must not be scored.
    data, licence : str
        What it was trained on, and the licence of the weights.
    source_deciles : (tuple of float, tuple of float), optional
        Deciles of the grey values (-1 to 1) inside the body in its source domain: the least and the most over people.
    meant_with : mapping
        Parameters of the translator that its scores rest on: ``within``.
    scores : mapping
        What it reached, as plain data.
    limits : tuple of str
        What it cannot do.
    weights_sha256 : str
        See `weights_hash`; `save_checkpoint` fills it in.
    version : str
        Of the musclekit that trained it.
    """

    kind: ClassVar[str] = "translator"
    schema: ClassVar[str] = "translator_card"

    name: str
    network: Mapping[str, Any]
    source: Domain
    target: Domain
    windows: tuple[Window, Window]
    target_scale: Scale
    spacing_mm: float
    size: int
    multiple: int
    per_leg: bool = False
    loss: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    training_subjects: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    data: str = ""
    licence: str = ""
    source_deciles: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    meant_with: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    weights_sha256: str = ""
    version: str = field(default_factory=lambda: version("musclekit"))

    @property
    def direction(self) -> str:
        """``"mr-to-ct"`` or ``"ct-to-mr"``; ``"hard-to-easy"`` and the like where the modality stays."""
        source, target = self.source, self.target
        if source.contrast.modality != target.contrast.modality:
            return f"{source.contrast.modality}-to-{target.contrast.modality}"
        return f"{source.grade or source.contrast}-to-{target.grade or target.contrast}"

    @property
    def shares_scale(self) -> bool:
        """Whether source and target are of one contrast and one window: then the scale of an image is kept."""
        return self.source.contrast is self.target.contrast and self.windows[0] == self.windows[1]

    @property
    def monotone(self) -> str | None:
        """Where its loss let grey values move, ``"darker"`` or ``"brighter"``; None where it did not ask."""
        return str(self.loss["relu_direction"]) if self.shares_scale and self.loss.get("relu") else None

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data that follows ``data_schemas/translator_card.schema.json``."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.name,
            "musclekit": self.version,
            "network": {"name": self.network["name"], "parameters": dict(self.network["parameters"])},
            **{
                part: {"contrast": str(domain.contrast), "grade": domain.grade}
                for part, domain in (("source", self.source), ("target", self.target))
            },
            "windows": dict(zip(("source", "target"), (w.as_data() for w in self.windows), strict=True)),
            "target_scale": {"low": self.target_scale.low, "high": self.target_scale.high},
            "spacing_mm": self.spacing_mm,
            "size": self.size,
            "multiple": self.multiple,
            "per_leg": self.per_leg,
            "loss": dict(self.loss),
            "schedule": dict(self.schedule),
            "seed": self.seed,
            "training_subjects": dict(zip(("source", "target"), map(list, self.training_subjects), strict=True)),
            "data": self.data,
            "licence": self.licence,
            "source_deciles": self.source_deciles
            and dict(zip(("least", "most"), map(list, self.source_deciles), strict=True)),
            "meant_with": dict(self.meant_with),
            "scores": dict(self.scores),
            "limits": list(self.limits),
            "weights_sha256": self.weights_sha256,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TranslatorCard:
        """Return the card that `as_data` described; what it holds is taken to follow the schema."""
        domains = [data[part] for part in ("source", "target")]
        source, target = (Domain(Contrast(domain["contrast"]), domain["grade"]) for domain in domains)
        subjects, deciles = data["training_subjects"], data.get("source_deciles")
        same = ("name", "network", "spacing_mm", "size", "multiple", "per_leg", "loss", "schedule", "seed", "data",
                "licence", "scores", "weights_sha256")  # fmt: skip
        return cls(
            source=source,
            target=target,
            windows=(Window.from_data(data["windows"]["source"]), Window.from_data(data["windows"]["target"])),
            target_scale=Scale(**data["target_scale"]),
            training_subjects=(tuple(subjects["source"]), tuple(subjects["target"])),
            source_deciles=deciles and (tuple(deciles["least"]), tuple(deciles["most"])),
            meant_with=data.get("meant_with", {}),
            limits=tuple(data["limits"]),
            version=data["musclekit"],
            **{name: data[name] for name in same},
        )

    def why_not(self, network: nn.Module) -> str:
        """Say why a network, tried without weights, cannot be that of the card; empty if it can."""
        side = -(-self.size // self.multiple) * self.multiple
        image = torch.empty(1, 1, side, side)
        if getattr(network, "multiple", None) == self.multiple and network(image).shape == image.shape:
            return ""
        return "makes no images of the card's size and multiple out of such images"


@dataclass(frozen=True)
class SegmenterCard:
    """What stands beside the weights of a segmenter.

    Parameters
    ----------
    name : str
        What it is called.
    network : mapping
        ``name`` and ``parameters``, as `musclekit.neural.networks.build` takes them.
    label_set : LabelSet
        Class n of the network is its n-th label.
    windows : mapping of Contrast to Window
        The contrasts it takes, and how their grey values became -1 to 1.
    view : ViewSpec
        How it sees a scan.
    context : int
        Neighbours on either side that it is shown with a slice, as further channels.
    loss, schedule, augmentation : mapping
        As plain data.
    seed : int, optional
        Of the training.
    start : mapping
        Name and ``weights_sha256`` of the network that its training started from; empty where weights were drawn.
    training_subjects, validation_subjects : tuple of str
        Whom it learnt from, and by whom its best epoch was chosen, those of the network it started from among them.
        None of them must be scored.
    data, licence : str
        What it was trained on, and the licence of the weights.
    deciles : mapping of Contrast to (tuple of float, tuple of float)
        Deciles of the grey values (-1 to 1) of what it was shown: the least and the most over scans.
    scores : mapping
        What it reached, as plain data.
    limits : tuple of str
        What it cannot do.
    weights_sha256 : str
        Hash of the weights; `save_checkpoint` fills it in.
    version : str
        Of the musclekit that trained it.
    """

    kind: ClassVar[str] = "segmenter"
    schema: ClassVar[str] = "segmenter_card"

    name: str
    network: Mapping[str, Any]
    label_set: LabelSet
    windows: Mapping[Contrast, Window]
    view: ViewSpec
    context: int = 0
    loss: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    start: Mapping[str, str] = field(default_factory=dict)
    training_subjects: tuple[str, ...] = ()
    validation_subjects: tuple[str, ...] = ()
    data: str = ""
    licence: str = ""
    deciles: Mapping[Contrast, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    weights_sha256: str = ""
    version: str = field(default_factory=lambda: version("musclekit"))

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrasts it takes."""
        return frozenset(self.windows)

    @property
    def recipe(self) -> dict[str, Any]:
        """All that networks trained alike have in common, as plain data: not weights, seed, people and scores."""
        data = self.as_data()
        common = {
            name: data[name] for name in ("network", "labels", "windows", "view", "context", "loss", "augmentation")
        }
        learnt = {name: value for name, value in self.schedule.items() if name not in ("epochs_done", "best_epoch")}
        return common | {"schedule": learnt} | ({"start": dict(self.start)} if self.start else {})

    @property
    def family(self) -> str:
        """SHA-256 of the recipe. What cross-validation tells of the networks of the folds holds for their family."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()

    @property
    def in_channels(self) -> int:
        """Slices that it is shown at once."""
        return 2 * self.context + 1

    @property
    def out_channels(self) -> int:
        """Classes, background among them."""
        return len(self.label_set) + 1

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data that follows ``data_schemas/segmenter_card.schema.json``."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "name": self.name,
            "musclekit": self.version,
            "network": {"name": self.network["name"], "parameters": dict(self.network["parameters"])},
            "label_set": self.label_set.name,
            "labels": [label.full_name for label in self.label_set],
            "windows": {str(contrast): window.as_data() for contrast, window in self.windows.items()},
            "view": self.view.as_data(),
            "context": self.context,
            "loss": dict(self.loss),
            "schedule": dict(self.schedule),
            "augmentation": dict(self.augmentation),
            "seed": self.seed,
            "start": dict(self.start),
            "training_subjects": list(self.training_subjects),
            "validation_subjects": list(self.validation_subjects),
            "data": self.data,
            "licence": self.licence,
            "deciles": {
                str(contrast): {"least": list(least), "most": list(most)}
                for contrast, (least, most) in self.deciles.items()
            },
            "scores": dict(self.scores),
            "limits": list(self.limits),
            "weights_sha256": self.weights_sha256,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> SegmenterCard:
        """Return the card that `as_data` described; what it holds is taken to follow the schema.

        Raises
        ------
        LabelError
            If there is no such label set, or its labels are others than those that were learnt.
        ParameterError
            If the view or a window cannot be what it is.
        """
        known = label_set(data["label_set"])
        if [label.full_name for label in known] != data["labels"]:
            raise LabelError(
                f"the label set '{known.name}' of this musclekit has other labels than those that the network learnt: "
                f"{', '.join(data['labels'])}"
            )
        same = ("name", "network", "context", "loss", "schedule", "augmentation", "seed", "data", "licence", "scores",
                "weights_sha256")  # fmt: skip
        return cls(
            label_set=known,
            windows={Contrast(name): Window.from_data(window) for name, window in data["windows"].items()},
            view=ViewSpec.from_data(data["view"]),
            training_subjects=tuple(data["training_subjects"]),
            validation_subjects=tuple(data["validation_subjects"]),
            start=dict(data.get("start", {})),
            deciles={
                Contrast(name): (tuple(ends["least"]), tuple(ends["most"])) for name, ends in data["deciles"].items()
            },
            limits=tuple(data["limits"]),
            version=data["musclekit"],
            **{name: data[name] for name in same},
        )

    def why_not(self, network: nn.Module) -> str:
        """Say why a network, tried without weights, cannot be that of the card; empty if it can."""
        needs = size_needs(network)
        sides = needs.fitted((1, *self.view.size)[-needs.dimensions :])
        answer = network(torch.empty(1, self.in_channels, *sides))
        if answer.shape != (1, self.out_channels, *sides):
            return f"does not give {self.out_channels} classes, which '{self.label_set.name}' and background are"
        return ""
