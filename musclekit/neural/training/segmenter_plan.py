"""Which segmenter to train: labels, scans, view, network, loss and schedule, as a file says them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.image import Contrast
from musclekit.labels import LabelSet, label_set
from musclekit.neural import networks
from musclekit.neural.augmentation import Augmentation
from musclekit.neural.device import Precision
from musclekit.neural.drawing import SampleKind
from musclekit.neural.schedule import decay_factor
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.synthesis import classes_of_context
from musclekit.neural.training.plan_file import read_plan_data
from musclekit.neural.training.start import Start
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Window
from musclekit.phantom import ShapeRange, SliceRange

__all__ = ["SegmenterPlan", "SegmenterSchedule", "check_segmenter_plan", "read_segmenter_plan"]

Optimiser = Literal["adam", "adamw"]
Decay = Literal["none", "linear", "polynomial", "inverse-time"]

#: Power by which the rate falls where it falls as a polynomial.
POWER = 0.9


@dataclass(frozen=True)
class SegmenterSchedule:
    """How long, how fast and in which portions.

    Parameters
    ----------
    epochs : int
        At most.
    steps : int, optional
        Of an epoch; as many as one pass over the samples takes if left out.
    batch : int
        Samples in a step, on all devices together; of each plane where a network has three.
    optimiser : {"adam", "adamw"}
        Adam, or with its weight decay apart from the gradient.
    learning_rate, weight_decay : float
        Of the optimiser.
    decay : {"none", "linear", "polynomial", "inverse-time"}
        How the rate changes: not at all; along a line to zero in the second half of the epochs; as
        ``(1 - t / T)**0.9`` over all updates; or as ``1 / (1 + decay_rate * t)`` with the number t of updates.
    decay_rate : float
        See there; 0.001 in Haque et al. (2.5-D U-Net).
    patience : int
        Epochs without a better score on the validation cases after which the training stops; 0 for never.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such optimiser or decay.
    """

    epochs: int = 100
    steps: int | None = None
    batch: int = 8
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    decay: Decay = "polynomial"
    decay_rate: float = 1e-3
    patience: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 0)):
            check_number(name, getattr(self, name), least=least, whole=True)
        if self.steps is not None:
            check_number("steps", self.steps, least=1, whole=True)
        check_number("learning_rate", self.learning_rate, above=0)
        for name in ("weight_decay", "decay_rate"):
            check_number(name, getattr(self, name), least=0)
        for name, kinds in (("optimiser", get_args(Optimiser)), ("decay", get_args(Decay))):
            if getattr(self, name) not in kinds:
                raise ParameterError(f"{name} is one of {', '.join(kinds)}, not '{getattr(self, name)}'")

    def factor(self, update: int, steps: int) -> float:
        """Return what the learning rate is multiplied by.

        Parameters
        ----------
        update : int
            Counted from 0, over all epochs.
        steps : int
            Of an epoch.
        """
        match self.decay:
            case "linear":
                falling = self.epochs // 2
                return decay_factor(update // steps, self.epochs - falling, falling)
            case "polynomial":
                return float((1 - update / (self.epochs * steps)) ** POWER)
            case "inverse-time":
                return 1 / (1 + self.decay_rate * update)
            case _:
                return 1.0


@dataclass(frozen=True)
class SegmenterPlan:
    """Which segmenter to train.

    Parameters
    ----------
    labels : LabelSet
        What it is to give. Labels of the cases are mapped to it.
    contrasts : tuple of Contrast
        Of the scans that it is to take.
    network : mapping
        ``name`` and parameters, as `musclekit.neural.networks.build` takes them, but for the numbers of channels,
        which follow from labels and context.
    window : Window, optional
        How grey values become -1 to 1, of all the contrasts; None for those of CT and of MR.
    view : ViewSpec
        How it sees a scan.
    context : int
        Neighbours on either side that it is shown with an axial slice.
    block : tuple of int, optional
        Planes, rows and columns of what a network of volumes is trained on at once; the size of the view if left out.
    unlabelled_is_background : bool
        Whether slices of a leg without any label are background, or nothing is known of them.
    loss : SegmentationLoss
        Weights of the terms, and what they mean.
    schedule : SegmenterSchedule
        How long, how fast.
    augmentation : Augmentation
        How samples are moved.
    synthesis : SliceRange, optional
        What slices look like that are drawn from label maps as it learns; None where it learns from scans.
    seed : int
        Of the first weights and of all that is drawn.
    start : str, optional
        Checkpoint of a segmenter whose weights to start from (file, or name of weights that ship), for networks that
        differ in their labels at most; drawn weights if left out.
    cases : Path, optional
        Manifest of the scans, if the plan names one.
    split, validation_split : str, optional
        Parts of the manifest (its column ``split``) that are trained on, and by which the best epoch is chosen.
    validation_share : float
        Share of the subjects by which the best epoch is chosen, where no part of the manifest is named; 0 for none:
        then the last epoch is kept.
    precision : {"float32", "bfloat16"}
        Of the work; weights are float32 in any case.
    channels_last : bool
        Order of numbers in memory that suits newer processors.
    sheet_every : int
        Epochs between two sheets of samples; 0 for none.
    name : str, optional
        What the segmenter is called; as its network if left out.
    data, licence : str
        For the card: what is trained on, and the licence of the weights.
    limits : tuple of str
        For the card: what it cannot do.
    """

    labels: LabelSet
    contrasts: tuple[Contrast, ...]
    network: Mapping[str, Any]
    window: Window | None = None
    view: ViewSpec = field(default_factory=ViewSpec)
    context: int = 0
    block: tuple[int, ...] | None = None
    unlabelled_is_background: bool = False
    loss: SegmentationLoss = field(default_factory=SegmentationLoss)
    schedule: SegmenterSchedule = field(default_factory=SegmenterSchedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    synthesis: SliceRange | None = None
    seed: int = 0
    start: str | None = None
    cases: Path | None = None
    split: str | None = None
    validation_split: str | None = None
    validation_share: float = 0.0
    precision: Precision = "float32"
    channels_last: bool = False
    sheet_every: int = 10
    name: str | None = None
    data: str = ""
    licence: str = ""
    limits: tuple[str, ...] = ()

    @property
    def windows(self) -> dict[Contrast, Window]:
        """The window of each contrast."""
        return {
            contrast: self.window or (CT_WINDOW if contrast is Contrast.CT else MR_WINDOW)
            for contrast in self.contrasts
        }

    @property
    def network_parameters(self) -> dict[str, Any]:
        """Parameters of the network, with the numbers of channels."""
        given = {name: value for name, value in self.network.items() if name != "name"}
        return {"in_channels": 2 * self.context + 1, "out_channels": len(self.labels) + 1, **given}

    @property
    def size_needs(self) -> networks.SizeNeeds:
        """What sizes the network takes."""
        with torch.device("meta"):
            return networks.size_needs(self.build())

    def build(self) -> torch.nn.Module:
        """Build the network, with the first weights that torch draws for it."""
        return networks.build(self.network["name"], **self.network_parameters)

    def sample_kind(self, network: torch.nn.Module) -> SampleKind:
        """Return what a network is trained on."""
        if isinstance(network, networks.PlaneUNets):
            return "planes"
        return "blocks" if networks.size_needs(network).dimensions == 3 else "slices"

    def sample_size(self, network: torch.nn.Module) -> tuple[int, ...]:
        """Return the size of what it is trained on, as large as it has to be."""
        needs = networks.size_needs(network)
        return needs.fitted((self.block or self.view.size)[-needs.dimensions :])

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, everything that was left out filled in; `from_data` undoes it."""
        plain = {
            "kind": "train",
            "task": "segment",
            "labels": self.labels.name,
            "contrasts": [str(contrast) for contrast in self.contrasts],
            "network": dict(self.network),
            "window": None if self.window is None else self.window.as_data(),
            "view": self.view.as_data(),
            "block": None if self.block is None else list(self.block),
            "loss": asdict(self.loss) | {"class_weights": list(self.loss.class_weights)},
            "schedule": {name: value for name, value in asdict(self.schedule).items() if value is not None},
            "augmentation": asdict(self.augmentation),
            "synthesis": None if self.synthesis is None else _synthesis_data(self.synthesis),
            "cases": None if self.cases is None else str(self.cases),
            "limits": list(self.limits),
        }
        same = ("context", "unlabelled_is_background", "seed", "start", "split", "validation_split", "validation_share",
                "precision", "channels_last", "sheet_every", "name", "data", "licence")  # fmt: skip
        plain |= {name: getattr(self, name) for name in same}
        return {name: value for name, value in plain.items() if value is not None}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> SegmenterPlan:
        """Return the plan that data describe; they follow ``data_schemas/train_segmenter.schema.json``.

        Raises
        ------
        UnknownNameError
            If there is no such label set.
        ParameterError
            If a number lies outside its range.
        """
        parts = {name: value for name, value in data.items() if name not in ("kind", "task")}
        loss = dict(parts.pop("loss", {}))
        view = {"kind": "whole", **parts.pop("view", {})}
        # A network of femur views sees them whole, unless it is told otherwise.
        size = view.setdefault("size", (180, 128, 128) if view["kind"] == "femur" else (256, 256))
        view.setdefault("spacing_mm", 2.0 if view["kind"] == "femur" else 1.5)
        return cls(
            **{
                **parts,
                "labels": label_set(parts["labels"]),
                "contrasts": tuple(map(Contrast, parts["contrasts"])),
                "window": Window.from_data(parts["window"]) if "window" in parts else None,
                "view": ViewSpec(**{**view, "size": tuple(size)}),
                "block": tuple(parts["block"]) if "block" in parts else None,
                "loss": SegmentationLoss(**{**loss, "class_weights": tuple(loss.get("class_weights", ()))}),
                "schedule": SegmenterSchedule(**parts.get("schedule", {})),
                "augmentation": Augmentation(**parts.get("augmentation", {})),
                "synthesis": _synthesis(parts["synthesis"], view) if "synthesis" in parts else None,
                "cases": Path(parts["cases"]) if "cases" in parts else None,
                "limits": tuple(parts.get("limits", ())),
            }
        )


def _synthesis(data: Mapping[str, Any], view: Mapping[str, Any]) -> SliceRange:
    """Return the range that data describe; slices have the size of the view."""
    sides = set(view["size"])
    if len(sides) > 1:
        raise ParameterError(f"slices that are synthesised are square: the size of the view is {tuple(view['size'])}")
    shape = ShapeRange(**data.get("shape", {}))
    return SliceRange(**{**data, "shape": shape, "size": sides.pop(), "spacing_mm": view["spacing_mm"]})


def _synthesis_data(how: SliceRange) -> dict[str, Any]:
    return {name: value for name, value in asdict(how).items() if name not in ("size", "spacing_mm")}


def read_segmenter_plan(path: Path) -> SegmenterPlan:
    """Read the plan of the training of a segmenter.

    Parameters
    ----------
    path : Path
        TOML; see ``data_schemas/train_segmenter.schema.json``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    SchemaError
        If it breaks the schema.
    InputError
        If it cannot be trained: see `check_segmenter_plan`.
    """
    plan = SegmenterPlan.from_data(read_plan_data(path, "train_segmenter"))
    check_segmenter_plan(plan)
    return plan


def check_segmenter_plan(plan: SegmenterPlan) -> None:
    """Check a plan as far as that goes without scans: nothing is computed, no memory is taken.

    Raises
    ------
    UnknownNameError
        If there is no such network; the message lists those there are.
    ParameterError
        If the network does not segment, view, context, block and labels do not go with it or with each other, or it
        has no such parameter or not of that value.
    GeometryError
        If the samples are too small for the network.
    MissingFileError, FormatError, CheckpointError
        If it cannot start from the network it is to start from.
    """
    check_number("context", plan.context, least=0, whole=True)
    check_number("seed", plan.seed, least=0, whole=True)
    check_number("validation_share", plan.validation_share, least=0, most=0.9)
    if not plan.contrasts:
        raise ParameterError("contrasts are empty: a network takes at least one")
    channels = sorted({"in_channels", "out_channels"} & set(plan.network))
    if channels:
        raise ParameterError(f"{channels[0]} of the network follows from labels and context: leave it out")
    if plan.view.kind != "whole" and plan.labels.is_sided:
        raise ParameterError(
            f"a '{plan.view.kind}' view shows one leg, made to look like a right one: take the label set "
            f"'{plan.labels.unsided().name}'; `segment` tells left from right"
        )
    if plan.synthesis is not None:
        if plan.view.kind != "leg":
            raise ParameterError(f"slices of single legs are synthesised: set view = leg, not '{plan.view.kind}'")
        if plan.context:
            raise ParameterError("slices are synthesised one by one, without neighbours: leave context out")
        classes_of_context(plan.labels)
    if plan.view.kind == "femur" and any(contrast is not Contrast.CT for contrast in plan.contrasts):
        raise ParameterError("the femur's view is for CT: in MR the femur's axis is not found; take view = leg")
    weights = plan.loss.class_weights
    if weights and len(weights) != len(plan.labels) + 1:
        raise ParameterError(
            f"class_weights are {len(weights)}; background and the labels of '{plan.labels.name}' are "
            f"{len(plan.labels) + 1}"
        )
    if plan.schedule.patience and plan.validation_split is None and not plan.validation_share:
        raise ParameterError("patience waits for a better score on validation cases: set validation_share, or a split")
    if plan.validation_split is not None and plan.validation_share:
        raise ParameterError("validation_split names who is validated on, and validation_share draws them: set one")
    if plan.split is not None and plan.split == plan.validation_split:
        raise ParameterError(f"split and validation_split are both '{plan.split}'")
    if plan.network["name"] in set(networks.names()) - set(networks.segmenters()):
        raise ParameterError(
            f"network '{plan.network['name']}' does not segment; those that do: {', '.join(networks.segmenters())}"
        )
    with torch.device("meta"):
        network = plan.build()
        dimensions = networks.size_needs(network).dimensions
        if dimensions == 3 and plan.synthesis is not None:
            raise ParameterError(f"slices are synthesised, and '{plan.network['name']}' works on volumes")
        if dimensions == 3 and plan.context:
            raise ParameterError("context is for networks of slices; one of volumes sees the neighbours anyway")
        if plan.block is not None and (dimensions != 3 or isinstance(network, networks.PlaneUNets)):
            raise ParameterError("block is for networks that are trained on blocks of volumes")
        if isinstance(network, networks.PlaneUNets) and plan.view.kind != "femur":
            raise ParameterError(
                f"'{plan.network['name']}' sees slices of three planes in cubic voxels: set view = femur"
            )
        if dimensions == 3 and len(plan.block or plan.view.size) != 3:
            raise ParameterError(
                f"'{plan.network['name']}' works on volumes: set block = [planes, rows, columns], or the femur's view"
            )
        size = plan.sample_size(network)
        if plan.synthesis is not None and size != tuple(plan.view.size):
            raise ParameterError(
                f"'{plan.network['name']}' does not take slices of {plan.view.size[0]} pixels: set the view's size "
                f"to {list(size)}"
            )
        network.eval()(torch.empty(1, 2 * plan.context + 1, *size))
    if plan.start is not None:
        Start(plan.start).check(plan.network["name"], plan.network_parameters)
