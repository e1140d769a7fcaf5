"""Training that starts from a network that has learnt already: to learn longer, or another label set, or from scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from musclekit.errors import CheckpointError
from musclekit.labels import LabelSet
from musclekit.neural import networks
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import load_checkpoint
from musclekit.weights import checkpoint_path

__all__ = ["Start"]


class Start:
    """A network to start from.

    Parameters
    ----------
    checkpoint : str
        Of a segmenter: the name of weights that ship, or a file.

    Raises
    ------
    MissingFileError, FormatError, CheckpointError
        As for `musclekit.neural.checkpoint.load_checkpoint`.
    """

    def __init__(self, checkpoint: str) -> None:
        self.path: Path = checkpoint_path(checkpoint)
        self.network, self.card = load_checkpoint(self.path, SegmenterCard)

    def check(self, name: str, parameters: dict[str, Any]) -> None:
        """Refuse to start another network from it: all but the number of classes has to be the same.

        Raises
        ------
        CheckpointError
            If it is another; the message says in what.
        """
        mine = {"name": self.card.network["name"], **_but_classes(self.card.network["parameters"])}
        wanted = {"name": name, **_but_classes(parameters)}
        other = sorted(key for key in mine | wanted if mine.get(key) != wanted.get(key))
        if other:
            lines = ", ".join(f"{key} is {mine.get(key, 'not set')}, not {wanted.get(key, 'not set')}" for key in other)
            raise CheckpointError(f"{self.path}: the training cannot start from this network: its {lines}")

    def take(self, network: nn.Module, labels: LabelSet) -> None:
        """Give a network these weights, in place.

        Of the layers that tell classes apart, background and labels of the same name and side get theirs; what the
        network to start from does not know keeps the weights that were drawn for it.

        Parameters
        ----------
        network : Module
            To be trained; `check` has passed.
        labels : LabelSet
            What it is to give.
        """
        before, after = self.network.state_dict(), network.state_dict()
        axes = self._class_axes()
        classes = _same_classes(self.card.label_set, labels)
        for name, value in after.items():
            if axes[name]:
                new, old = (_mesh(value.shape, axes[name], numbers) for numbers in zip(*classes, strict=True))
                value[new] = before[name][old]
            else:
                value.copy_(before[name])
        network.load_state_dict(after)

    def _class_axes(self) -> dict[str, tuple[int, ...]]:
        """Return the axes of each tensor of weights along which classes stand."""
        network = self.card.network
        more = {**network["parameters"], "out_channels": self.card.out_channels + 1}
        with torch.device("meta"):
            larger = networks.build(network["name"], **more).state_dict()
        return {
            name: tuple(axis for axis in range(value.ndim) if value.shape[axis] != larger[name].shape[axis])
            for name, value in self.network.state_dict().items()
        }


def _but_classes(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "out_channels"}


def _same_classes(before: LabelSet, after: LabelSet) -> list[tuple[int, int]]:
    """Return which class of a new set is which of an old one, background first."""
    old = {label.full_name: n for n, label in enumerate(before, start=1)}
    shared = [(n, old[label.full_name]) for n, label in enumerate(after, start=1) if label.full_name in old]
    return [(0, 0), *shared]


def _mesh(shape: Sequence[int], axes: Sequence[int], classes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Return the index of some classes along some axes, and of everything along the others."""
    index = []
    for axis, size in enumerate(shape):
        along = torch.tensor(list(classes)) if axis in axes else torch.arange(size)
        index.append(along.reshape([-1 if other == axis else 1 for other in range(len(shape))]))
    return tuple(index)
