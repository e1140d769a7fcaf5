"""Samples of labelled scans to train on: slices, slices of three planes, or blocks of volumes.

Chance comes from a NumPy generator that is handed in and from nothing else: who keeps its state can go on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from musclekit.errors import GeometryError, InputError
from musclekit.neural.labelled import UNLABELLED, LabelledView
from musclekit.neural.networks.plane_unets import neighbours
from musclekit.neural.views import AIR

__all__ = ["Batch", "Drawing", "SampleKind", "stacked"]

SampleKind = Literal["slices", "planes", "blocks"]
#: Share of the blocks with a labelled voxel in the middle; the others lie anywhere.
CENTRED = 0.5

#: Of each part of a network that has samples of its own: images and classes.
Batch = list[tuple[torch.Tensor, torch.Tensor]]


def stacked(image: NDArray[np.floating], z: int, context: int) -> NDArray[np.float32]:
    """Return a slice with its neighbours on either side as channels; beyond the ends the last slice stands for them.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        A volume.
    z : int
        Which slice.
    context : int
        How many neighbours on either side.
    """
    shown = np.clip(np.arange(z - context, z + context + 1), 0, len(image) - 1)
    found: NDArray[np.float32] = image[shown].astype(np.float32)
    return found


@dataclass(frozen=True, eq=False)
class Drawing:
    """Where samples are drawn from, and how.

    Parameters
    ----------
    views : sequence of LabelledView
        All there are.
    kind : {"slices", "planes", "blocks"}
        Axial slices; slices of every plane, for a network of each; or blocks.
    size : tuple of int
        Of a slice (rows, columns) or block (planes, rows, columns): one that a view does not fill is filled with air,
        from one that is larger a part is taken by chance. Slices of three planes come whole.
    context : int
        Neighbours on either side of an axial slice that are shown with it.
    distance : int
        How far off the neighbours of a slice of three planes lie.

    Raises
    ------
    InputError
        If there is nothing to draw.
    GeometryError
        If views whose slices come whole differ in size.
    """

    views: Sequence[LabelledView]
    kind: SampleKind
    size: tuple[int, ...]
    context: int = 0
    distance: int = 1

    def __post_init__(self) -> None:
        if not all(len(items) for items in self.items):
            raise InputError("there is no labelled slice to draw")
        if self.kind == "planes" and len({view.image.shape for view in self.views}) > 1:
            raise GeometryError("slices of three planes are taken whole: every view has to have one size")

    @cached_property
    def items(self) -> tuple[NDArray[np.intp], ...]:
        """What one pass over the data holds, for each part of the network: (view, slice) or (view, 0) for blocks."""
        axes = (0, 1, 2) if self.kind == "planes" else (0,)
        if self.kind == "blocks":
            return (np.array([(n, 0) for n in range(len(self.views))]),)
        return tuple(
            np.array([(n, int(i)) for n, view in enumerate(self.views) for i in _shown(view, axis)]) for axis in axes
        )

    def steps(self, batch: int) -> int:
        """Batches in one pass over the data, the last one filled up."""
        return -(-len(self.items[0]) // batch)

    def epoch(self, steps: int, batch: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Draw batches: all is passed over in random order, and over again, until there are enough.

        Parameters
        ----------
        steps, batch : int
            How many, and of how many samples.
        rng : numpy.random.Generator
            Where chance comes from.
        """
        orders = [_order(len(items), steps * batch, rng) for items in self.items]
        for step in range(steps):
            here = slice(step * batch, (step + 1) * batch)
            yield [
                self._samples(items[order[here]], axis, rng)
                for axis, (items, order) in enumerate(zip(self.items, orders, strict=True))
            ]

    def _samples(
        self, chosen: NDArray[np.intp], axis: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kind == "planes":
            return self._whole_planes(chosen, axis)
        images, classes = [], []
        for n, z in chosen.tolist():
            view = self.views[n]
            if self.kind == "slices":
                image, wanted = stacked(view.image, z, self.context), view.classes[z]
            else:
                image, wanted = view.image.astype(np.float32)[None], view.classes
            start = _start(wanted, self.size, rng, centred=self.kind == "blocks")
            images.append(_part(image, start, self.size, float(AIR)))
            classes.append(_part(wanted, start, self.size, 0))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(classes).astype(np.int64))

    def _whole_planes(self, chosen: NDArray[np.intp], axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, classes = [], []
        for n, i in chosen.tolist():
            volume = torch.from_numpy(self.views[n].image)[None]
            images.append(neighbours(volume, axis, torch.tensor([i]), self.distance).float())
            classes.append(torch.from_numpy(np.take(self.views[n].classes, i, axis=axis).astype(np.int64)))
        return torch.cat(images), torch.stack(classes)


def _shown(view: LabelledView, axis: int) -> NDArray[np.intp]:
    """Slices of which something is known, and that show something."""
    others = tuple({0, 1, 2} - {axis})
    known = (view.classes != UNLABELLED).any(axis=others) & (view.image > AIR).any(axis=others)
    return np.flatnonzero(known)


def _order(n: int, wanted: int, rng: np.random.Generator) -> NDArray[np.intp]:
    passes = [rng.permutation(n) for _ in range(-(-wanted // n))]
    return np.concatenate(passes)[:wanted]


def _start(
    classes: NDArray[np.uint8], size: tuple[int, ...], rng: np.random.Generator, *, centred: bool
) -> tuple[int, ...]:
    """First voxel of a part; below 0 where it is larger than what it is taken from."""
    chance = rng.random(len(size) + 2)
    start = []
    middle: Sequence[int] | None = None
    if centred and chance[0] < CENTRED:
        inside = np.flatnonzero((classes > 0) & (classes != UNLABELLED))
        middle = [int(i) for i in np.unravel_index(inside[int(chance[1] * len(inside))], classes.shape)]
    for axis, (length, part) in enumerate(zip(classes.shape, size, strict=True)):
        room = length - part
        if room <= 0:
            start.append(room // 2)
        elif middle is not None:
            start.append(min(max(middle[axis] - part // 2, 0), room))
        else:
            start.append(int(chance[axis + 2] * (room + 1)))
    return tuple(start)


def _part(
    values: NDArray[np.generic], start: Sequence[int], size: tuple[int, ...], outside: float
) -> NDArray[np.generic]:
    """Part of the last axes, filled up where it reaches beyond."""
    lead = values.ndim - len(size)
    result = np.full((*values.shape[:lead], *size), outside, dtype=values.dtype)
    to, of = [slice(None)] * lead, [slice(None)] * lead
    for begin, part, length in zip(start, size, values.shape[lead:], strict=True):
        first, last = max(0, begin), min(length, begin + part)
        of.append(slice(first, last))
        to.append(slice(first - begin, last - begin))
    result[tuple(to)] = values[tuple(of)]
    return result
