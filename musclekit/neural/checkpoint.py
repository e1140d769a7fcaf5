"""A network on disk: its weights, and a card that says all one needs to use it.

The file holds numbers and text and nothing else: nothing in it is ever run. The card names the network to build, the
windows and the pixel size it knows, whom and what it was trained on, and the hash of the weights it belongs to.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from musclekit.errors import CheckpointError, FormatError, InputError, MissingFileError, SchemaError
from musclekit.image import Contrast, Domain
from musclekit.io import replacing
from musclekit.neural import networks
from musclekit.neural.windows import Scale, Window
from musclekit.schemas import check_schema

__all__ = [
    "FORMAT",
    "Card",
    "load_checkpoint",
    "read_card",
    "read_tensors",
    "save_checkpoint",
    "weights_hash",
    "write_tensors",
]

#: Of the card.
FORMAT = 1

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Card:
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
        """Return it as plain data that follows ``data_schemas/card.schema.json``."""
        return {
            "format": FORMAT,
            "kind": "translator",
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
    def from_data(cls, data: Mapping[str, Any]) -> Card:
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


def weights_hash(weights: Weights) -> str:
    """Return the SHA-256 of weights: of their names, types, shapes and values, whatever file they lie in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def save_checkpoint(path: Path, generator: nn.Module, card: Card, *, half: bool = False) -> Card:
    """Write a network and its card; a file that stood there stays whole until the new one is complete.

    Parameters
    ----------
    path : Path
        The file.
    generator : Module
        The network that the card names.
    card : Card
        The hash of the weights in it is set.
    half : bool
        Whether weights are stored in half precision: half the size, and about three significant digits.

    Returns
    -------
    Card
        As it was written.

    Raises
    ------
    SchemaError
        If the card does not follow its schema.
    OutputError
        If the file cannot be written, because the disk is full for instance.
    """
    weights = {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in generator.state_dict().items()
    }
    written = replace(card, weights_sha256=weights_hash(weights))
    data = written.as_data()
    check_schema(data, "card", f"the card of {path.name}")
    text = json.dumps(data, ensure_ascii=False)
    write_tensors(path, {"card": text, "card_sha256": _text_hash(text), "weights": weights})
    return written


def load_checkpoint(path: Path, kind: str = "translator") -> tuple[nn.Module, Card]:
    """Read a network and its card.

    Parameters
    ----------
    path : Path
        What `save_checkpoint` wrote.
    kind : str
        What the network has to be.

    Returns
    -------
    Module
        In float32, on the processor, set to evaluate.
    Card
        What it says of it.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If the file is cut short or damaged, is no checkpoint, or holds more than numbers and text.
    CheckpointError
        If it is of another kind or of a later version, if card or weights were changed after they were written, or if
        the weights do not fit the network.
    """
    content = read_tensors(path)
    card = _card(path, content, kind)
    weights: Weights = content["weights"]
    if weights_hash(weights) != card.weights_sha256 or _text_hash(content["card"]) != content.get("card_sha256"):
        raise CheckpointError(f"{path}: the file was changed after it was written: its hashes do not fit")
    _check_generator(path, card)
    try:
        network = networks.build(card.network["name"], **card.network["parameters"])
        network.load_state_dict(dict(weights))
    except (InputError, TypeError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: the weights do not fit the network of the card: {_line(problem)}") from problem
    return network.eval().requires_grad_(False), card


def _check_generator(path: Path, card: Card) -> None:
    """Refuse a network that makes no images of images; it is tried without weights, which take no memory."""
    side = -(-card.size // card.multiple) * card.multiple
    try:
        with torch.device("meta"):
            network = networks.build(card.network["name"], **card.network["parameters"])
            image = torch.empty(1, 1, side, side)
            suits = getattr(network, "multiple", None) == card.multiple and network(image).shape == image.shape
    except (InputError, TypeError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: the network of the card cannot be used: {_line(problem)}") from problem
    if not suits:
        raise CheckpointError(
            f"{path}: the network of the card, {card.network['name']}, makes no images of the card's size and multiple "
            "out of such images"
        )


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def read_card(path: Path, kind: str = "translator") -> Card:
    """Read the card of a checkpoint; the weights are not looked at. Errors are those of `load_checkpoint`."""
    return _card(path, read_tensors(path), kind)


def _card(path: Path, content: Mapping[str, Any], kind: str) -> Card:
    """Read the card, the reasons for a refusal first that a person can do something about."""
    text, weights = content.get("card"), content.get("weights")
    if not isinstance(text, str) or not _are_weights(weights):
        raise FormatError(f"{path}: no checkpoint of a network: it holds no card and weights")
    try:
        data = json.loads(text)
    except ValueError as problem:
        raise FormatError(f"{path}: the card is not JSON: {problem}") from problem
    if not isinstance(data, dict):
        raise FormatError(f"{path}: the card is not an object")
    number, found = data.get("format"), data.get("kind")
    if number != FORMAT:
        raise CheckpointError(
            f"{path}: a card of format {number}, and musclekit {version('musclekit')} reads format {FORMAT}; it was "
            f"written by musclekit {data.get('musclekit', 'of unknown version')}"
        )
    if found != kind:
        raise CheckpointError(f"{path}: a checkpoint of kind '{found}', not '{kind}'")
    try:
        check_schema(data, "card", f"{path}: the card")
        return Card.from_data(data)
    except SchemaError as problem:
        raise CheckpointError(str(problem)) from problem


def _are_weights(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
        for name, tensor in value.items()
    )


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    content : mapping
        Tensors, numbers, text, and lists, tuples and dictionaries of these.

    Raises
    ------
    OutputError
        If the file cannot be written; what stood there is as it was.
    """
    # By way of memory: torch tells a full disk from no other failure, Python does.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote; nothing in the file is run.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it cannot be read, is cut short or damaged, or holds more than numbers and text.
    """
    if path.is_dir():
        raise FormatError(f"{path}: a folder, not the file of a checkpoint")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        raw = io.BytesIO(path.read_bytes())
    except OSError as problem:
        raise FormatError(f"{path}: cannot be read ({problem.strerror})") from problem
    # Every file that torch writes is a zip archive, with its table at the end.
    if not zipfile.is_zipfile(raw):
        raise FormatError(f"{path}: no checkpoint, or one that is cut short")
    raw.seek(0)
    try:
        # torch itself does not look at the sums that the archive keeps of its parts.
        broken = zipfile.ZipFile(raw).testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as problem:
        raise FormatError(f"{path}: the checkpoint is damaged ({type(problem).__name__})") from problem
    if broken is not None:
        raise FormatError(f"{path}: the checkpoint is damaged, in its part {broken}")
    raw.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols, before it refuses them
            content = torch.load(raw, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise FormatError(
            f"{path}: holds more than numbers and text, or is damaged; it was not opened, for that could run a program"
        ) from problem
    except Exception as problem:  # torch meets a damaged file with an error of almost any class
        raise FormatError(f"{path}: the checkpoint is damaged ({type(problem).__name__})") from problem
    if not isinstance(content, dict):
        raise FormatError(f"{path}: no checkpoint: it holds a {type(content).__name__}")
    return cast(dict[str, Any], content)
