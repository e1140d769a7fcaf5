"""What to adapt from and to, and how: the plan of all stages, as a file says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch

from musclekit.checks import check_number
from musclekit.errors import ParameterError
from musclekit.image import Contrast
from musclekit.labels import LabelSet, label_set
from musclekit.neural import networks
from musclekit.neural.adaptation.contrastive import ContrastiveLoss
from musclekit.neural.adaptation.cycle import SYNSEG_LOSS, JointLoss
from musclekit.neural.adaptation.disentangled import DisentangledLoss
from musclekit.neural.adaptation.pseudo_labels import EASY_SHARE, MOST_REMOVED
from musclekit.neural.adaptation.self_training import TuneSchedule
from musclekit.neural.adaptation.stage_one import JointSchedule
from musclekit.neural.objectives import MR_TO_CT_LOSS, TranslationLoss
from musclekit.neural.segmentation_losses import SegmentationLoss
from musclekit.neural.training.plan import DISCRIMINATOR, GENERATOR
from musclekit.neural.training.plan_file import read_plan_data
from musclekit.neural.views import ViewSpec
from musclekit.neural.windows import CT_WINDOW, Window

__all__ = ["AdaptPlan", "Part", "Pseudo", "read_adapt_plan"]

#: From the least to the greatest grey value of the body in the whole volume. The paper takes those of each image.
MIN_MAX = Window("percentile", 0, 100)
#: Weights of background, gracilis, hamstrings, quadriceps, sartorius in the paper.
CLASS_WEIGHTS: Mapping[str, tuple[float, ...]] = MappingProxyType({"thigh-4": (1, 10, 1, 1, 10)})
#: How often labels that keep a margin are dilated (Yang et al.), by their group in ``thigh-4``.
MARGIN_STEPS: Mapping[str, int] = MappingProxyType({"quadriceps femoris": 6, "hamstrings": 2})

Method = Literal["joint", "synseg", "accseg", "dise"]
MethodLoss = JointLoss | ContrastiveLoss | DisentangledLoss
Region = Literal["image", "body"]


@dataclass(frozen=True)
class Part:
    """Which scans of the manifest are one side of it.

    Parameters
    ----------
    contrast : Contrast
        Of their images.
    split : str, optional
        Value of the manifest's column ``split``; all if left out.
    window : Window, optional
        How grey values become -1 to 1; None for the one of the paper.
    """

    contrast: Contrast
    split: str | None = None
    window: Window | None = None

    @property
    def scaling(self) -> Window:
        """The window that is used."""
        return self.window or (CT_WINDOW if self.contrast is Contrast.CT else MIN_MAX)


@dataclass(frozen=True)
class Pseudo:
    """How images are ranked, and their labels cleaned.

    Parameters
    ----------
    easy_share : float
        Of the images.
    region : {"image", "body"}
        Where the mean of the entropy is taken.
    clean : bool
        Whether what lies outside the muscle compartment or in bone is taken from the labels.
    most_removed : float
        An image that loses a larger share of its labels counts as hard.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such region.
    """

    easy_share: float = EASY_SHARE
    region: Region = "image"
    clean: bool = True
    most_removed: float = MOST_REMOVED

    def __post_init__(self) -> None:
        check_number("easy_share", self.easy_share, above=0, most=1)
        check_number("most_removed", self.most_removed, least=0, most=1)
        if self.region not in get_args(Region):
            raise ParameterError(f"region is one of {', '.join(get_args(Region))}, not '{self.region}'")


@dataclass(frozen=True)
class AdaptPlan:
    """From labelled images of one modality to a segmenter of another.

    Parameters
    ----------
    source, target : Part
        Labelled scans, and those that are to be segmented.
    labels : LabelSet
        What the segmenter is to give.
    method : {"joint", "synseg", "accseg", "dise"}
        What stage 1 learns for: the loss of Yang et al., that of SynSeg-Net, of AccSeg-Net, or of DISE.
    view : ViewSpec
        Single legs; 256 x 256 pixels of 0.97 mm in the paper.
    generator, discriminator, segmenter : mapping
        ``name`` and parameters of the networks, their channels left out.
    loss : JointLoss, ContrastiveLoss or DisentangledLoss
        Of stage 1; the latter two are those of AccSeg-Net and of DISE.
    schedule : JointSchedule
        Of stage 1.
    pseudo : Pseudo
        Between the stages.
    tune : TuneSchedule
        Of stage 2.
    margin_steps : mapping of str to int
        How often labels of scans that declare a margin are dilated, by their group in `labels`.
    validation_split : str, optional
        Labelled scans of the target by which the best epoch of either stage is chosen; the last one is kept without.
    start : str, optional
        Checkpoint of a segmenter to begin stage 2 with; stage 1 is left out.
    cases : Path, optional
        Manifest of the scans.
    seed : int
        Of all chance.
    name, data, licence : str
        For the card.
    """

    source: Part
    target: Part
    labels: LabelSet
    method: Method = "joint"
    view: ViewSpec = field(default_factory=lambda: ViewSpec("leg", 0.97, (256, 256)))
    generator: Mapping[str, Any] = field(default_factory=lambda: GENERATOR)
    discriminator: Mapping[str, Any] = field(default_factory=lambda: DISCRIMINATOR)
    segmenter: Mapping[str, Any] = field(default_factory=lambda: {"name": "unet-256"})
    loss: MethodLoss = field(default_factory=JointLoss)
    schedule: JointSchedule = field(default_factory=JointSchedule)
    pseudo: Pseudo = field(default_factory=Pseudo)
    tune: TuneSchedule = field(default_factory=TuneSchedule)
    margin_steps: Mapping[str, int] = field(default_factory=lambda: MARGIN_STEPS)
    validation_split: str | None = None
    start: str | None = None
    cases: Path | None = None
    seed: int = 0
    name: str = ""
    data: str = ""
    licence: str = ""

    @property
    def segmenter_parameters(self) -> dict[str, Any]:
        """Parameters of the segmenter, its channels among them."""
        given = {name: value for name, value in self.segmenter.items() if name != "name"}
        return {"in_channels": 1, "out_channels": len(self.labels) + 1, **given}

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, everything that was left out filled in."""

        def part(one: Part) -> dict[str, Any]:
            split = {} if one.split is None else {"split": one.split}
            return {"contrast": str(one.contrast), **split, "window": one.scaling.as_data()}

        data: dict[str, Any] = {
            "kind": "adapt",
            "source": part(self.source),
            "target": part(self.target),
            "labels": self.labels.name,
            "method": self.method,
            "view": {"spacing_mm": self.view.spacing_mm, "size": self.view.size[0]},
            "generator": dict(self.generator),
            "discriminator": dict(self.discriminator),
            "segmenter": dict(self.segmenter),
            "loss": _loss_data(self.loss, self.tune.classes),
            "schedule": asdict(self.schedule),
            "pseudo": asdict(self.pseudo),
            "tune": {name: value for name, value in asdict(self.tune).items() if name != "classes"},
            "margin_steps": dict(self.margin_steps),
            "seed": self.seed,
            "name": self.name,
            "data": self.data,
            "licence": self.licence,
        }
        optional = {"validation_split": self.validation_split, "start": self.start, "cases": self.cases}
        return data | {name: str(value) for name, value in optional.items() if value is not None}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AdaptPlan:
        """Return the plan that data describe; they are taken to follow ``data_schemas/adapt.schema.json``.

        Raises
        ------
        ParameterError
            If a number lies outside its range.
        UnknownNameError
            If there is no such label set.
        """
        parts = dict(data)
        del parts["kind"]
        labels = label_set(parts.pop("labels"))
        method: Method = parts.pop("method", "joint")
        view = {"spacing_mm": 0.97, "size": 256, **parts.pop("view", {})}
        loss, classes = _loss(parts.pop("loss", {}), labels, method)
        for name, default in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR)):
            parts[name] = {**default, **parts.get(name, {})}
        return cls(
            **{
                **parts,
                "source": _part(parts["source"]),
                "target": _part(parts["target"]),
                "labels": labels,
                "method": method,
                "view": ViewSpec("leg", view["spacing_mm"], (view["size"], view["size"])),
                "loss": loss,
                "schedule": JointSchedule(**parts.get("schedule", {})),
                "pseudo": Pseudo(**parts.get("pseudo", {})),
                "tune": TuneSchedule(**parts.get("tune", {}), classes=classes),
                "cases": Path(parts["cases"]) if "cases" in parts else None,
            }
        )


def _part(data: Mapping[str, Any]) -> Part:
    window = Window.from_data(data["window"]) if "window" in data else None
    return Part(Contrast(data["contrast"]), data.get("split"), window)


def _loss(data: Mapping[str, Any], labels: LabelSet, method: Method) -> tuple[MethodLoss, SegmentationLoss]:
    """Return the loss of a method, changed by what a plan says of it, and the cross-entropy of stage 2."""
    parts = dict(data)
    classes = SegmentationLoss(
        dice=0.0,
        class_weights=tuple(parts.pop("class_weights", CLASS_WEIGHTS.get(labels.name, ()))),
        reduction=parts.pop("reduction", "pixels"),
    )
    kinds = {"accseg": ContrastiveLoss, "dise": DisentangledLoss}
    known = {one.name for one in fields(kinds.get(method, TranslationLoss))} - {"classes"}
    unknown = sorted(set(parts) - known - {"segmentation"})
    if unknown:
        raise ParameterError(f"the loss of method '{method}' has no term '{unknown[0]}'")
    if method == "accseg":
        return ContrastiveLoss(**parts), classes
    if method == "dise":
        return DisentangledLoss(**parts, classes=classes), classes
    segmentation = parts.pop("segmentation", 1.0)
    base = asdict(SYNSEG_LOSS if method == "synseg" else MR_TO_CT_LOSS)
    return JointLoss(TranslationLoss(**{**base, **parts}), segmentation, classes), classes


def _loss_data(loss: MethodLoss, classes: SegmentationLoss) -> dict[str, Any]:
    """Return what a plan says of a loss."""
    means: dict[str, Any] = {}
    if isinstance(loss, JointLoss):
        means = {"gan_kind": loss.translation.gan_kind, "identity_on": loss.translation.identity_on}
    else:
        means = {"gan_kind": loss.gan_kind}
    return {**loss.weights, **means, "class_weights": list(classes.class_weights), "reduction": classes.reduction}


def read_adapt_plan(path: Path) -> AdaptPlan:
    """Read the plan of an adaptation.

    Parameters
    ----------
    path : Path
        TOML; see ``data_schemas/adapt.schema.json``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not TOML.
    SchemaError
        If it breaks the schema.
    InputError
        If it cannot be done: networks do not fit the images, class weights not the labels, source and target are one.
    """
    plan = AdaptPlan.from_data(read_plan_data(path, "adapt"))
    check_adapt_plan(plan)
    return plan


def check_adapt_plan(plan: AdaptPlan) -> None:
    """Check a plan as far as that goes without scans; see `read_adapt_plan` for what is raised."""
    check_number("seed", plan.seed, least=0, whole=True)
    if plan.source.contrast is plan.target.contrast:
        raise ParameterError(f"source and target are both {plan.source.contrast}: there is nothing to adapt to")
    if plan.labels.is_sided:
        raise ParameterError(
            f"single legs are made to look like right ones: take the label set '{plan.labels.unsided().name}'"
        )
    weights = plan.tune.classes.class_weights
    if weights and len(weights) != len(plan.labels) + 1:
        raise ParameterError(
            f"class_weights are {len(weights)}; background and the labels of '{plan.labels.name}' are "
            f"{len(plan.labels) + 1}"
        )
    unknown = sorted(set(plan.margin_steps) - set(plan.labels.names))
    if unknown and dict(plan.margin_steps) != dict(MARGIN_STEPS):
        raise ParameterError(f"margin_steps: '{plan.labels.name}' has no label '{unknown[0]}'")
    if plan.segmenter["name"] not in networks.segmenters():
        raise ParameterError(
            f"network '{plan.segmenter['name']}' does not segment; those that do: {', '.join(networks.segmenters())}"
        )
    with torch.device("meta"):
        images = torch.empty(1, 1, *plan.view.size)
        for description in (plan.generator, plan.discriminator):
            networks.build(**description)(images)
        segmenter = networks.build(plan.segmenter["name"], **plan.segmenter_parameters)
        if networks.size_needs(segmenter).dimensions != 2:
            raise ParameterError(f"'{plan.segmenter['name']}' works on volumes, and images are single slices")
        segmenter.eval()(images)
