"""A network on disk: its weights, and a card that says all one needs to use it.

The file holds numbers and text and nothing else: nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from musclekit.errors import CheckpointError, FormatError, InputError, MissingFileError, SchemaError
from musclekit.io import replacing
from musclekit.neural import networks
from musclekit.neural.cards import FORMAT, SegmenterCard, TranslatorCard
from musclekit.schemas import check_schema

__all__ = [
    "load_checkpoint",
    "read_card",
    "read_tensors",
    "save_checkpoint",
    "weights_hash",
    "write_tensors",
]

C = TypeVar("C", TranslatorCard, SegmenterCard)

Weights = Mapping[str, torch.Tensor]


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


def save_checkpoint(path: Path, network: nn.Module | Weights, card: C, *, half: bool = False) -> C:
    """Write a network and its card; a file that stood there stays whole until the new one is complete.

    Parameters
    ----------
    path : Path
        The file.
    network : Module or mapping of str to Tensor
        What the card names, or its weights.
    card : TranslatorCard or SegmenterCard
        The hash of the weights in it is set.
    half : bool
        Whether weights are stored in half precision: half the size, and about three significant digits.

    Returns
    -------
    TranslatorCard or SegmenterCard
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
        for name, value in (network.state_dict() if isinstance(network, nn.Module) else network).items()
    }
    written = replace(card, weights_sha256=weights_hash(weights))
    data = written.as_data()
    check_schema(data, card.schema, f"the card of {path.name}")
    text = json.dumps(data, ensure_ascii=False)
    write_tensors(path, {"card": text, "card_sha256": _text_hash(text), "weights": weights})
    return written


def load_checkpoint(path: Path, kind: type[C]) -> tuple[nn.Module, C]:
    """Read a network and its card.

    Parameters
    ----------
    path : Path
        What `save_checkpoint` wrote.
    kind : type
        Class of the card, `TranslatorCard` or `SegmenterCard`: what the network has to be.

    Returns
    -------
    Module
        In float32, on the processor, set to evaluate.
    TranslatorCard or SegmenterCard
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
    _check_network(path, card)
    try:
        network = networks.build(card.network["name"], **card.network["parameters"])
        network.load_state_dict(dict(weights))
    except (InputError, TypeError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: the weights do not fit the network of the card: {_line(problem)}") from problem
    return network.eval().requires_grad_(False), card


def _check_network(path: Path, card: TranslatorCard | SegmenterCard) -> None:
    """Refuse a network that cannot do what the card says; it is tried without weights, which take no memory."""
    try:
        with torch.device("meta"):
            why_not = card.why_not(networks.build(card.network["name"], **card.network["parameters"]).eval())
    except (InputError, TypeError, ValueError, RuntimeError) as problem:
        raise CheckpointError(f"{path}: the network of the card cannot be used: {_line(problem)}") from problem
    if why_not:
        raise CheckpointError(f"{path}: the network of the card, {card.network['name']}, {why_not}")


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def read_card(path: Path, kind: type[C]) -> C:
    """Read the card of a checkpoint; the weights are not looked at. Errors are those of `load_checkpoint`."""
    return _card(path, read_tensors(path), kind)


def _card(path: Path, content: Mapping[str, Any], kind: type[C]) -> C:
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
    if found != kind.kind:
        raise CheckpointError(f"{path}: a checkpoint of kind '{found}', not '{kind.kind}'")
    try:
        check_schema(data, kind.schema, f"{path}: the card")
    except SchemaError as problem:
        raise CheckpointError(str(problem)) from problem
    try:
        return kind.from_data(data)
    except InputError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem


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
