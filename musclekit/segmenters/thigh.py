"""Single thigh muscles in scans of any contrast, by a network that never saw one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import BaseEstimator

from musclekit.anatomy import side_by_position
from musclekit.checks import check_cases, check_contrast
from musclekit.errors import CheckpointError, MissingFileError, ParameterError
from musclekit.image import Assessment, Case, Contrast, Image, LabelMap, ProbabilityMap
from musclekit.labels import SIDES, LabelMapping, LabelSet, Side, label_mapping, label_set
from musclekit.segmenters.network import load_network, people_of
from musclekit.segmenters.thigh_answer import ThighAnswer
from musclekit.segmenters.thigh_look import ThighLook, sureness_of
from musclekit.segmenters.thigh_orientation import header_doubts
from musclekit.segmenters.thigh_side import guessed_side
from musclekit.segmenters.thigh_trust import CONTEXT, ThighTrust
from musclekit.weights import checkpoint_path

if TYPE_CHECKING:
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.device import Precision

__all__ = ["WEIGHTS", "ThighSegmenter", "trust_path"]

#: The weights that ship.
WEIGHTS = "thigh-any-contrast"


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
        Which leg, for scans that show one. Where neither this nor the scan tells, it is taken for that of the side on
        which it lay in the scanner, or where that says nothing for the one that it looks like.

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
        ModalityError
            If the checkpoint was not trained for the contrast of the image; the one that ships takes all.
        LabelError
            If ``thigh-context`` does not lead to the label set.
        """
        assessment = self.assess(image)
        for note in assessment.notes:
            warnings.warn(note, stacklevel=2)
        return assessment.labels

    def assess(self, image: Image) -> Assessment:
        """Segment a scan and say how far to trust it; errors are those of `segment`, and warnings are notes here."""
        look, answer = self._answer(image)
        voxels = self._mapping.table()[answer.labelled]
        notes = (*answer.notes(), *header_doubts(look, answer))
        return Assessment(
            LabelMap(voxels, image.grid, self.label_set), answer.accepted, answer.sides, answer.confidence, notes
        )

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Return the probability of each label; where no thigh is seen all is background.

        Warnings and errors are as in `segment`.
        It is large in a large label set: ``labels="muscle"`` takes a sixteenth of the memory.
        """
        (look, answer), mapping = self._answer(image), self._mapping
        for note in (*answer.notes(), *header_doubts(look, answer)):
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

    def _answer(self, image: Image) -> tuple[ThighLook, ThighAnswer]:
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
        look = ThighLook(
            network, card, image, side=self.side, device=self.device, batch=self.batch, precision=self.precision
        )
        answers = look.answers()
        ((view, found), *others) = answers
        if others or view.side is not None:
            return look, ThighAnswer(image, answers, tuple(_known(view.side) for view, _ in answers), trust, None)
        # Unmirrored it was taken for a right leg.
        mirrored = look.answers(columns=-1)
        leaning = sureness_of([found]) - sureness_of(answer for _, answer in mirrored)
        guess = guessed_side(leaning, side_by_position(image.grid, view.mask))
        return look, ThighAnswer(image, answers if guess.side == "right" else mirrored, (guess.side,), trust, guess)


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
