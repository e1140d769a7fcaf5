"""Translators that were trained: one class, whatever the network in the checkpoint leads from and to."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from musclekit.checks import check_contrast, check_number
from musclekit.errors import CheckpointError, ParameterError, UnsafeError
from musclekit.image import Contrast, Domain, Image
from musclekit.protocols import Segmenter
from musclekit.translators.safety import compartment_of, safety
from musclekit.weights import named_checkpoint

if TYPE_CHECKING:
    from musclekit.neural.cards import TranslatorCard

__all__ = ["NetworkTranslator"]


class NetworkTranslator(BaseEstimator):
    """Translate scans by a trained generator.

    Registered as ``hard-to-easy``, ``easy-to-hard``, ``mr-to-ct`` and ``ct-to-mr``: each takes checkpoints of its own
    direction and no others.

    Parameters
    ----------
    checkpoint : str or Path
        File written by training, or the name of weights that ship (`musclekit.weights.shipped`).
    direction : str, optional
        What the checkpoint has to lead from and to, ``"hard-to-easy"``; any if left out.
    device : str
        Where the network runs: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. One that is not there is an error.
    batch : int
        Slices that go through it at once.
    per_leg : bool, optional
        Whether each leg is translated alone, left ones mirrored; as the network was trained if left out.
    within : Segmenter, optional
        Finds the muscle compartment in the image; outside it the image stays as it is. Nothing there is infiltrated,
        and a network that darkens fat in muscle is prone to darken some of the fat under the skin too, which moves
        the border between them. Only where source and target share their grey values; not in the papers.
    strict : bool
        Whether a translation that fails a check is refused. Here the checks are those that need no segmentation;
        `musclekit translate --strict` makes them all.

    See Also
    --------
    musclekit.neural.inference.translate_volume : the work.
    musclekit.translators.safety : the checks.
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path | None = None,
        direction: str | None = None,
        device: str = "cpu",
        batch: int = 8,
        per_leg: bool | None = None,
        within: Segmenter | None = None,
        strict: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.direction = direction
        self.device = device
        self.batch = batch
        self.per_leg = per_leg
        self.within = within
        self.strict = strict

    @property
    def card(self) -> TranslatorCard:
        """What the checkpoint says of itself.

        Raises
        ------
        ParameterError
            If no checkpoint was named.
        MissingFileError, FormatError, CheckpointError
            If it cannot be used, or leads in another direction.
        """
        return self._loaded()[1]

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrast that the network was trained to take."""
        return frozenset({self.card.source.contrast})

    @property
    def source(self) -> Domain:
        """The domain that the network was trained to take."""
        return self.card.source

    @property
    def target(self) -> Domain:
        """The domain that it gives."""
        return self.card.target

    @property
    def training_subjects_(self) -> tuple[str, ...]:
        """The people of either domain that it learnt from: an evaluation scores none of them."""
        return tuple(sorted(set().union(*self.card.training_subjects)))

    def translate(self, image: Image) -> Image:
        """Translate a scan, slice by slice.

        Raises
        ------
        ParameterError
            If no checkpoint was named, a parameter is out of range, the device is not there, or only the compartment is
            to be changed and the grey values of source and target are not on one scale.
        ModalityError
            If the image is not of the source's contrast.
        VoxelError
            If it is constant or all air.
        SegmentationError
            If there is no body in it, or no compartment is found.
        LabelError
            If the labels of `within` do not lead to a compartment.
        UnsafeError
            If `strict` is set and a check fails; the message says which.
        """
        from musclekit.neural.inference import translate_volume

        check_number("batch", self.batch, least=1, whole=True)
        network, card = self._loaded(on_device=True)
        check_contrast(image, {card.source.contrast}, self.direction or card.name)
        if self.within is not None and not card.shares_scale:
            raise ParameterError(
                f"within leaves the image as it is outside the compartment, and '{card.name}' changes what grey values "
                "mean: leave within out"
            )
        if self.within is None and "within" in card.meant_with:
            warnings.warn(
                f"'{card.name}' is meant with within = {card.meant_with['within']!r}, which its scores rest on: "
                "without it what lies outside the muscle compartment is changed too",
                stacklevel=2,
            )
        voxels = translate_volume(network, card, image, device=self.device, batch=self.batch, per_leg=self.per_leg)
        if self.within is not None:
            voxels = np.where(compartment_of(self.within.segment(image)), voxels, image.voxels)
        fake = image.with_voxels(voxels, card.target.contrast, card.target.grade)
        if self.strict:
            found = safety(image, fake, monotone=card.monotone, window=card.windows[0], deciles=card.source_deciles)
            problems = found.warnings()
            if problems:
                raise UnsafeError(f"the translation is refused: {'; '.join(problems)}")
        return fake

    def _loaded(self, *, on_device: bool = False) -> tuple[Any, TranslatorCard]:
        """Network and card, read once for as long as the file stays the same."""
        path, state = named_checkpoint(self.checkpoint, self.direction)
        loaded = _load(path, state, self.device if on_device else "cpu")
        leads = loaded[1].direction
        if self.direction not in (None, leads):
            raise CheckpointError(f"{path}: a checkpoint of '{leads}', not of '{self.direction}'")
        return loaded


@lru_cache(maxsize=4)
def _load(path: Path, state: tuple[int, ...], device: str) -> tuple[Any, TranslatorCard]:
    """Read a checkpoint; the state of the file stands for its content."""
    from musclekit.neural import resolve_device
    from musclekit.neural.cards import TranslatorCard
    from musclekit.neural.checkpoint import load_checkpoint

    where = resolve_device(device)
    network, card = load_checkpoint(path, TranslatorCard)
    return network.to(where), card
