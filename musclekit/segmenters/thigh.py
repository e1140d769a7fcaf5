"""Single thigh muscles in scans of any contrast, by a network that never saw one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.base import BaseEstimator

from musclekit.anatomy import keep_largest, mirror_frame
from musclekit.checks import check_cases, check_contrast
from musclekit.errors import CheckpointError, MissingFileError, ParameterError
from musclekit.image import Assessment, Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import SIDES, LabelMapping, LabelSet, Side, label_mapping, label_set
from musclekit.segmenters.network import load_network, people_of
from musclekit.segmenters.thigh_decision import stepwise_scores
from musclekit.segmenters.thigh_orientation import SURER, look_slices, upside_down
from musclekit.segmenters.thigh_trust import (
    CONTEXT,
    MUSCLE_IDS,
    ThighTrust,
    certainty,
    longest_gain,
    slice_features,
    soft_dice,
)
from musclekit.weights import checkpoint_path

if TYPE_CHECKING:
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.device import Precision
    from musclekit.neural.views import View

    Answers = tuple[tuple[View, NDArray[np.float16]], ...]

__all__ = ["WEIGHTS", "ThighSegmenter", "trust_path"]

#: The weights that ship.
WEIGHTS = "thigh-any-contrast"
#: Structures of which a leg has one piece: the muscles and the femur.
_WHOLE = (*MUSCLE_IDS, CONTEXT.ids_of("femur")[0])
_REST = CONTEXT.ids_of("other compartment")[0]
#: A muscle of which less Dice is to be expected is told of.
LEAST_DICE = 0.7
#: Standard deviation of the Gaussian over which answers are averaged along the leg: what one thin slice hides its
#: neighbours show. Between thick slices it does nothing. On phantoms in slices of 3 and 8 mm it is worth 0.003 to 0.018
#: of Dice, and more would be worth little more.
ALONG_MM = 5.0
#: A leg that looks as much like a left one as like a right one, within this, is told of.
LEAST_APART = 0.02


class ThighSegmenter(BaseEstimator):
    """Label eleven muscles a side, femur and fat in CT and MR of any contrast, and say where that is no thigh.

    A U-Net that learnt from label maps of muscles alone, shown in grey values of every kind (Billot et al. 2023,
    SynthSeg), looks at each leg slice by slice, left ones mirrored. Slices that do not look like a thigh (hip, knee,
    calf) get no labels; where the thigh begins and ends is decided over all slices together.

    Parameters
    ----------
    labels : str
        Label set to answer in: ``thigh-context-sided``, or any that ``thigh-context`` leads to (``thigh-full-sided``,
        ``huashan-11``, ``functional-3``, ``muscle`` ...).
    checkpoint : str or Path
        Weights in ``thigh-context``, for single legs; those that ship if left as it is. Beside the file lies what was
        learnt of its answers (``.trust.json``).
    device, batch, precision
        As in `musclekit.segmenters.network.NetworkSegmenter`.
    side : {"left", "right"}, optional
        Which leg, for scans that show one. Where neither this nor the scan tells, it is looked at both ways, and taken
        for the one that the network is surer of.

    See Also
    --------
    musclekit.segmenters.thigh_trust : which slices show a thigh, and how well a muscle was found.
    """

    def __init__(
        self,
        *,
        labels: str = "thigh-context-sided",
        checkpoint: str | Path = WEIGHTS,
        device: str = "cpu",
        batch: int = 8,
        precision: Precision = "float32",
        side: Side | None = None,
    ) -> None:
        self.labels = labels
        self.checkpoint = checkpoint
        self.device = device
        self.batch = batch
        self.precision = precision
        self.side = side

    @property
    def card(self) -> SegmenterCard:
        """What the weights say of themselves; errors are those of `load_network`."""
        return load_network(self.checkpoint)[1]

    @property
    def label_set(self) -> LabelSet:
        """The set named by `labels`."""
        return label_set(self.labels)

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """All there are."""
        return frozenset(Contrast)

    @property
    def training_subjects_(self) -> tuple[str, ...]:
        """The people whose label maps it learnt from: an evaluation scores none of them."""
        return people_of([self.card])

    def fit(self, cases: Sequence[Case]) -> Self:
        """Check the cases. Nothing is learnt."""
        check_cases(cases, self.contrasts, "thigh")
        return self

    def segment(self, image: Image) -> LabelMap:
        """Segment a scan.

        Warns
        -----
        UserWarning
            What a reader has to know: slices that show no thigh, muscles that were not found well, a side that was
            guessed.

        Raises
        ------
        VoxelError
            If the image is constant or all air.
        SegmentationError
            If there is no body in it.
        ParameterError, MissingFileError, CheckpointError
            If the checkpoint cannot be used, or a parameter is out of range.
        LabelError
            If ``thigh-context`` does not lead to the label set.
        """
        assessment = self.assess(image)
        for note in assessment.notes:
            warnings.warn(note, stacklevel=2)
        return assessment.labels

    def assess(self, image: Image) -> Assessment:
        """Segment a scan and say how far to trust it; errors are those of `segment`, and warnings are notes here."""
        seen, answer = self._answer(image)
        voxels = self._mapping.table()[answer.labelled]
        notes = (*answer.notes(), *self._doubts(seen, answer))
        return Assessment(
            LabelMap(voxels, image.grid, self.label_set), answer.accepted, answer.sides, answer.confidence, notes
        )

    def _doubts(self, seen: _Seen, answer: _Answer) -> Iterator[str]:
        """Say where head, front and side seem to be others than the header, or the user, says."""
        other = _other(answer.sides[0])
        told = len(answer.sides) == 1 and answer.apart is None
        # Of a leg whose side was guessed, both ways are open once more.
        ways = (1, -1) if answer.apart is not None else (1,)
        if not answer.accepted.any():
            if told and seen.shows_thigh(answer.trust, columns=-1):
                yield f"the leg, taken for a {answer.sides[0]} one, looks more like a {other} one"
            if any(seen.shows_thigh(answer.trust, rows=-1, columns=way) for way in ways):
                yield TURNED_OVER
            return
        if answer.is_upside_down():
            yield (
                "the scan seems to stand on its head: muscles of the hip lie below those of the knee; left and right "
                "may be wrong too"
            )
        # The middle of the thigh, turned about.
        planes = answer.planes_in(*look_slices(answer.accepted))
        sure = _sureness(found[:, here] for (_, found), here in zip(answer.answers, planes, strict=True))
        if max(seen.sureness(planes, rows=-1, columns=way) for way in ways) > sure + SURER:
            yield TURNED_OVER
        if told and seen.sureness(planes, columns=-1) > sure + SURER:
            yield f"the leg, taken for a {answer.sides[0]} one, looks more like a {other} one"

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Return the probability of each label; where no thigh is seen all is background.

        Warnings and errors are as in `segment`.
        It is large in a large label set: ``labels="muscle"`` takes a sixteenth of the memory.
        """
        (seen, answer), mapping = self._answer(image), self._mapping
        for note in (*answer.notes(), *self._doubts(seen, answer)):
            warnings.warn(note, stacklevel=2)
        order = {label.id: n for n, label in enumerate(self.label_set, start=1)}
        result = np.zeros((1 + len(self.label_set), *image.grid.shape), dtype=np.float32)
        for label, channel in answer.channels(mapping):
            result[order[label]] += channel
        np.clip(result[1:], 0, 1, out=result[1:])
        result[0] = np.maximum(1 - result[1:].sum(axis=0), 0)
        result /= result.sum(axis=0)
        return ProbabilityMap(result, image.grid, self.label_set)

    @property
    def _mapping(self) -> LabelMapping:
        target = self.label_set
        return label_mapping(CONTEXT.sided(), target)

    def _answer(self, image: Image) -> tuple[_Seen, _Answer]:
        if self.side not in (None, *SIDES):
            raise ParameterError(f"side is 'left' or 'right', not {self.side!r}")
        network, card = load_network(self.checkpoint, device=self.device)
        check_contrast(image, card.contrasts, "thigh")
        if card.label_set.name != CONTEXT.name or card.view.kind != "leg":
            raise CheckpointError(
                f"{checkpoint_path(self.checkpoint)}: 'thigh' takes a network that labels single legs in "
                f"'{CONTEXT.name}'; this one labels '{card.label_set.name}' in a view of kind '{card.view.kind}'"
            )
        trust = ThighTrust.load(trust_path(self.checkpoint), card.weights_sha256)
        seen = _Seen(self, network, card, image)
        answers = seen.as_it_is()
        ((view, found), *others) = answers
        if others or view.side is not None:
            return seen, _Answer(image, answers, tuple(_known(view.side) for view, _ in answers), trust, None)
        # Unmirrored it was taken for a right leg.
        mirrored = seen.mirrored()
        right, left = _sureness([found]), _sureness(answer for _, answer in mirrored)
        if right >= left:
            return seen, _Answer(image, answers, ("right",), trust, right - left)
        return seen, _Answer(image, mirrored, ("left",), trust, left - right)


def trust_path(checkpoint: str | Path) -> Path:
    """Return the file, beside a checkpoint, of what was learnt of its answers.

    Raises
    ------
    MissingFileError
        If there is none.
    """
    path = checkpoint_path(checkpoint).with_suffix(".trust.json")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; it says which of the network's answers can be trusted")
    return path


def _known(side: Side | None) -> Side:
    assert side is not None
    return side


def _other(side: Side) -> Side:
    return "left" if side == "right" else "right"


def _sureness(answers: Iterable[NDArray[np.float16]]) -> float:
    """How sure the network is of what it sees: the mean over slices, and over legs."""
    return float(np.mean([certainty(answer).mean() for answer in answers if answer.shape[1]]))


#: Said of a scan with front and back exchanged.
TURNED_OVER = (
    "front and back seem to be exchanged: the muscles are found with more certainty in the scan turned over; left and "
    "right may be wrong too"
)


class _Seen:
    """A scan as the network sees it, to be looked at again mirrored or turned about."""

    def __init__(self, method: ThighSegmenter, network: Any, card: SegmenterCard, image: Image) -> None:
        from musclekit.neural.segmentation import look_at

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "a leg of unknown side", UserWarning)
            self._look = look_at(network, card, image, side=method.side)
        self._method, self._network, self._card, self.image = method, network, card, image

    def as_it_is(self) -> Answers:
        """Return what the network says of each leg."""
        return tuple((view, self._said(unit)) for view, unit in zip(self._look.views, self._look.units, strict=True))

    def mirrored(self) -> Answers:
        """Return what it says of a leg taken for one of the other side."""
        return tuple(
            (replace(view, frame=view.frame.then(mirror_frame)), self._said(unit[:, :, ::-1]))
            for view, unit in zip(self._look.views, self._look.units, strict=True)
        )

    def sureness(self, planes: Sequence[slice], *, rows: int = 1, columns: int = 1) -> float:
        """How sure the network is of some planes of each leg, with rows or columns in the other order (-1)."""
        return _sureness(
            self._said(unit[here, ::rows, ::columns]) for unit, here in zip(self._look.units, planes, strict=True)
        )

    def shows_thigh(self, trust: ThighTrust, *, rows: int = 1, columns: int = 1) -> bool:
        """Whether any slice looks like a thigh once rows or columns are in the other order (-1)."""
        views, units = self._look.views, self._look.units
        again = tuple((view, self._said(unit[:, ::rows, ::columns])) for view, unit in zip(views, units, strict=True))
        return bool(_Answer(self.image, again, (), trust, None).accepted.any())

    def _said(self, unit: NDArray[np.float32]) -> NDArray[np.float16]:
        from musclekit.neural.segmentation import view_probabilities

        method = self._method
        return view_probabilities(
            self._network, self._card, np.ascontiguousarray(unit),
            device=method.device, batch=method.batch, precision=method.precision,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the network says of a scan, and what is made of it; ``apart``: by how much a guessed side was the surer."""

    image: Image
    answers: Answers
    sides: tuple[Side, ...]
    trust: ThighTrust
    apart: float | None

    @cached_property
    def _along(self) -> list[tuple[View, NDArray[np.float16]]]:
        """The answers averaged along each leg (`ALONG_MM`)."""
        averaged = []
        for view, answer in self.answers:
            sigma = ALONG_MM / view.frame.target.spacing[0]
            result = np.empty_like(answer)
            for n, channel in enumerate(answer):
                # Half precision is too little to sum in.
                result[n] = ndimage.gaussian_filter1d(channel.astype(np.float32), sigma, axis=0, mode="nearest")
            averaged.append((view, result))
        return averaged

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """Ids of ``thigh-context`` on the scan, in slices without a thigh too."""
        from musclekit.neural.resampling import most_probable

        found = np.zeros(self.image.grid.shape, dtype=np.uint8)
        for view, answer in self._along:
            found[view.mask] = most_probable(stepwise_scores(answer), view.frame)[view.mask]
        return found

    @cached_property
    def _planes(self) -> list[NDArray[np.intp]]:
        """Slice of the scan that each plane of a view is."""
        planes = []
        for view, answer in self.answers:
            pull = view.frame.pull
            planes.append(np.rint(pull[0, 0] * np.arange(answer.shape[1]) + pull[0, 3]).astype(np.intp))
        return planes

    def planes_in(self, first: int, last: int) -> list[slice]:
        """Return which planes of each view lie in these slices of the scan."""
        at = [np.flatnonzero((planes >= first) & (planes <= last)) for planes in self._planes]
        return [slice(int(some[0]), int(some[-1]) + 1) if len(some) else slice(0) for some in at]

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Which slices of the scan show a thigh; the legs decide together."""
        odds = np.zeros(self.image.grid.shape[0])
        for (view, answer), planes in zip(self.answers, self._planes, strict=True):
            spacing = view.frame.target.spacing
            np.add.at(odds, planes, self.trust.odds(slice_features(answer, spacing[1] * spacing[2])))
        return longest_gain(odds)

    @cached_property
    def confidence(self) -> dict[str, float]:
        """Dice to be expected of each muscle, by its name and side; NaN where it was not found."""
        found: dict[str, float] = {}
        for (_, answer), planes, side in zip(self._along, self._planes, self.sides, strict=True):
            expected = self.trust.expected_dice(soft_dice(answer, self.accepted[planes]))
            for muscle, value in zip(MUSCLE_IDS, expected, strict=True):
                is_there = CONTEXT.sided_ids[muscle][SIDES.index(side)] in self._present
                found[f"{CONTEXT[muscle].name} {side}"] = float(value) if is_there else math.nan
        return found

    @cached_property
    def _present(self) -> frozenset[int]:
        """Ids of ``thigh-context-sided`` on the scan."""
        return frozenset(np.flatnonzero(np.bincount(self.labelled.ravel())).tolist())

    def is_upside_down(self) -> bool:
        """Whether muscles of the hip lie below those of the knee."""
        grid = self.image.grid
        classes = np.where(self.accepted[:, None, None], self.classes, 0)
        counts = [np.bincount(plane.ravel(), minlength=len(CONTEXT) + 1) for plane in classes]
        areas = np.stack(counts, axis=1).astype(np.float64)
        return upside_down(areas * grid.voxel_volume_mm3 / grid.spacing[0], grid.spacing[0])

    @cached_property
    def labelled(self) -> NDArray[np.uint8]:
        """Ids of ``thigh-context-sided`` on the scan."""
        classes = np.where(self.accepted[:, None, None], self.classes, np.uint8(0))
        result = np.zeros_like(classes)
        for (view, _), side in zip(self.answers, self.sides, strict=True):
            mine = np.where(view.mask, classes, np.uint8(0))
            whole = np.isin(mine, _WHOLE)
            kept = keep_largest(np.where(whole, mine, np.uint8(0)))
            # What lies apart from its muscle is in the compartment all the same.
            mine = np.where(whole, np.where(kept > 0, kept, np.uint8(_REST)), mine)
            table = np.array([0, *(CONTEXT.sided_ids[label.id][SIDES.index(side)] for label in CONTEXT)], np.uint8)
            result[view.mask] = table[mine][view.mask]
        return result

    def channels(self, mapping: LabelMapping) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield probabilities on the scan, and the id of the target that each adds to."""
        from musclekit.neural.resampling import restored

        for (view, answer), side in zip(self._along, self.sides, strict=True):
            seen = view.mask & self.accepted[:, None, None]
            for label in CONTEXT:
                before = mapping.source.ids_of(label.name, side)[0]
                if before in mapping.ids:
                    yield mapping.ids[before], np.where(seen, restored(answer[label.id], view.frame), np.float32(0))

    def notes(self) -> tuple[str, ...]:
        """Say what a reader has to know."""
        notes = []
        if self.apart is not None:
            doubt = ", but not by much: say which it is (side)" if self.apart < LEAST_APART else ""
            notes.append(f"the scan does not tell the side of the leg; it looks like a {self.sides[0]} one{doubt}")
        refused = np.flatnonzero(~self.accepted)
        if not self.accepted.any():
            return (
                *notes,
                "no slice looks like a thigh: nothing is labelled (the method 'tissue' takes any slice of a limb)",
            )
        if len(refused):
            first, last = (int(at) for at in np.flatnonzero(self.accepted)[[0, -1]])
            ends = [f"below slice {first}"] * (first > 0) + [f"above slice {last}"] * (last < len(self.accepted) - 1)
            notes.append(
                f"{len(refused)} of {len(self.accepted)} slices do not look like a thigh and have no labels: those "
                f"{' and '.join(ends)}, counted from the feet"
            )
        missing = [name for name, value in self.confidence.items() if math.isnan(value)]
        if missing:
            notes.append(f"not found: {', '.join(missing)}")
        doubtful = [f"{name} ({value:.2f})" for name, value in self.confidence.items() if value < LEAST_DICE]
        if doubtful:
            notes.append(f"look at these, of which no high Dice is to be expected: {', '.join(doubtful)}")
        return tuple(notes)
