"""A trained generator run over a whole volume, on its own grid and in its own units.

Slices are made as in training: resampled to the network's pixel size, the body in the middle of a window of the
training size, everything outside the body air. What comes back is brought to the scan's own pixels again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.anatomy import body_mask, split_legs
from musclekit.checks import check_number, check_voxels
from musclekit.errors import VoxelError
from musclekit.image import Contrast, Image
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.device import told_of_memory
from musclekit.neural.slices import resampled_plane, square_shape
from musclekit.neural.windows import Scale

__all__ = ["blended_tiles", "translate_volume"]

Plane = NDArray[np.float32]

#: Air in the network's range, and in Hounsfield units.
AIR = np.float32(-1)
AIR_HU = -1000.0
#: A window larger than this many times the training size goes through in tiles. Up to there it goes whole: the
#: network's instance norms go by the share of muscle, fat and air in what they see, which a tile changes more.
MAX_ENLARGED = 2
#: Neighbouring tiles share at least this part of their length.
OVERLAP = 0.5


def blended_tiles(
    run: Callable[[Plane], Plane], plane: Plane, tile: tuple[int, int], *, overlap: float = OVERLAP
) -> Plane:
    """Run a function on overlapping tiles of a plane and fade the answers into each other.

    Parameters
    ----------
    run : callable
        From tiles of shape (n, rows, columns) to answers of that shape.
    plane : ndarray of float32, shape (Y, X)
        At least as large as a tile.
    tile : (int, int)
        Rows and columns of a tile.
    overlap : float
        Part of a tile that neighbours share at least.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        Weighted means of the answers; the weight of a tile falls off in a straight line from its middle.
    """
    starts = [_starts(length, size, overlap) for length, size in zip(plane.shape, tile, strict=True)]
    corners = [(y, x) for y in starts[0] for x in starts[1]]
    answers = run(np.stack([plane[y : y + tile[0], x : x + tile[1]] for y, x in corners]))
    rows, columns = (np.minimum(np.arange(size) + 1, size - np.arange(size)).astype(np.float64) for size in tile)
    weight = np.outer(rows, columns)
    total, weights = np.zeros(plane.shape), np.zeros(plane.shape)
    for (y, x), answer in zip(corners, answers, strict=True):
        here = np.s_[y : y + tile[0], x : x + tile[1]]
        total[here] += weight * answer
        weights[here] += weight
    return (total / weights).astype(np.float32)


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where tiles begin: evenly spread, the first and the last at the ends."""
    step = max(1, round(size * (1 - overlap)))
    count = 1 + -(-(length - size) // step)
    return [round(start) for start in np.linspace(0, length - size, count)]


@dataclass(frozen=True, eq=False)
class _Cut:
    """One slice of one leg (or of all that is in it) as the network sees it, and where it belongs.

    ``of`` are rows and columns of the resampled slice, ``to`` the same ones in the window.
    """

    z: int
    inside: NDArray[np.bool_]
    flips: bool
    window: Plane
    of: tuple[slice, slice]
    to: tuple[slice, slice]


def translate_volume(
    generator: nn.Module,
    card: TranslatorCard,
    image: Image,
    *,
    device: torch.device | str = "cpu",
    batch: int = 8,
    per_leg: bool | None = None,
) -> NDArray[np.float32]:
    """Translate every slice of a volume.

    Parameters
    ----------
    generator : Module
        In float32, on the device; see `musclekit.neural.checkpoint.load_checkpoint`.
    card : TranslatorCard
        Of the generator.
    image : Image
        Of the source's contrast, with any size and spacing.
    device : torch.device or str
        Where the generator is.
    batch : int
        Slices that go through it at once.
    per_leg : bool, optional
        Whether each leg goes through alone, left ones mirrored; as it was trained if left out.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        On the grid of the image. Where source and target are of one contrast and one window the grey values stay on
        the scale of the image, its air stays as it is, and so does its resolution: what the network changed is added to
        the image. Otherwise they are on the target's scale, and outside the body there is air: -1000 HU, or 0.

    Raises
    ------
    VoxelError
        If the image is constant or all air, or the network answers with what is no number.
    ModalityError
        If the grey values cannot be what the contrast says.
    SegmentationError
        If there is no body in the image.
    ParameterError
        If the batch is not a whole number of at least 1, or the device has too little memory for it.
    """
    check_number("batch", batch, least=1, whole=True)
    check_voxels(image)
    body = body_mask(image)
    scale = card.windows[0].scale_of(image, body)
    square = square_shape(image.grid, card.spacing_mm)
    parts = [(body, False)]
    if card.per_leg if per_leg is None else per_leg:
        parts = [(leg.mask, leg.side == "left") for leg in split_legs(image, body)]
    # Which axis of a slice runs from left to right, as mirrored frames have it.
    across = int(np.argmax(np.abs(image.grid.direction[0, 1:])))
    air = AIR_HU if card.target.contrast is Contrast.CT else 0.0
    result = image.voxels.copy() if card.shares_scale else np.full(image.grid.shape, air, dtype=np.float32)
    for cuts in _batches(_cuts(image, parts, scale, card, square, across), batch):
        for cut, answer in zip(cuts, _answers(generator, cuts, card, device, batch), strict=True):
            plane = image.voxels[cut.z]
            if card.shares_scale:
                fake = _changed(plane, _native(answer - cut.window, cut, square, plane.shape, across, 0), scale)
            else:
                fake = card.target_scale.from_unit(_native(answer, cut, square, plane.shape, across, float(AIR)))
            result[cut.z][cut.inside] = fake[cut.inside]
    return result


def _cuts(
    image: Image,
    parts: Sequence[tuple[NDArray[np.bool_], bool]],
    scale: Scale,
    card: TranslatorCard,
    square: tuple[int, int],
    across: int,
) -> Iterator[_Cut]:
    """Slices that show some body, as they are cut for training (`musclekit.neural.slices.slices_of`)."""
    for mask, flips in parts:
        for z in np.flatnonzero(mask.any(axis=(1, 2))):
            inside = mask[z]
            unit, shown = np.where(inside, scale.to_unit(image.voxels[z]), AIR), inside
            if flips:
                unit, shown = np.flip(unit, across), np.flip(inside, across)
            plane = resampled_plane(np.ascontiguousarray(unit), square)
            of, to, shape = [], [], []
            for axis, pixels in enumerate(square):
                seen = np.flatnonzero(shown.any(axis=1 - axis))
                first, last = (float(edge) * pixels / shown.shape[axis] for edge in (seen[0], seen[-1] + 1))
                extent = math.ceil(last) - math.floor(first)
                size = -(-max(card.size, extent) // card.multiple) * card.multiple
                start = round((first + last - size) / 2)
                begin, end = max(0, start), min(pixels, start + size)
                of.append(slice(begin, end))
                to.append(slice(begin - start, end - start))
                shape.append(size)
            window = np.full(shape, AIR, dtype=np.float32)
            window[to[0], to[1]] = plane[of[0], of[1]]
            yield _Cut(int(z), inside, flips, window, (of[0], of[1]), (to[0], to[1]))


def _batches(cuts: Iterator[_Cut], most: int) -> Iterator[list[_Cut]]:
    """Neighbours of one shape, at most so many."""
    batch: list[_Cut] = []
    for cut in cuts:
        if batch and (len(batch) == most or cut.window.shape != batch[0].window.shape):
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


def _answers(
    generator: nn.Module, cuts: Sequence[_Cut], card: TranslatorCard, device: torch.device | str, batch: int
) -> Sequence[Plane]:
    def run(planes: Plane) -> Plane:
        with torch.inference_mode(), told_of_memory(device, f"translate fewer than {batch} slices at once (batch)"):
            done = [
                generator(torch.from_numpy(planes[first:last, None]).to(device)).float().cpu().numpy()[:, 0]
                for first, last in pairwise([*range(0, len(planes), batch), len(planes)])
            ]
        answers: Plane = np.concatenate(done)
        if not np.isfinite(answers).all():
            raise VoxelError(f"the network '{card.name}' answers with NaN or infinite values")
        return answers

    tile = -(-card.size // card.multiple) * card.multiple
    shape = cuts[0].window.shape
    if max(shape) <= MAX_ENLARGED * tile:
        return list(run(np.stack([cut.window for cut in cuts])))
    return [blended_tiles(run, cut.window, (min(tile, shape[0]), min(tile, shape[1]))) for cut in cuts]


def _native(
    values: Plane, cut: _Cut, square: tuple[int, int], shape: tuple[int, ...], across: int, outside: float
) -> Plane:
    """Values of a window on the pixels of the scan."""
    plane = np.full(square, outside, dtype=np.float32)
    plane[cut.of] = values[cut.to]
    native = resampled_plane(plane, (shape[0], shape[1]))
    return np.flip(native, across) if cut.flips else native


def _changed(plane: Plane, change: Plane, scale: Scale) -> Plane:
    """Grey values with a change, given in the network's range, added; it does not carry them beyond the scale."""
    fake = plane + change * np.float32((scale.high - scale.low) / 2)
    least, most = scale.ends
    return np.clip(fake, np.minimum(plane, np.float32(least)), np.maximum(plane, np.float32(most)))
