"""A scan as the network of the thigh sees it: each leg as it is, mirrored, or with front and back exchanged."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import mirror_frame
from musclekit.image import Image
from musclekit.labels import Side
from musclekit.segmenters.thigh_trust import certainty

if TYPE_CHECKING:
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.device import Precision
    from musclekit.neural.views import View

    #: Of each leg what is seen of it, and the probabilities of ``thigh-context``, shape (17, z, y, x).
    Answers = tuple[tuple[View, NDArray[np.float16]], ...]

__all__ = ["ThighLook", "sureness_of"]


def sureness_of(answers: Iterable[NDArray[np.float16]]) -> float:
    """How sure the network is of what it sees: the mean over slices, and over legs."""
    return float(np.mean([certainty(answer).mean() for answer in answers if answer.shape[1]]))


class ThighLook:
    """A scan shown to a network, as often as is needed.

    Parameters
    ----------
    network : Module
        On the device, set to evaluate.
    card : SegmenterCard
        Of it.
    image : Image
        The scan. Errors are those of `musclekit.neural.segmentation.segment_volume`.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one.
    device, batch, precision
        As for `musclekit.neural.segmentation.segment_volume`.
    """

    def __init__(
        self,
        network: Any,
        card: SegmenterCard,
        image: Image,
        *,
        side: Side | None,
        device: str,
        batch: int,
        precision: Precision,
    ) -> None:
        from musclekit.neural.segmentation import look_at

        with warnings.catch_warnings():
            # Whoever looks tries both sides.
            warnings.filterwarnings("ignore", "a leg of unknown side", UserWarning)
            self._look = look_at(network, card, image, side=side)
        self._network, self._card = network, card
        self._device, self._batch, self._precision = device, batch, precision

    def answers(self, *, rows: int = 1, columns: int = 1) -> Answers:
        """Return what the network says of each leg, shown with rows or columns in the other order (-1).

        With columns in the other order views are mirrored too, so that answers lie on the scan as it is: a leg taken
        for one of the other side. With rows in the other order they do not lie on it.
        """
        return tuple(
            (
                view if columns > 0 else replace(view, frame=view.frame.then(mirror_frame)),
                self._said(unit, rows, columns),
            )
            for view, unit in zip(self._look.views, self._look.units, strict=True)
        )

    def sureness(self, planes: Sequence[slice], *, rows: int = 1, columns: int = 1) -> float:
        """How sure the network is of some planes of each leg, shown like that."""
        return sureness_of(
            self._said(unit[here], rows, columns) for unit, here in zip(self._look.units, planes, strict=True)
        )

    def _said(self, unit: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float16]:
        from musclekit.neural.segmentation import view_probabilities

        shown = np.ascontiguousarray(unit[:, ::rows, ::columns])
        return view_probabilities(
            self._network, self._card, shown, device=self._device, batch=self._batch, precision=self._precision
        )
