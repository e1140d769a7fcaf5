"""A trained segmenter run over a whole scan: the scan's grid in, the scan's grid out, in bounded memory.

A scan is brought to each view of the network (`musclekit.neural.views`), every slice or volume goes through it whole
where that fits, and the answers are brought back class by class. Sampled, the network answers many times, and what is
kept of the samples are running sums, and the volumes and areas that each one gives.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from musclekit.anatomy import Leg, body_mask, keep_largest, split_legs
from musclekit.checks import check_number, check_voxels
from musclekit.errors import ParameterError, SegmentationError, VoxelError
from musclekit.image import Image
from musclekit.labels import Side
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.device import Precision, told_of_memory
from musclekit.neural.drawing import stacked
from musclekit.neural.networks import SizeNeeds, can_be_sampled, sampled, size_needs
from musclekit.neural.resampling import most_probable, restored
from musclekit.neural.views import AIR, View, unit_image, views_of
from musclekit.neural.winners import highest_channel
from musclekit.uncertainty import ClassReduction, RunningSums, entropy

__all__ = ["Look", "Samples", "Segmented", "class_probabilities", "look_at", "segment_volume", "view_probabilities"]

Floats = NDArray[np.float32]

#: A volume of more voxels goes through a network of volumes block by block.
MOST_WHOLE = 4_000_000
#: Neighbouring blocks share this part of their length.
OVERLAP = 0.5
#: How far the deciles of the grey values may lie outside those of the scans trained on, as a share of the range; as for
#: translators (`musclekit.translators.safety`).
MOST_UNLIKE = 0.10
#: A view that leaves out more of a leg is told of.
MOST_LEFT_OUT = 0.02
#: Heights between two slices of the scan that voxels of a turned view are told apart by.
HEIGHTS = 8


@dataclass(frozen=True)
class Samples:
    """How a network with dropout is sampled.

    Parameters
    ----------
    n : int
        How often. 2 at least; 10 to 15 to look at, 50 to report.
    seed : int
        Of what is dropped; the grey values of the scan are taken into it, so that scans have samples of their own.
    reduction : {"sum", "mean"}
        Whether the variances of the classes are summed or averaged.

    Raises
    ------
    ParameterError
        If a number is out of range, or there is no such reduction.
    """

    n: int
    seed: int = 0
    reduction: ClassReduction = "sum"

    def __post_init__(self) -> None:
        check_number("samples", self.n, least=2, whole=True)
        check_number("seed", self.seed, least=0, whole=True)
        if self.reduction not in get_args(ClassReduction):
            raise ParameterError(f"reduction is one of {', '.join(get_args(ClassReduction))}, not '{self.reduction}'")

    def seeds(self, image: Image) -> list[int]:
        """Return the seed of each sample of a scan, the same for each of its views."""
        content = int.from_bytes(hashlib.sha256(np.ascontiguousarray(image.voxels).tobytes()).digest()[:8], "little")
        drawn = np.random.SeedSequence([self.seed, content]).generate_state(self.n, dtype=np.uint64)
        return [int(seed) for seed in drawn]


@dataclass(frozen=True, eq=False)
class Look:
    """A scan as a network is shown it.

    Parameters
    ----------
    body : ndarray of bool, shape (Z, Y, X)
        Mask of the body, all over the scan.
    views : tuple of View
        What is shown of it.
    units : tuple of ndarray of float32, shape (z, y, x)
        Each view's grey values, -1 to 1.
    """

    body: NDArray[np.bool_]
    views: tuple[View, ...]
    units: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class Segmented:
    """What a network says of a scan, on the scan's grid.

    Parameters
    ----------
    classes : ndarray of uint8, shape (Z, Y, X)
        0 for background, n for the n-th label of the network's set.
    variance : ndarray of float32, shape (Z, Y, X), or None
        Predictive variance of each voxel; None where there was one sample only.
    sides : tuple of ({"left", "right"} or None)
        Of the legs that volumes and areas are told of: one None where the labels know their side themselves.
    volume_mm3 : ndarray of float64, shape (legs, samples, classes), or None
        Volume of each class in each sample.
    area_mm2 : ndarray of float64, shape (legs, samples, classes, Z), or None
        Its area in each slice.
    answers : tuple of (View, ndarray of float16, shape (classes, z, y, x))
        Probabilities of the classes on the grid of each view; the mean of several samples.
    """

    classes: NDArray[np.uint8]
    variance: Floats | None
    sides: tuple[Side | None, ...]
    volume_mm3: NDArray[np.float64] | None
    area_mm2: NDArray[np.float64] | None
    answers: tuple[tuple[View, NDArray[np.float16]], ...]

    def probabilities(self) -> Floats:
        """Return the probability of each class at each voxel of the scan, shape (classes, Z, Y, X).

        Background has probability 1 outside the views. This is as large as it sounds: labels take a small part of it.
        """
        classes = len(self.answers[0][1])
        result = np.zeros((classes, *self.classes.shape), dtype=np.float32)
        result[0] = 1
        for view, answer in self.answers:
            for c, channel in enumerate(answer):
                result[c][view.mask] = restored(channel, view.frame, fill=float(c == 0))[view.mask]
        # Kept in half precision, they do not quite sum to 1.
        result /= result.sum(axis=0)
        return result

    def entropy(self) -> Floats:
        """Return the entropy of the probabilities at each voxel of the scan, in bits; 0 outside the views."""
        result = np.zeros(self.classes.shape, dtype=np.float32)
        for view, answer in self.answers:
            # Plane by plane: in double precision the whole would be four times the size of the answer.
            planes = np.stack([entropy(answer[:, z]) for z in range(answer.shape[1])]).astype(np.float32)
            result[view.mask] = restored(planes, view.frame)[view.mask]
        return result


@dataclass(frozen=True, eq=False)
class _Answer:
    """What a network says of one view, on the view's grid; voxels of each leg, run and class in each slice."""

    probabilities: NDArray[np.float16]
    variance: Floats | None
    voxels: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class _Places:
    """Leg and height in the scan of each voxel of a view.

    Parameters
    ----------
    index : ndarray of int32, shape (z, y, x)
        Both as one number, ``leg * len(shares) + height``; -1 outside the legs.
    legs : int
        How many.
    shares : ndarray of float64, shape (heights, Z)
        What part of a voxel at each height lies in each slice of the scan; 1 in all.
    """

    index: NDArray[np.int32]
    legs: int
    shares: NDArray[np.float64]

    @property
    def total(self) -> int:
        return self.legs * len(self.shares)


def segment_volume(
    network: nn.Module | Sequence[nn.Module],
    card: SegmenterCard,
    image: Image,
    *,
    device: torch.device | str = "cpu",
    batch: int = 2,
    precision: Precision = "float32",
    samples: Samples | None = None,
    side: Side | None = None,
    slices: tuple[int, int] | None = None,
    largest: bool = True,
) -> Segmented:
    """Segment a scan.

    Parameters
    ----------
    network : Module or sequence of Module
        In float32, on the device, set to evaluate. Several are an ensemble: their answers are averaged, and are the
        samples.
    card : SegmenterCard
        Of the network, or of all of them.
    image : Image
        Of a contrast of the card, with any size and spacing.
    device : torch.device or str
        Where the network is.
    batch : int
        Slices that go through it at once. The answer does not depend on it, but for the last digits.
    precision : {"float32", "bfloat16"}
        Of the work.
    samples : Samples, optional
        How the network is sampled; once, without dropout, if left out.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one and the network sees legs.
    slices : (int, int), optional
        First and last slice that the network is shown, counted from the feet; others have no labels. All if left out.
    largest : bool
        Whether of each structure of each leg only the largest connected piece is kept.

    Returns
    -------
    Segmented
        Labels, and of several samples variance, volumes and areas too, which come before `largest`.

    Warns
    -----
    UserWarning
        If a view says so (`musclekit.neural.views.View`), a leg is larger than the view, or the grey values are unlike
        those trained on.

    Raises
    ------
    VoxelError
        If the image is constant or all air, or the network answers with what is no number.
    ModalityError
        If the grey values cannot be what the contrast says.
    SegmentationError
        If there is no body in the image.
    ParameterError
        If a parameter is out of range, the scan has no such slices, an ensemble is to be sampled or a network without
        dropout, or there is too little memory.
    """
    networks = [network] if isinstance(network, nn.Module) else list(network)
    _check_work(batch, precision)
    if samples is not None and len(networks) > 1:
        raise ParameterError("an ensemble is its own samples: leave them out")
    if samples is not None and not can_be_sampled(networks[0]):
        raise ParameterError(f"'{card.name}' has no dropout to sample: leave samples out, or take an ensemble")
    many = samples is not None or len(networks) > 1
    look = look_at(networks[0], card, image, side=side, slices=slices)
    classes = np.zeros(image.grid.shape, dtype=np.uint8)
    variance = np.zeros(image.grid.shape, dtype=np.float32) if many else None
    seeds = [None] if samples is None else samples.seeds(image)
    runs = list(product(networks, seeds))
    reduction: ClassReduction = "sum" if samples is None else samples.reduction
    answers = []
    sides: list[Side | None] = []
    areas: list[NDArray[np.float64]] = []
    for view, unit in zip(look.views, look.units, strict=True):
        legs = _legs(view, image, look.body, card)
        places = _places(view, legs) if many else None
        with told_of_memory(device, _less(batch, size_needs(networks[0]).dimensions)):
            answer = _answer(runs, unit, card, device, batch, precision, reduction, places)
        answers.append((view, answer.probabilities))
        found = most_probable(answer.probabilities, view.frame)
        for leg in legs:
            mine = np.where(leg.mask, found, np.uint8(0))
            classes[leg.mask] = (keep_largest(mine) if largest else mine)[leg.mask]
        if variance is not None and answer.variance is not None and answer.voxels is not None:
            variance[view.mask] = restored(answer.variance, view.frame)[view.mask]
            # A voxel of the view is so much of a slice of the scan.
            area_mm2 = view.frame.target.voxel_volume_mm3 / image.grid.voxel_volume_mm3 * _pixel_mm2(image)
            areas += list(answer.voxels * area_mm2)
            sides += [leg.side for leg in legs]
    if not areas:
        return Segmented(classes, None, (), None, None, tuple(answers))
    stacked_areas = np.stack(areas)
    volumes = stacked_areas.sum(axis=3) * (image.grid.voxel_volume_mm3 / _pixel_mm2(image))
    return Segmented(classes, variance, tuple(sides), volumes, stacked_areas, tuple(answers))


def _less(batch: int, dimensions: int) -> str:
    """Say what takes less memory in a network."""
    smaller = f"segment with a smaller batch than {batch}, " if dimensions == 2 and batch > 1 else "segment "
    return f"{smaller}in bfloat16, or one scan at a time"


def _pixel_mm2(image: Image) -> float:
    return image.grid.spacing[1] * image.grid.spacing[2]


def _legs(view: View, image: Image, body: NDArray[np.bool_], card: SegmenterCard) -> tuple[Leg, ...]:
    """Return what is told apart in a view: the legs, or all there is where the labels know their side themselves."""
    if card.view.kind == "whole" and not card.label_set.is_sided:
        return split_legs(image, body)
    return (Leg(view.side, view.mask),)


def look_at(
    network: nn.Module,
    card: SegmenterCard,
    image: Image,
    *,
    side: Side | None = None,
    slices: tuple[int, int] | None = None,
) -> Look:
    """Bring a scan to the views of a network: parameters, warnings and errors are those of `segment_volume`."""
    check_voxels(image)
    body = body_mask(image)
    shown = body if slices is None else _within(body, slices)
    views = views_of(image, card.view, multiple=size_needs(network).multiple, body=shown, side=side)
    for view in views:
        for line in view.warnings:
            warnings.warn(line, stacklevel=3)
        if card.view.kind == "femur":
            reached = restored(np.ones(view.frame.target.shape, dtype=np.float32), view.frame) > 0
            lost = 1 - np.count_nonzero(reached & view.mask) / np.count_nonzero(view.mask)
            if lost > MOST_LEFT_OUT:
                warnings.warn(
                    f"{100 * lost:.0f} % of the {view.side or 'single'} leg lie outside the field of the network, and "
                    "are not labelled",
                    stacklevel=3,
                )
    scale = card.windows[image.contrast].scale_of(image, body)
    units = tuple(unit_image(image, view, scale) for view in views)
    _warn_of_grey_values(np.concatenate([unit[unit > AIR] for unit in units]), card, image)
    return Look(body, views, units)


def view_probabilities(
    network: nn.Module,
    card: SegmenterCard,
    unit: Floats,
    *,
    device: torch.device | str = "cpu",
    batch: int = 2,
    precision: Precision = "float32",
) -> NDArray[np.float16]:
    """Run the grey values of a view through a network once: parameters and errors are those of `segment_volume`.

    Returns
    -------
    ndarray of float16, shape (classes, z, y, x)
        Probability of each class.
    """
    _check_work(batch, precision)
    with told_of_memory(device, _less(batch, size_needs(network).dimensions)):
        return _answer([(network, None)], unit, card, device, batch, precision, "sum", None).probabilities


def _check_work(batch: int, precision: Precision) -> None:
    check_number("batch", batch, least=1, whole=True)
    if precision not in get_args(Precision):
        raise ParameterError(f"precision is one of {', '.join(get_args(Precision))}, not '{precision}'")


def _within(body: NDArray[np.bool_], slices: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the body in these slices alone."""
    first, last = slices
    if not 0 <= first <= last < len(body):
        raise ParameterError(f"slices {first} to {last}: the scan has slices 0 to {len(body) - 1}")
    shown = np.zeros_like(body)
    shown[first : last + 1] = body[first : last + 1]
    if not shown.any():
        raise SegmentationError(f"there is no body in slices {first} to {last}")
    return shown


def _places(view: View, legs: Sequence[Leg]) -> _Places:
    frame, planes = view.frame, view.frame.source.shape[0]
    z, y, x = np.ogrid[tuple(slice(0, n) for n in frame.target.shape)]
    position = frame.pull[0, 0] * z + frame.pull[0, 1] * y + frame.pull[0, 2] * x + frame.pull[0, 3]
    heights = np.rint(np.clip(position, 0, planes - 1) * HEIGHTS).astype(np.int32)
    shares = _shares(planes, abs(float(frame.pull[0, 0])))
    index = np.full(frame.target.shape, -1, dtype=np.int32)
    for n, leg in enumerate(legs):
        index = np.where(frame.apply_mask(leg.mask), heights + np.int32(n * len(shares)), index)
    return _Places(index, len(legs), shares)


def _shares(planes: int, thickness: float) -> NDArray[np.float64]:
    """Return what part of a voxel lies in each slice, by its height; its thickness is in slices.

    Along the first axis of a view voxels stand one on the other without a gap, also in one that is turned.
    """
    half = thickness / 2
    middle = np.arange((planes - 1) * HEIGHTS + 1) / HEIGHTS
    # A voxel at the end of the scan lies within it: volumes stay what they are.
    lowest, highest = min(half - 0.5, (planes - 1) / 2), max(planes - 0.5 - half, (planes - 1) / 2)
    middle = np.clip(middle, lowest, highest)[:, None]
    slices = np.arange(planes)
    overlap = np.minimum(middle + half, slices + 0.5) - np.maximum(middle - half, slices - 0.5)
    shares = np.maximum(overlap, 0)
    return cast(NDArray[np.float64], shares / shares.sum(axis=1, keepdims=True))


def _warn_of_grey_values(seen: Floats, card: SegmenterCard, image: Image) -> None:
    ends = card.deciles.get(image.contrast)
    if ends is None or not seen.size:
        return
    least, most = np.array(ends)
    found = np.quantile(seen, np.arange(1, 10) / 10)
    # From -1 to 1 is a range of 2.
    off = float(np.max(np.maximum(least - found, found - most), initial=0.0) / 2)
    if off > MOST_UNLIKE:
        warnings.warn(
            f"the grey values are unlike those that '{card.name}' was trained on: their deciles lie {100 * off:.0f} % "
            f"of the range outside (limit {100 * MOST_UNLIKE:.0f} %); look at the labels before using them",
            stacklevel=3,
        )


def _answer(
    runs: Sequence[tuple[nn.Module, int | None]],
    unit: Floats,
    card: SegmenterCard,
    device: torch.device | str,
    batch: int,
    precision: Precision,
    reduction: ClassReduction,
    places: _Places | None,
) -> _Answer:
    """Run a view through a network once, or many times: each run is a network and the seed of what it drops."""
    many = len(runs) > 1
    shape = unit.shape
    mean = np.empty((card.out_channels, *shape), dtype=np.float16)
    variance = np.empty(shape, dtype=np.float32) if many else None
    counts = None if places is None else np.zeros((len(runs), card.out_channels, places.total), dtype=np.int64)
    needs = size_needs(runs[0][0])
    for here, given in _portions(unit, card, needs.dimensions, batch):
        sums = RunningSums()
        single: Floats | None = None
        for run, (network, seed) in enumerate(runs):
            found = class_probabilities(network, given, device=device, precision=precision, seed=seed)
            if not np.isfinite(found).all():
                raise VoxelError(f"the network '{card.name}' answers with NaN or infinite values")
            if not many:
                single = found
                continue
            sums.add(found)
            if counts is not None and places is not None:
                counts[run] += _counted(found, places.index[here], places.total)
        if single is not None:
            mean[:, here] = single
        elif variance is not None:
            mean[:, here] = sums.mean()
            variance[here] = sums.variance(reduction)
    if counts is None or places is None:
        return _Answer(mean, variance, None)
    by_leg = counts.reshape(len(runs), card.out_channels, places.legs, -1) @ places.shares
    return _Answer(mean, variance, by_leg.transpose(2, 0, 1, 3))


def _portions(unit: Floats, card: SegmenterCard, dimensions: int, batch: int) -> Iterator[tuple[slice, Floats]]:
    """Yield what goes through the network at once, and which planes of the view it stands for.

    Slices come as (n, channels, rows, columns), volumes as (1, 1, planes, rows, columns).
    """
    if dimensions == 3:
        yield slice(0, len(unit)), unit[None, None]
        return
    for first in range(0, len(unit), batch):
        here = slice(first, min(first + batch, len(unit)))
        yield here, np.stack([stacked(unit, z, card.context) for z in range(here.start, here.stop)])


def _counted(found: Floats, places: NDArray[np.int32], n_places: int) -> NDArray[np.int64]:
    """Count the voxels of each class in each place; shape (classes, places)."""
    classes = len(found)
    inside = places >= 0
    flat = highest_channel(found)[inside].astype(np.intp) * n_places + places[inside]
    counts: NDArray[np.int64] = np.bincount(flat, minlength=classes * n_places).reshape(classes, n_places)
    return counts


def class_probabilities(
    network: nn.Module,
    given: Floats,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    seed: int | None = None,
) -> Floats:
    """Run slices, or one volume, through a network of any size needs.

    Parameters
    ----------
    network : Module
        Set to evaluate, on the device.
    given : ndarray of float32, shape (n, channels, rows, columns) or (1, 1, planes, rows, columns)
        In the range -1 to 1. It is filled up with air to what the network takes.
    device : torch.device or str
        Where the network is.
    precision : {"float32", "bfloat16"}
        Of the work.
    seed : int, optional
        Of a sample; without one nothing is dropped.

    Returns
    -------
    ndarray of float32, shape (classes, n, rows, columns) or (classes, planes, rows, columns)
    """
    needs = size_needs(network)
    sides = given.shape[2:]
    fitted = needs.fitted(sides)
    border = [(0, 0), (0, 0), *((0, wanted - side) for wanted, side in zip(fitted, sides, strict=True))]
    images = np.pad(given, border, constant_values=float(AIR)) if fitted != sides else given
    order = torch.channels_last if needs.dimensions == 2 else torch.channels_last_3d

    def run(images: Floats) -> Floats:
        tensor = torch.from_numpy(images).to(device).contiguous(memory_format=order)
        with (
            torch.inference_mode(),
            torch.autocast(tensor.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            logits = network(tensor)
            answer: Floats = functional.softmax(logits.float(), dim=1).cpu().numpy()
        return answer

    def one_sample(images: Floats) -> Floats:
        if seed is None:
            return _whole_or_blocks(run, images, needs)
        with sampled(network, seed):
            return _whole_or_blocks(run, images, needs)

    answer = one_sample(images)[(slice(None), slice(None), *(slice(0, side) for side in sides))]
    return answer[0] if needs.dimensions == 3 else answer.swapaxes(0, 1)


def _whole_or_blocks(run: Callable[[Floats], Floats], images: Floats, needs: SizeNeeds) -> Floats:
    """Run a function on images, or where it is a large volume on blocks of planes that fade into each other."""
    planes = images.shape[2]
    plane = int(np.prod(images.shape[3:]))
    if needs.dimensions == 2 or images[0, 0].size <= MOST_WHOLE:
        return run(images)
    multiple = needs.multiple
    (depth,) = needs.fitted([MOST_WHOLE // plane // multiple * multiple])
    if depth >= planes:
        return run(images)
    count = 1 + -(-(planes - depth) // max(multiple, int(depth * (1 - OVERLAP)) // multiple * multiple))
    weight = np.minimum(np.arange(depth) + 1, depth - np.arange(depth)).astype(np.float32)[:, None, None]
    total: Any = None
    weights = np.zeros((planes, 1, 1), dtype=np.float32)
    for first in np.linspace(0, planes - depth, count).round().astype(int).tolist():
        answer = run(np.ascontiguousarray(images[:, :, first : first + depth])) * weight
        if total is None:
            total = np.zeros((*answer.shape[:2], *images.shape[2:]), dtype=np.float32)
        total[:, :, first : first + depth] += answer
        weights[first : first + depth] += weight
    return cast(Floats, total / weights)
